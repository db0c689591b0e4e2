"""Timings as tables for a terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nas_recalib.timing.run import Mean, Result, geometric_means


def timing_tables(results: Sequence[Result]) -> RenderableType:
    """Every case, and the geometric means over each set's places."""
    return Group(_cases(results), Text(), _means(geometric_means(results)))


def _cases(results: Sequence[Result]) -> Table:
    table = _table("Time against vanilla", "set", "place", "batch", "choice")
    for heading in ("vanilla ms", "ms", "ratio", "quartiles", "samples"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        case, ratio = result.case, result.times.ratio()
        vanilla, choice = (f"{seconds * 1e3:.3f}" for seconds in result.times.medians)
        table.add_row(
            *(case.place.set, case.place.name, str(case.batch), str(case.choice), vanilla, choice),
            f"{ratio.median:.3f}",
            f"{ratio.lower:.3f} to {ratio.upper:.3f}",
            str(len(result.times.rounds)),
        )
    return table


def _means(means: Sequence[Mean]) -> Table:
    table = _table("Geometric means", "set", "sizes", "batch", "choice")
    for heading in ("places", "ratio", "worst"):
        table.add_column(heading, justify="right", no_wrap=True)
    for mean in means:
        table.add_row(
            *(mean.set, mean.sizes, str(mean.batch), mean.choice, str(mean.places)),
            f"{mean.ratio:.3f}",
            f"{mean.worst:.3f}",
        )
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading == "batch" else "left", no_wrap=True)
    return table
