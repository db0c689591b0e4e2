"""The papers' tables with our counts, for the terminal, as Markdown and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.papers.countings import COUNTINGS
from nas_recalib.papers.figures import PAPERS, POWERS, QUANTITIES, Accuracy, Cell, Compared, Row, summary
from nas_recalib.report.terminal import PlainTable

_NAMES = {"params": "params", "macs": "MACs", "flops": "FLOPs"}
_COMPLEXITY = ("row", "figure", "printed", "ours", "agrees")
_ACCURACY = ("row", "network", "top-1", "top-5", "runs")
_RIGHT = ("printed", "ours", "params", "MACs", "FLOPs", "top-1", "top-5", "runs")
_MARKS = {
    "yes": "our count, rounded, is the printed figure",
    "cut off": "our count, cut off after the printed digits, is the printed figure",
    "difference": "only the difference to the vanilla network's figure agrees, rounded",
    "no": "no counting is known that gives the printed figure",
    "not built": "no backbone and operators here can build the paper's network",
}


def paper_table(compared: Sequence[Compared]) -> RenderableType:
    """Return the accuracies and the complexity of each paper, a legend, and how many figures agree."""
    parts: list[RenderableType] = []
    for paper, rows in _by_paper(compared):
        parts += [Text(PAPERS[paper], style="bold"), Text()]
        for caption, results in _results(rows):
            parts += [Text(caption), _table(*_accuracy_lines(results)), Text()]
        lines = [
            ["" if index else item.row.key, _NAMES[quantity], *_cell_texts(cell)]
            for item in rows
            for index, (quantity, cell) in enumerate(item.cells.items())
        ]
        parts += [Text("Complexity"), _table(_COMPLEXITY, lines), Text(), *map(Text, _notes(rows)), Text()]
    legend = [Text(f"{mark}: {meaning}") for mark, meaning in _legend(compared).items()]
    return Group(*parts, *legend, Text(), Text(_counts(compared)))


def paper_page(compared: Sequence[Compared]) -> str:
    """Return the same as a page of Markdown."""
    figures = [heading for quantity in QUANTITIES for heading in (_NAMES[quantity], "ours", "agrees")]
    lines = [
        "# The papers' tables",
        "",
        f"Written by `nas-recalib tables --markdown`. {_counts(compared)}",
        "`nas_recalib/papers/complexity.csv` says which of our networks stands for a row, and",
        "`nas-recalib tables --export ROW` writes it as an architecture file.",
        "",
        "## Complexity, as the papers print it and as we count it",
        "",
    ]
    lines += _markdown(["row", "network", *figures, "note"], [_line(item) for item in compared if item.cells])
    lines += ["", *(f"* `{mark}`: {meaning}" for mark, meaning in _legend(compared).items())]
    for paper, rows in _by_paper(compared):
        notes = [f"* {note}" for note in _notes(item for item in rows if not item.cells)]
        lines += ["", f"## Accuracies of {PAPERS[paper]}"]
        for caption, results in _results(rows):
            lines += ["", caption, "", *_markdown(*_accuracy_lines(results))]
        lines += ["", *notes] if notes else []
    return "\n".join(lines)


def as_dict(compared: Sequence[Compared]) -> dict[str, Any]:
    """Return everything for JSON."""
    return {
        "rows": [_row_dict(item) for item in compared],
        "marks": _legend(compared),
        "summary": summary(compared),
    }


def _row_dict(item: Compared) -> dict[str, Any]:
    row, architecture = item.row, item.row.architecture
    return {
        **{name: getattr(row, name) for name in ("key", "paper", "table", "network", "dataset")},
        "backbone": architecture and architecture.backbone,
        "choice": row.choice or None,
        "num_classes": architecture and architecture.num_classes,
        "input_size": architecture and architecture.input_size,
        **{quantity: vars(cell) for quantity, cell in item.cells.items()},
        "accuracies": [
            {name: None if value == "" else value for name, value in asdict(accuracy).items()}
            for accuracy in row.accuracies
        ],
        "note": row.note,
    }


def _by_paper(compared: Sequence[Compared]) -> list[tuple[str, list[Compared]]]:
    return [(paper, list(rows)) for paper, rows in groupby(compared, lambda item: item.row.paper)]


def _results(compared: Iterable[Compared]) -> Iterable[tuple[str, list[tuple[Row, Accuracy]]]]:
    """Return the results of each caption, which names their table, data set, test and schedule."""
    groups: dict[str, list[tuple[Row, Accuracy]]] = {}
    for item in compared:
        for accuracy in item.row.accuracies:
            groups.setdefault(_caption(item.row, accuracy), []).append((item.row, accuracy))
    return groups.items()


def _caption(row: Row, accuracy: Accuracy) -> str:
    where = f"Table {row.table}" if row.table.isdecimal() else row.table.capitalize()
    recipe = f" (--recipe {accuracy.recipe})" if accuracy.recipe else ""
    details = [text for text in (accuracy.test, f"{accuracy.schedule}{recipe}") if text]
    return "; ".join([f"{where}, {accuracy.dataset}, {accuracy.kind} (%)", *details])


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> PlainTable:
    layout = "".join("w" if heading == "row" else "r" if heading in _RIGHT else "l" for heading in headings)
    return PlainTable(headings, layout, rows)


def _accuracy_lines(results: Sequence[tuple[Row, Accuracy]]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the lines of a table of accuracies, without empty columns."""
    lines = [
        [
            *(row.key, row.network),
            f"{accuracy.top1} ± {accuracy.top1_std}" if accuracy.top1_std else accuracy.top1,
            *(accuracy.top5, "" if accuracy.runs is None else str(accuracy.runs)),
        ]
        for row, accuracy in results
    ]
    used = [index for index in range(len(_ACCURACY)) if any(line[index] for line in lines)]
    return [_ACCURACY[index] for index in used], [[line[index] for index in used] for line in lines]


