"""SVG charts of the correlation report: axes, scatter plots, bars."""

import html
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nas_recalib.correlation.recommend import Judged, Verdict, seconds_text

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True)
class Axis:
    """One side of a chart, from its first tick to its last.

    Attributes:
        ticks: Round values, rising.
        start: Pixel of the first.
        end: Pixel of the last.
        logarithmic: Whether equal ratios are equally far apart.
    """

    ticks: tuple[float, ...]
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, here = self.ticks[0], self.ticks[-1], value
        if self.logarithmic:
            low, high, here = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (here - low) / (high - low) * (self.end - self.start)


def linear_axis(least: float, greatest: float, start: float, end: float, *, most: int = 8) -> Axis:
    """From below the least to above the greatest value, in about as many steps as `most` at most."""
    return Axis(tuple(_ticks(least, greatest, most)), start, end)


def logarithmic_axis(least: float, greatest: float, start: float, end: float, *, most: int = 8) -> Axis:
    """The same for values above 0, at 1, 2 and 5 of every power of ten or at powers of ten alone."""
    return Axis(tuple(_powers(least, greatest, most)), start, end, logarithmic=True)


def grid(x: Axis, y: Axis) -> Iterator[str]:
    """Lines of class `g` at every tick, with what they stand for below and on the left."""
    for tick in x.ticks:
        at = f"{x.at(tick):.1f}"
        yield f'<path class="g" d="M{at},{y.start:.1f}L{at},{y.end:.1f}"/>'
        yield f'<text x="{at}" y="{y.start + 18:.1f}" text-anchor="middle">{_written(tick)}</text>'
    for tick in y.ticks:
        at = f"{y.at(tick):.1f}"
        yield f'<path class="g" d="M{x.start:.1f},{at}L{x.end:.1f},{at}"/>'
        place = f'x="{x.start - 8:.1f}" y="{y.at(tick) + 4:.1f}"'
        yield f'<text {place} text-anchor="end">{_written(tick)}</text>'


def axis_labels(x: Axis, y: Axis, x_label: str, y_label: str, *, below: float, left: float) -> Iterator[str]:
    """What the axes stand for, in the middle of each; `below` and `left` are pixels."""
    across, down = (x.start + x.end) / 2, (y.start + y.end) / 2
    yield f'<text x="{across:g}" y="{below:g}" text-anchor="middle">{html.escape(x_label)}</text>'
    turned = f'transform="rotate(-90 {left:g} {down:g})" x="{left:g}" y="{down:g}"'
    yield f'<text {turned} text-anchor="middle">{html.escape(y_label)}</text>'


def _written(tick: float) -> str:
    for power, unit in _UNITS:
        if power <= abs(tick) < 1e15:
            return f"{tick / power:g}{unit}"
    return f"{tick:g}"


def _ticks(least: float, greatest: float, most: int) -> list[float]:
    span = greatest - least
    if span <= 1e-9 * max(abs(least), abs(greatest)):  # the same but for rounding
        span = abs(greatest) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    step = next(
        power * factor for factor in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if span / (power * factor) <= most
    )
    first, last = math.floor(least / step), math.ceil(greatest / step)
    return [float(f"{index * step:.12g}") for index in range(first, max(last, first + 1) + 1)]


