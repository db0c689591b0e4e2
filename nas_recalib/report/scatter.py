"""A scatter plot as one SVG, written by hand: opens anywhere, and reads well as text."""

import html
import math
from collections.abc import Iterator, Sequence

_SIDE, _MARGIN = 420, 60
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:14px;font-weight:600}"
    ".g{stroke:#e5e5e5}.d{stroke:#888;fill:none}.b{fill:#1f77b4;opacity:.1}.p{fill:#1f77b4;opacity:.75}"
)


def scatter(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    labels: Sequence[str] = (),
    band: float | None = None,
) -> str:
    """Points in a square whose two axes are alike, with the diagonal.

    Args:
        points: (x, y) each, in the same unit.
        title: Above it.
        x_label: Below it.
        y_label: On its left.
        labels: What is shown when the pointer rests on each point.
        band: Half the width of the band around the diagonal, as a share of x: 0.1 is 10%.

    Raises:
        ValueError: If there are no points, one is not finite, or there are not as many labels as points.
    """
    if not points or not all(map(math.isfinite, (value for point in points for value in point))):
        raise ValueError("points: expected one at least, all of them finite")
    if labels and len(labels) != len(points):
        raise ValueError(f"labels: {len(labels)} for {len(points)} points")
    ticks = _ticks(min(map(min, points)), max(map(max, points)))
    low, high = ticks[0], ticks[-1]

    def at(value: float) -> float:
        return (value - low) / (high - low) * _SIDE

    def place(x: float, y: float) -> str:
        return f"{_MARGIN + at(x):.1f},{_MARGIN + _SIDE - at(y):.1f}"

    def parts() -> Iterator[str]:
        for tick in ticks:
            for start, end in (((tick, low), (tick, high)), ((low, tick), (high, tick))):
                yield f'<path class="g" d="M{place(*start)}L{place(*end)}"/>'
            x, y = place(tick, tick).split(",")
            yield f'<text x="{x}" y="{_MARGIN + _SIDE + 18}" text-anchor="middle">{tick:g}</text>'
            yield f'<text x="{_MARGIN - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        if band is not None:
            corners = ((low, low * (1 - band)), (high, high * (1 - band)), (high, high * (1 + band)))
            outline = " ".join(place(*corner) for corner in (*corners, (low, low * (1 + band))))
            yield f'<polygon class="b" clip-path="url(#square)" points="{outline}"/>'
        yield f'<path class="d" d="M{place(low, low)}L{place(high, high)}"/>'
        for index, point in enumerate(points):
            x, y = place(*point).split(",")
            told = f"<title>{html.escape(labels[index])}</title>" if labels else ""
            yield f'<circle class="p" cx="{x}" cy="{y}" r="3.5">{told}</circle>'
        middle, size = _MARGIN + _SIDE / 2, _SIDE + 2 * _MARGIN
        yield f'<text class="t" x="{_MARGIN}" y="{_MARGIN - 24}">{html.escape(title)}</text>'
        yield f'<text x="{middle}" y="{size - 14}" text-anchor="middle">{html.escape(x_label)}</text>'
        turned = f'transform="rotate(-90 16 {middle})" x="16" y="{middle}"'
        yield f'<text {turned} text-anchor="middle">{html.escape(y_label)}</text>'

    size = _SIDE + 2 * _MARGIN
    square = f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}"/>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" height="{size}" '
        f'role="img"><style>{_STYLE}</style><defs><clipPath id="square">{square}</clipPath></defs>'
        f'<rect width="{size}" height="{size}" fill="#fff"/>'
    )
    return "\n".join((head, *parts(), "</svg>")) + "\n"


def _ticks(least: float, greatest: float) -> list[float]:
    """Round numbers from below the least to above the greatest, five to eleven of them."""
    span = (greatest - least) or abs(greatest) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * factor for factor in (0.1, 0.2, 0.5, 1.0, 2.0) if span / (power * factor) <= 8)
    first, last = math.floor(least / step), math.ceil(greatest / step)
    return [float(f"{index * step:.12g}") for index in range(first, max(last, first + 1) + 1)]
