"""Scatter plot of predictions against measurements as a small SVG file."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from svg_axes import axis_labels, grid, linear_axis

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
    """Return an SVG of points in a square with equal axes, with the diagonal.

    Args:
        points: Pairs (x, y) in the same unit.
        title: Title above the square.
        x_label: Name of the x axis.
        y_label: Name of the y axis.
        labels: Text for each point, shown when the pointer rests on it.
        band: Half the width of the band around the diagonal, as a share of x: 0.1 is 10%.

    Raises:
        ValueError: If there are no points, one is not finite, or the numbers of labels and points differ.
    """
    if not points or not all(map(math.isfinite, (value for point in points for value in point))):
        raise ValueError("points: expected one at least, all of them finite")
    if labels and len(labels) != len(points):
        raise ValueError(f"labels: {len(labels)} for {len(points)} points")
    least, greatest = min(map(min, points)), max(map(max, points))
    across = linear_axis(least, greatest, _MARGIN, _MARGIN + _SIDE)
    up = replace(across, start=across.end, end=across.start)
    low, high = across.ticks[0], across.ticks[-1]

    def pixels(x: float, y: float) -> str:
        return f"{across.at(x):.1f},{up.at(y):.1f}"

    def parts() -> Iterator[str]:
        yield from grid(across, up)
        if band is not None:
            corners = ((low, low * (1 - band)), (high, high * (1 - band)), (high, high * (1 + band)))
            outline = " ".join(pixels(*corner) for corner in (*corners, (low, low * (1 + band))))
            yield f'<polygon class="b" clip-path="url(#square)" points="{outline}"/>'
        yield f'<path class="d" d="M{pixels(low, low)}L{pixels(high, high)}"/>'
        for index, point in enumerate(points):
            x, y = pixels(*point).split(",")
            hover = f"<title>{html.escape(labels[index])}</title>" if labels else ""
            yield f'<circle class="p" cx="{x}" cy="{y}" r="3.5">{hover}</circle>'
        yield f'<text class="t" x="{_MARGIN}" y="{_MARGIN - 24}">{html.escape(title)}</text>'
        yield from axis_labels(across, up, x_label, y_label, below=size - 14, left=16)

    size = _SIDE + 2 * _MARGIN
    square = f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}"/>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" height="{size}" '
        f'role="img"><style>{_STYLE}</style><defs><clipPath id="square">{square}</clipPath></defs>'
        f'<rect width="{size}" height="{size}" fill="#fff"/>'
    )
    return "\n".join((head, *parts(), "</svg>")) + "\n"
