"""Terminal tables of operator timings and of latency tables, and progress lines of a calibration."""

import time
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.latency.table import LatencyTable
from nas_recalib.report.terminal import PlainTable, duration, remaining_seconds
from nas_recalib.timing.run import Mean, Result, geometric_means


def timing_tables(results: Sequence[Result]) -> RenderableType:
    """Return a table of all cases and one of the geometric means over the places of each set."""
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
    return PlainTable(headings, "llrlrrrrr", rows, "Time relative to vanilla")


def _means(means: Sequence[Mean]) -> PlainTable:
    rows = [
        (
            *(mean.set, mean.sizes, str(mean.batch), mean.choice, str(mean.places)),
            *(f"{mean.ratio:.3f}", f"{mean.worst:.3f}"),
        )
        for mean in means
    ]
    headings = ("set", "sizes", "batch", "choice", "places", "ratio", "worst")
    return PlainTable(headings, "llrlrrr", rows, "Geometric means")


def round_reporter(
    say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[LatencyTable], None]:
    """Return a function that prints a line about the last round of a table, with the time left.

    Args:
        say: Function that prints a line.
        clock: Function that returns the time in seconds.
    """
    remaining = remaining_seconds(clock)

    def report(table: LatencyTable) -> None:
        last, count = table.rounds[-1], len(table.rounds)
        say(
            f"round {count}/{table.wanted}: {last.network_ns / 1e6:.2f} ms, reference "
            f"{last.reference_ns / 1e6:.2f} ms, about {duration(remaining(table.wanted - count))} left"
        )

    return report


def latency_summary(table: LatencyTable) -> RenderableType:
    """Return the fit of a table with its errors, and the fastest and slowest choice of each position."""
    conditions, fit = table.conditions, table.fit
    compiled = ", compiled" if conditions.compile else ""
    lines = (
        f"{table.space.name} on {conditions.device}, batch size {conditions.batch}, "
        f"{conditions.dtype}{compiled}",
        f"reference (the first choice everywhere): {table.reference_ms:.3f} ms",
        f"predicted latency = {fit.intercept * 1e3:.3f} ms + {fit.slope:.3f} * sum of its entries; error "
        f"over {len(table.rounds)} rounds: median {fit.typical_error:.1%}, "
        f"90th percentile {fit.large_error:.1%}",
    )
    return Group(*(Text(line) for line in lines), Text(), _positions(table))


def _positions(table: LatencyTable) -> PlainTable:
    rows = []
    for position, row in zip(table.space.positions, table.entries, strict=True):
        entries = dict(zip(map(str, position.choices), row, strict=True))
        by_time = sorted(entries, key=lambda name: entries[name].median)
        shown = {"first": str(position.choices[0]), "fastest": by_time[0], "slowest": by_time[-1]}
        for which, name in shown.items():
            entry = entries[name]
            spread = (entry.upper - entry.lower) / entry.median
            figures = (f"{entry.median * 1e3:.3f}", str(entry.samples), f"{spread:.1%}")
            rows.append((position.name, which, name, *figures))
    headings = ("position", "which", "choice", "ms", "samples", "spread")
    return PlainTable(headings, "lllrrr", rows, "Milliseconds of each position")
