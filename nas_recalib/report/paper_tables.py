"""The papers' complexity tables with our figures beside theirs: for a terminal, as Markdown, for programs."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.report.countings import COUNTINGS
from nas_recalib.report.paper_figures import PAPERS, POWERS, QUANTITIES, Cell, Compared, summary
from nas_recalib.report.terminal import PlainTable

_HEADINGS = ("table", "network", "params", "ours", "agrees", "MACs", "ours", "agrees", "note")
_RIGHT = ("params", "MACs", "ours")
_MARKS = {
    "yes": "ours is the printed figure to its every digit, rounded",
    "cut off": "likewise, its further digits cut off",
    "difference": "only the differences to the plain network's figures agree, rounded",
    "no": "no counting was found that gives the printed figure",
}


def paper_table(compared: Sequence[Compared]) -> RenderableType:
    """Every row, what the marks mean, and how many figures agree."""
    layout = "".join("r" if heading in _RIGHT else "l" for heading in _HEADINGS)
    table = PlainTable(_HEADINGS, layout, [_line(one) for one in compared])
    legend = [Text(f"{mark}: {meaning}") for mark, meaning in _legend(compared).items()]
    return Group(table, Text(), *legend, Text(), Text(_told(compared)))


def paper_page(compared: Sequence[Compared]) -> str:
    """The same as a page of Markdown."""
    lines = [_HEADINGS, ["---:" if heading in _RIGHT else "---" for heading in _HEADINGS]]
    lines += [_line(one) for one in compared]
    return "\n".join(
        [
            "# Complexity, as the papers print it and as we count it",
            "",
            f"Written by `nas-recalib tables --markdown`. {_told(compared)}",
            "What of ours stands for a row is in [complexity.csv](../../nas_recalib/report/complexity.csv).",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            *(f"* `{mark}`: {meaning}" for mark, meaning in _legend(compared).items()),
        ]
    )


def as_dict(compared: Sequence[Compared]) -> dict[str, Any]:
    """Everything, for programs."""
    rows = [
        {
            "paper": one.row.paper,
            "table": one.row.table,
            "network": one.row.network,
            "backbone": one.row.architecture.backbone,
            "choice": one.row.choice,
            "num_classes": one.row.architecture.num_classes,
            "input_size": one.row.architecture.input_size,
            **{quantity: vars(cell) for quantity, cell in one.cells.items()},
            "note": one.row.note,
        }
        for one in compared
    ]
    return {"rows": rows, "marks": _legend(compared), "summary": summary(compared)}


def _line(one: Compared) -> list[str]:
    figures = [text for quantity in QUANTITIES for text in _texts(one.cells.get(quantity))]
    return [f"{one.row.paper} {one.row.table}", one.row.network, *figures, one.row.note]


def _texts(cell: Cell | None) -> tuple[str, str, str]:
    if cell is None:
        return "", "", ""
    return cell.printed, _like(cell.printed, cell.ours), _mark(cell)


def _like(printed: str, value: int) -> str:
    """A value in the unit of a printed one."""
    return f"{value / 10 ** POWERS[printed[-1]]:.3f}{printed[-1]}"


def _mark(cell: Cell) -> str:
    if cell.agrees is None or cell.counted is None:
        return "no"
    how = "yes" if cell.agrees == "rounded" else "cut off"
    if cell.counting == "ours":
        return how
    counted = f"{cell.counting} {_like(cell.printed, cell.counted)}"
    return counted if how == "yes" else f"{counted}, {how}"


def _legend(compared: Sequence[Compared]) -> dict[str, str]:
    """What the papers and marks that occur mean."""
    papers = {one.row.paper for one in compared}
    named = {cell.counting for one in compared for cell in one.cells.values()}
    countings = {name: str(count.__doc__) for name, count in COUNTINGS.items() if name in named}
    return {**{key: told for key, told in PAPERS.items() if key in papers}, **_MARKS, **countings}


def _told(compared: Sequence[Compared]) -> str:
    n = summary(compared)
    return (
        f"{n['ours']} of {n['figures']} printed figures agree by our own counting "
        f"({n['ours_cut_off']} of them cut off), {n['other_counting']} more by the counting named, "
        f"{n['difference']} in the difference alone; {n['unexplained']} do not."
    )