def _notes(compared: Iterable[Compared]) -> list[str]:
    """Return each note once, with the rows that it is about."""
    keys: dict[str, list[str]] = {}
    for item in compared:
        if item.row.note:
            keys.setdefault(item.row.note, []).append(item.row.key)
    return [f"{', '.join(rows)}: {note}" for note, rows in keys.items()]


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---:" if heading in _RIGHT else "---" for heading in headings]
    return [f"| {' | '.join(line)} |" for line in (headings, ruler, *lines)]


def _line(item: Compared) -> list[str]:
    figures = [text for quantity in QUANTITIES for text in _cell_texts(item.cells.get(quantity))]
    return [item.row.key, item.row.network, *figures, item.row.note]


def _cell_texts(cell: Cell | None) -> tuple[str, str, str]:
    if cell is None:
        return "", "", ""
    return cell.printed, "" if cell.ours is None else _in_unit_of(cell.printed, cell.ours), _mark(cell)


def _in_unit_of(printed: str, value: int) -> str:
    return f"{value / 10 ** POWERS[printed[-1]]:.3f}{printed[-1]}"


def _mark(cell: Cell) -> str:
    if cell.ours is None:
        return "not built"
    if cell.agrees is None or cell.counted is None:
        return "no"
    if cell.counting == "ours":
        return "yes" if cell.agrees == "rounded" else "cut off"
    counted = f"{cell.counting} {_in_unit_of(cell.printed, cell.counted)}"
    return counted if cell.agrees == "rounded" else f"{counted}, cut off"


def _legend(compared: Sequence[Compared]) -> dict[str, str]:
    """Return the meaning of the papers' keys, the marks and the countings that occur."""
    papers = {item.row.paper for item in compared}
    named = {cell.counting for item in compared for cell in item.cells.values()}
    countings = {name: str(count.__doc__) for name, count in COUNTINGS.items() if name in named}
    return {**{key: name for key, name in PAPERS.items() if key in papers}, **_MARKS, **countings}


def _counts(compared: Sequence[Compared]) -> str:
    n = summary(compared)
    return (
        f"{n['ours']} of {n['figures']} printed figures of complexity agree by our own counting "
        f"({n['ours_cut_off']} of them cut off), {n['other_counting']} more by another counting, "
        f"{n['difference']} in the difference alone; {n['unexplained']} do not, and {n['not_built']} are of "
        "networks that cannot be built here."
    )
