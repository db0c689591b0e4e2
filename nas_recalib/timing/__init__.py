"""What operators cost in time, against vanilla."""

from nas_recalib.timing.cases import MSAR, SIZES, Case, Place, Settings, list_cases
from nas_recalib.timing.paired import Ratio, Times, time_side_by_side
from nas_recalib.timing.run import Mean, Result, geometric_means, report, run

__all__ = [
    "MSAR",
    "SIZES",
    "Case",
    "Mean",
    "Place",
    "Ratio",
    "Result",
    "Settings",
    "Times",
    "geometric_means",
    "list_cases",
    "report",
    "run",
    "time_side_by_side",
]
