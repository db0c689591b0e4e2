"""Timings as tables for a terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.report.terminal import PlainTable
from nas_recalib.timing.run import Mean, Result, geometric_means


def timing_tables(results: Sequence[Result]) -> RenderableType:
    """Every case, and the geometric means over each set's places."""
    return Group(_cases(results), Text(), _means(geometric_means(results)))


def _cases(results: Sequence[Result]) -> PlainTable:
    rows = []
    for result in results:
        case, ratio = result.case, result.times.ratio()
        vanilla, choice = (f"{seconds * 1e3:.3f}" for seconds in result.times.medians)
        rows.append(
            (
                *(case.place.set, case.place.name, str(case.batch), str(case.choice), vanilla, choice),
                f"{ratio.median:.3f}",
                f"{ratio.lower:.3f} to {ratio.upper:.3f}",
                str(len(result.times.rounds)),
            )
        )
    headings = ("set", "place", "batch", "choice", "vanilla ms", "ms", "ratio", "quartiles", "samples")
    return PlainTable(headings, "llrlrrrrr", rows, "Time against vanilla")


def _means(means: Sequence[Mean]) -> PlainTable:
    rows = [
        (
            *(mean.set, mean.sizes, str(mean.batch), mean.choice, str(mean.places)),
            f"{mean.ratio:.3f}",
            f"{mean.worst:.3f}",
        )
        for mean in means
    ]
    headings = ("set", "sizes", "batch", "choice", "places", "ratio", "worst")
    return PlainTable(headings, "llrlrrr", rows, "Geometric means")
