"""SVG chart of regret over simulated hours, with a panel for each benchmark and pruner."""

import html
from collections.abc import Iterator, Sequence
from typing import Any

from svg_axes import Axis, axis_labels, grid, linear_axis

_WIDTH, _HEIGHT = 400, 300  # size of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 56
_LINE = 20  # height of a line of the legend
_COLOURS = ("#0060a0", "#b34700", "#007a5a", "#a03c78", "#5b4a9e", "#7a5c00", "#444", "#c02020")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:14px;font-weight:600}.g{stroke:#e5e5e5}"
    ".m{fill:none;stroke-width:1.8}.b{fill-opacity:.12}"
)


def chart(results: Sequence[dict[str, Any]]) -> str:
    """Draw medians with their intervals, a curve for each strategy.

    Args:
        results: Results of `search_summary.summarise`.
    """
    benchmarks, pruners, strategies = (
        list(dict.fromkeys(row[key] for row in results)) for key in ("benchmark", "pruner", "strategy")
    )
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(strategies)}
    width, height = _WIDTH * len(pruners), _HEIGHT * len(benchmarks) + _LINE * len(strategies) + _LINE

    def parts() -> Iterator[str]:
        for row, benchmark in enumerate(benchmarks):
            of_benchmark = [result for result in results if result["benchmark"] == benchmark]
            for column, pruner in enumerate(pruners):
                yield f'<g transform="translate({column * _WIDTH} {row * _HEIGHT})">'
                yield from _panel(f"{benchmark}, pruner {pruner}", of_benchmark, pruner, colours)
                yield "</g>"
        for index, (name, colour) in enumerate(colours.items()):
            y = _HEIGHT * len(benchmarks) + _LINE * (index + 1)
            yield f'<path class="m" stroke="{colour}" d="M{_LEFT} {y - 4}h24"/>'
            yield f'<text x="{_LEFT + 32}" y="{y}">{html.escape(name)}</text>'

    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img"><style>{_STYLE}</style><rect width="{width}" height="{height}" '
        'fill="#fff"/>'
    )
    return "\n".join((head, *parts(), "</svg>")) + "\n"


def _panel(
    title: str, results: Sequence[dict[str, Any]], pruner: str, colours: dict[str, str]
) -> Iterator[str]:
    """Draw the curves of one pruner, on axes that fit all results of the benchmark."""
    points = [
        (hours, 100 * regret)
        for result in results
        for hours, regret in zip(result["hours"], result["regret"]["high"], strict=True)
        if regret is not None
    ]
    across = linear_axis(0, max((x for x, _ in points), default=1), _LEFT, _WIDTH - _RIGHT, steps=6)
    up = linear_axis(0, max((y for _, y in points), default=1), _HEIGHT - _BOTTOM, _TOP, steps=6)
    yield from grid(across, up)
    yield from axis_labels(
        across, up, "simulated hours", "regret, percentage points", below=_HEIGHT - 16, left=16
    )
    yield f'<text class="t" x="{_LEFT}" y="{_TOP - 16}">{html.escape(title)}</text>'
    for result in results:
        if result["pruner"] == pruner:
            yield from _curve(result, across, up, colours[result["strategy"]])


def _curve(result: dict[str, Any], across: Axis, up: Axis, colour: str) -> Iterator[str]:
    """Draw a curve, where both ends of its interval are finite."""
    regret = result["regret"]
    columns = zip(result["hours"], regret["median"], regret["low"], regret["high"], strict=True)
    points = [(across.at(x), *(up.at(100 * y) for y in ys)) for x, *ys in columns if None not in ys]
    if not points:
        return
    lower = [f"{x:.1f},{low:.1f}" for x, _, low, _ in points]
    upper = [f"{x:.1f},{high:.1f}" for x, _, _, high in reversed(points)]
    middle = "L".join(f"{x:.1f},{median:.1f}" for x, median, _, _ in points)
    name = html.escape(result["strategy"])
    yield f'<polygon class="b" fill="{colour}" points="{" ".join((*lower, *upper))}"/>'
    yield f'<path class="m" stroke="{colour}" d="M{middle}"><title>{name}</title></path>'