def _powers(least: float, greatest: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(greatest))
    last = max(last, first + 1)
    # From a power lower, for the logarithm of what is just below a power may be that power's.
    fine = [float(f"{digit}e{power}") for power in range(first - 1, last + 1) for digit in (1, 2, 5)]
    below = max(index for index, tick in enumerate(fine) if tick <= least)
    above = min(index for index, tick in enumerate(fine) if tick >= greatest)
    if above - below <= most:
        return fine[below : max(above, below + 1) + 1]
    stride = -(-(last - first) // most)
    return [float(f"1e{power}") for power in range(first, last + stride, stride)]


STYLE = """
svg { width: 100%; height: auto; display: block }
svg text { font: 12px system-ui, sans-serif; fill: #333 }
.g { stroke: #e5e5e5 } .p { fill: #0060a0; fill-opacity: .7 } .e { stroke: #0060a0; stroke-opacity: .35 }
.c { fill: #f0b400; fill-opacity: .22 } .l { stroke: #8a6700; stroke-dasharray: 6 3 }
.v { stroke: #666; stroke-dasharray: 3 3 } .r { fill: none; stroke: #111; stroke-width: 2 }
.w { fill: none; stroke-opacity: .6 }
"""

_COLOURS = ("#0060a0", "#b34700", "#007a5a", "#a03c78", "#5b4a9e", "#7a5c00")
_GREY, _BLACK = "#666", "#222"
_TITLES = 200_000  # bytes for what is shown when the pointer rests on a point, in all panels together
_POINT = 70  # bytes of a point without what is shown
_LARGEST = 1e300  # beyond it, differences overflow
_LINE, _LETTER, _LONGEST = 14, 6.5, 26  # pixels from line to line and of a letter, and letters of a name
_PANEL, _CHART = 330, 500  # pixels of the charts' width
_ACROSS = (66, _PANEL - 36)  # pixels of a panel's first and last tick, with room for their labels


def panel(judged: Judged, verdict: Verdict, names: Sequence[str]) -> str:
    """A signal against the mean accuracy of the longer training, from the worst to the best seed.

    Args:
        judged: The whole comparison.
        verdict: The signal's.
        names: Of the architectures, shown when the pointer rests on a point; shortened where there are many
            points.
    """
    correlation, signal = judged.correlation, verdict.signal
    given = zip(signal.values, correlation.means, correlation.runs, strict=True)
    points = [(i, value, mean, runs) for i, (value, mean, runs) in enumerate(given) if _drawable(value, mean)]
    room = _TITLES // (len(correlation.signals) * len(names)) - _POINT
    accuracies = [accuracy for row in correlation.runs for accuracy in row if _drawable(accuracy)]
    x = _signal_axis([value for _, value, _, _ in points])
    y = linear_axis(min(accuracies, default=0.0), max(accuracies, default=1.0), 184, 10, most=5)
    name = textwrap.shorten(signal.name, 40, placeholder="…")

    def parts() -> Iterator[str]:
        yield from grid(x, y)
        yield from axis_labels(x, y, name, "accuracy", below=222, left=12)
        bars = [
            f"M{x.at(value):.0f} {y.at(min(runs)):.0f}V{y.at(max(runs)):.0f}" for _, value, _, runs in points
        ]
        if correlation.seeds > 1:
            yield f'<path class="e" d="{"".join(bars)}"/>'
        for index, value, mean, _ in points:
            told = textwrap.shorten(f"{index + 1}: {names[index]}", max(room, 5), placeholder="…")
            place = f'cx="{x.at(value):.1f}" cy="{y.at(mean):.1f}"'
            yield f'<circle class="p" {place} r="3"><title>{html.escape(told)}</title></circle>'

    return _svg(_PANEL, 230, f"{signal.name}: tau {verdict.agreement.tau}", parts())


def cost_chart(judged: Judged) -> str:
    """Tau of every signal against its seconds, with the ceiling and the longer training's cost."""
    correlation, ceiling = judged.correlation, judged.ceiling
    shown = [verdict for verdict in judged.verdicts if _drawable(verdict.agreement.tau.value)]
    costs = [c for c in (*(v.signal.seconds for v in shown), correlation.reference_seconds) if c > 0]
    x = logarithmic_axis(min(costs, default=1.0), max(costs, default=1.0), 66, _CHART - 30, most=6)
    lows = [told.low for told in (*(v.agreement.tau for v in shown), ceiling.expected, ceiling.between_seeds)]
    y = linear_axis(min([0.0, *filter(math.isfinite, lows)]), 1.0, 340, 24, most=7)
    marks = [_mark_of(verdict, judged, x, y) for verdict in shown]

    def parts() -> Iterator[str]:
        yield from grid(x, y)
        yield from axis_labels(x, y, "seconds for one architecture", "tau", below=380, left=14)
        yield from _ceiling(judged, x, y)
        yield from _fidelities(marks, x, y)
        for mark in marks:
            yield from mark.drawn(ringed=mark.verdict.signal.name == judged.recommendation.signal)
        yield from _names(marks)

    return _svg(_CHART, 390, "tau of every signal against its cost; the table has the same figures", parts())


@dataclass(frozen=True)
class _Mark:
    """A signal's place in the chart of costs."""

    verdict: Verdict
    x: float
    y: float
    low: float
    high: float
    colour: str

    def drawn(self, *, ringed: bool) -> Iterator[str]:
        signal, x, y = self.verdict.signal, self.x, self.y
        told = f"{signal.name}, {seconds_text(signal.seconds)}: tau {self.verdict.agreement.tau}"
        yield f'<g fill="{self.colour}"><title>{html.escape(told)}</title>'
        yield f'<path stroke="{self.colour}" d="M{x:.1f} {self.low:.1f}V{self.high:.1f}"/>'
        if signal.kind == "training":
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        elif signal.kind == "score":
            yield f'<path d="M{x - 5:.1f} {y + 4:.1f}h10l-5 -9z"/>'
        else:
            yield f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
        if ringed:
            yield f'<circle class="r" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
        yield "</g>"


def _mark_of(verdict: Verdict, judged: Judged, x: Axis, y: Axis) -> _Mark:
    signal, tau = verdict.signal, verdict.agreement.tau
    fidelities = list(dict.fromkeys(s.fidelity for s in judged.correlation.signals if s.kind == "training"))
    colours = {"score": _BLACK, "baseline": _GREY}
    colour = colours.get(signal.kind) or _COLOURS[fidelities.index(signal.fidelity) % len(_COLOURS)]
    across = x.at(signal.seconds) if signal.seconds > 0 else x.start
    return _Mark(verdict, across, y.at(tau.value), y.at(tau.low), y.at(tau.high), colour)


def _ceiling(judged: Judged, x: Axis, y: Axis) -> Iterator[str]:
    """The band where the true order would fall, and where one seed stands against another."""
    expected, between, cost = (
        judged.ceiling.expected,
        judged.ceiling.between_seeds,
        judged.correlation.reference_seconds,
    )
    if _drawable(expected.value):
        top, bottom, middle = (y.at(value) for value in (expected.high, expected.low, expected.value))
        yield f'<path class="c" d="M{x.start} {top:.1f}H{x.end}V{bottom:.1f}H{x.start}z"/>'
        yield f'<path class="l" d="M{x.start} {middle:.1f}H{x.end}"/>'
        yield f'<text x="{x.start + 4}" y="{middle - 4:.1f}">ceiling: {expected.value:.2f}</text>'
    if cost > 0:
        yield f'<path class="v" d="M{x.at(cost):.1f} {y.start}V{y.end}"/>'
        label = f"one longer training: {seconds_text(cost)}"
        place = f'x="{x.at(cost):.1f}" y="{y.end - 8}" text-anchor="{_anchor(x.at(cost), label)}"'
        yield f"<text {place}>{label}</text>"
    if cost > 0 and _drawable(between.value):
        at, here = x.at(cost), y.at(between.value)
        yield f"<g><title>one seed of the longer training against another: tau {between}</title>"
        yield f'<path stroke="{_BLACK}" d="M{at:.1f} {y.at(between.low):.1f}V{y.at(between.high):.1f}"/>'
        yield f'<path fill="{_BLACK}" d="M{at - 6:.1f} {here:.1f}l6 -6l6 6l-6 6z"/></g>'


def _fidelities(marks: Sequence[_Mark], x: Axis, y: Axis) -> Iterator[str]:
    """Each fidelity's name in its colour, and its first signals of every epoch joined."""
    fidelities: dict[str, dict[int, _Mark]] = {}
    for mark in marks:
        signal = mark.verdict.signal
        if signal.kind == "training":
            fidelities.setdefault(signal.fidelity, {}).setdefault(signal.epoch, mark)
    for line, (name, epochs) in enumerate(reversed(fidelities.items())):
        row = [epochs[epoch] for epoch in sorted(epochs)]
        points = " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in row)
        yield f'<polyline class="w" stroke="{row[0].colour}" points="{points}"/>'
        yield _label(name, x.end - 8, y.start - 10 - _LINE * line, "end", row[0].colour)


def _names(marks: Sequence[_Mark]) -> Iterator[str]:
    """The name beside each score and baseline, moved down where it would cover another."""
    taken: list[tuple[float, float, float]] = []
    for mark in sorted(marks, key=lambda mark: mark.y):
        if mark.verdict.signal.kind == "training":
            continue
        name, y = mark.verdict.signal.name, mark.y - 6
        width = _LETTER * min(len(name), _LONGEST)
        left_of_it = mark.x + 9 + width > _CHART
        start = mark.x - 9 - width if left_of_it else mark.x + 9
        end = start + width
        while any(abs(y - other) < _LINE and start < right and left < end for other, left, right in taken):
            y += 1
        taken.append((y, start, end))
        yield _label(name, end if left_of_it else start, y, "end" if left_of_it else "start", mark.colour)


def _anchor(x: float, text: str) -> str:
    """Return which end of a text is at x: "end", or "start" where there is no room on its left."""
    return "end" if _LETTER * len(text) < x else "start"


def _label(text: str, x: float, y: float, anchor: str, colour: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{colour}"'
    return f"<text {place}>{html.escape(textwrap.shorten(text, _LONGEST, placeholder='…'))}</text>"


def _signal_axis(values: Sequence[float]) -> Axis:
    """Logarithmic where values above 0 differ by more than a hundred times."""
    least, greatest = min(values, default=0.0), max(values, default=1.0)
    if least > 1 / _LARGEST and greatest / 100 > least:
        return logarithmic_axis(least, greatest, *_ACROSS, most=4)
    return linear_axis(least, greatest, *_ACROSS, most=4)


def _drawable(*values: float) -> bool:
    return all(abs(value) < _LARGEST for value in values)


def _svg(width: int, height: int, label: str, parts: Iterator[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
    return "\n".join((f'{head} aria-label="{html.escape(label)}">', *parts, "</svg>"))
