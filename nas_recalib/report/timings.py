"""Terminal tables of operator timings and of latency tables."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.latency import LatencyTable
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


@dataclass
class RoundReporter:
    """Tells of every round, and how long the rest will take.

    Attributes:
        say: Takes each line.
        clock: Tells the seconds.
    """

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _begun: float = field(init=False)
    _told: int = 0

    def __post_init__(self) -> None:
        self._begun = self.clock()

    def __call__(self, table: LatencyTable) -> None:
        self._told += 1
        done = table.rounds[-1]
        left = (self.clock() - self._begun) / self._told * (table.wanted - len(table.rounds))
        self.say(
            f"round {len(table.rounds)}/{table.wanted}: {done.network_ns / 1e6:.2f} ms, "
            f"the reference {done.reference_ns / 1e6:.2f} ms, about {left:.0f} s left"
        )


def latency_summary(table: LatencyTable) -> RenderableType:
    """How well entries make up networks, and for each position its fastest and slowest choice."""
    conditions, fit = table.conditions, table.fit
    compiled = ", compiled" if conditions.compile else ""
    lines = (
        f"{table.space.name} on {conditions.device}, batch {conditions.batch}, {conditions.dtype}{compiled}",
        f"the reference, the first choice everywhere: {table.reference_ms:.3f} ms",
        f"a network: {fit.intercept * 1e3:.3f} ms + {fit.slope:.3f} * its entries; over the "
        f"{len(table.rounds)} rounds half are within {fit.typical_error:.1%}, nine tenths within "
        f"{fit.large_error:.1%}",
    )
    return Group(*(Text(line) for line in lines), Text(), _positions(table))


def _positions(table: LatencyTable) -> PlainTable:
    rows = []
    for position, row in zip(table.space.positions, table.entries, strict=True):
        choices = dict(zip(map(str, position.choices), row, strict=True))
        shown = {
            "first": str(position.choices[0]),
            "fastest": min(choices, key=lambda name: choices[name].median),
            "slowest": max(choices, key=lambda name: choices[name].median),
        }
        for which, name in shown.items():
            entry = choices[name]
            spread = (entry.upper - entry.lower) / entry.median
            figures = (f"{entry.median * 1e3:.3f}", str(entry.samples), f"{spread:.1%}")
            rows.append((position.name, which, name, *figures))
    headings = ("position", "which", "choice", "ms", "samples", "spread")
    return PlainTable(headings, "lllrrr", rows, "Milliseconds of each position")
