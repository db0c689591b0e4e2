"""Axes, grid lines and labels of charts that are written as SVG without a plotting library or a browser."""

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


@dataclass(frozen=True)
class Axis:
    """One side of a chart, from its first tick to its last.

    Attributes:
        ticks: Round values in ascending order.
        start: Pixel of the first tick.
        end: Pixel of the last tick.
    """

    ticks: tuple[float, ...]
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def linear_axis(least: float, greatest: float, start: float, end: float, *, steps: int = 8) -> Axis:
    """Return an axis that contains two values, with about `steps` steps at most."""
    span = greatest - least
    if span <= 1e-9 * max(abs(least), abs(greatest)):  # equal up to rounding
        span = abs(greatest) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    step = next(
        power * factor for factor in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if span / (power * factor) <= steps
    )
    first, last = math.floor(least / step), math.ceil(greatest / step)
    ticks = tuple(float(f"{index * step:.12g}") for index in range(first, max(last, first + 1) + 1))
    return Axis(ticks, start, end)


def grid(x: Axis, y: Axis) -> Iterator[str]:
    """Yield lines of class `g` at every tick, with the ticks' values below and on the left."""
    for tick in x.ticks:
        at = f"{x.at(tick):.1f}"
        yield f'<path class="g" d="M{at},{y.start:.1f}L{at},{y.end:.1f}"/>'
        yield f'<text x="{at}" y="{y.start + 18:.1f}" text-anchor="middle">{_format(tick)}</text>'
    for tick in y.ticks:
        at = f"{y.at(tick):.1f}"
        yield f'<path class="g" d="M{x.start:.1f},{at}L{x.end:.1f},{at}"/>'
        position = f'x="{x.start - 8:.1f}" y="{y.at(tick) + 4:.1f}"'
        yield f'<text {position} text-anchor="end">{_format(tick)}</text>'


def axis_labels(x: Axis, y: Axis, x_label: str, y_label: str, *, below: float, left: float) -> Iterator[str]:
    """Yield the names of the axes, in the middle of each; `below` and `left` are pixels."""
    across, down = (x.start + x.end) / 2, (y.start + y.end) / 2
    yield f'<text x="{across:g}" y="{below:g}" text-anchor="middle">{html.escape(x_label)}</text>'
    rotated = f'transform="rotate(-90 {left:g} {down:g})" x="{left:g}" y="{down:g}"'
    yield f'<text {rotated} text-anchor="middle">{html.escape(y_label)}</text>'


def _format(tick: float) -> str:
    for power, unit in _UNITS:
        if power <= abs(tick) < 1e15:
            return f"{tick / power:g}{unit}"
    return f"{tick:g}"
