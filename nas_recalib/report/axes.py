"""Axes of charts that are written by hand as SVG: round ticks, and values to pixels."""

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass

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
