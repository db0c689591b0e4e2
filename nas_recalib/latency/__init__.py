"""How long architectures take on a machine: a table made from whole networks, and real measurements."""

from nas_recalib.latency.build import build_table, default_path, rounds_for
from nas_recalib.latency.measure import Measured, measure_architectures
from nas_recalib.latency.table import Entry, Fit, LatencyTable

__all__ = [
    "Entry",
    "Fit",
    "LatencyTable",
    "Measured",
    "build_table",
    "default_path",
    "measure_architectures",
    "rounds_for",
]
