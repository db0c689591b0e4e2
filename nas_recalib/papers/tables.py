"""Tables of the papers with our figures beside theirs, for a terminal, as Markdown and as JSON."""

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
    "yes": "ours is the printed figure to its every digit, rounded",
    "cut off": "likewise, its further digits cut off",
    "difference": "only the differences to the plain network's figures agree, rounded",
    "no": "no counting was found that gives the printed figure",
    "not built": "the paper's network has no backbone and operators here",
}

_Results = Sequence[tuple[Row, Accuracy]]


def paper_table(compared: Sequence[Compared]) -> RenderableType:
    """Return the accuracies and the complexity of each paper, what the marks mean, and how many agree."""
    parts: list[RenderableType] = []
    for paper, rows in _by_paper(compared):
        parts += [Text(PAPERS[paper], style="bold"), Text()]
        for caption, results in _results(rows):
            parts += [Text(caption), _table(*_accuracy_lines(results)), Text()]
        lines = [
            ["" if index else one.row.key, _NAMES[quantity], *_cell_texts(cell)]
            for one in rows
            for index, (quantity, cell) in enumerate(one.cells.items())
        ]
        parts += [Text("Complexity"), _table(_COMPLEXITY, lines), Text(), *map(Text, _notes(rows)), Text()]
    legend = [Text(f"{mark}: {meaning}") for mark, meaning in _legend(compared).items()]
    return Group(*parts, *legend, Text(), Text(_counts(compared)))


def paper_page(compared: Sequence[Compared]) -> str:
    """Return the same as a page of Markdown."""
    headings = ["row", "network"]
    for quantity in QUANTITIES:
        headings += [_NAMES[quantity], "ours", "agrees"]
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
    lines += _markdown([*headings, "note"], [_line(one) for one in compared if one.cells])
    lines += ["", *(f"* `{mark}`: {meaning}" for mark, meaning in _legend(compared).items())]
    for paper, rows in _by_paper(compared):
        notes = [f"* {note}" for note in _notes(one for one in rows if not one.cells)]
        lines += ["", f"## Accuracies of {PAPERS[paper]}"]
        for caption, results in _results(rows):
            lines += ["", caption, "", *_markdown(*_accuracy_lines(results))]
        lines += ["", *notes] if notes else []
    return "\n".join(lines)


def as_dict(compared: Sequence[Compared]) -> dict[str, Any]:
    """Return everything, for programs."""
    rows = [
        {
            "key": one.row.key,
            "paper": one.row.paper,
            "table": one.row.table,
            "network": one.row.network,
            "dataset": one.row.dataset,
            "backbone": one.row.architecture and one.row.architecture.backbone,
            "choice": one.row.choice or None,
            "num_classes": one.row.architecture and one.row.architecture.num_classes,
            "input_size": one.row.architecture and one.row.architecture.input_size,
            **{quantity: vars(cell) for quantity, cell in one.cells.items()},
            "accuracies": [
                {name: None if value == "" else value for name, value in asdict(accuracy).items()}
                for accuracy in one.row.accuracies
            ],
            "note": one.row.note,
        }
        for one in compared
    ]
    return {"rows": rows, "marks": _legend(compared), "summary": summary(compared)}


def _by_paper(compared: Sequence[Compared]) -> list[tuple[str, list[Compared]]]:
    return [(paper, list(rows)) for paper, rows in groupby(compared, lambda one: one.row.paper)]


def _results(compared: Iterable[Compared]) -> list[tuple[str, _Results]]:
    """Return the results that share a table, data set, test and schedule, under what they share."""
    groups: dict[str, list[tuple[Row, Accuracy]]] = {}
    for one in compared:
        for accuracy in one.row.accuracies:
            groups.setdefault(_caption(one.row, accuracy), []).append((one.row, accuracy))
    return list(groups.items())


def _caption(row: Row, accuracy: Accuracy) -> str:
    where = f"Table {row.table}" if row.table.isdecimal() else row.table.capitalize()
    recipe = f" (--recipe {accuracy.recipe})" if accuracy.recipe else ""
    how = [text for text in (accuracy.test, f"{accuracy.schedule}{recipe}") if text]
    return "; ".join([f"{where}, {accuracy.dataset}, {accuracy.kind} (%)", *how])


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> PlainTable:
    layout = "".join("w" if heading == "row" else "r" if heading in _RIGHT else "l" for heading in headings)
    return PlainTable(headings, layout, rows)


def _accuracy_lines(results: _Results) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the lines of a table of accuracies, without columns that nothing is in."""
    lines = [
        [row.key, row.network, _spread(one), one.top5, "" if one.runs is None else str(one.runs)]
        for row, one in results
    ]
    used = [index for index in range(len(_ACCURACY)) if any(line[index] for line in lines)]
    return [_ACCURACY[index] for index in used], [[line[index] for index in used] for line in lines]


def _spread(accuracy: Accuracy) -> str:
    return f"{accuracy.top1} ± {accuracy.top1_std}" if accuracy.top1_std else accuracy.top1


def _notes(compared: Iterable[Compared]) -> list[str]:
    """Return each note once, after the rows that it is about."""
    keys: dict[str, list[str]] = {}
    for one in compared:
        if one.row.note:
            keys.setdefault(one.row.note, []).append(one.row.key)
    return [f"{', '.join(rows)}: {note}" for note, rows in keys.items()]


def _markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---:" if heading in _RIGHT else "---" for heading in headings]
    return [f"| {' | '.join(line)} |" for line in (headings, ruler, *lines)]


def _line(one: Compared) -> list[str]:
    figures = [text for quantity in QUANTITIES for text in _cell_texts(one.cells.get(quantity))]
    return [one.row.key, one.row.network, *figures, one.row.note]


def _cell_texts(cell: Cell | None) -> tuple[str, str, str]:
    if cell is None:
        return "", "", ""
    return cell.printed, "" if cell.ours is None else _like(cell.printed, cell.ours), _mark(cell)


def _like(printed: str, value: int) -> str:
    """Return a value in the unit of a printed one."""
    return f"{value / 10 ** POWERS[printed[-1]]:.3f}{printed[-1]}"


def _mark(cell: Cell) -> str:
    if cell.ours is None:
        return "not built"
    if cell.agrees is None or cell.counted is None:
        return "no"
    how = "yes" if cell.agrees == "rounded" else "cut off"
    if cell.counting == "ours":
        return how
    counted = f"{cell.counting} {_like(cell.printed, cell.counted)}"
    return counted if how == "yes" else f"{counted}, {how}"


def _legend(compared: Sequence[Compared]) -> dict[str, str]:
    """Return what the papers and marks that occur mean."""
    papers = {one.row.paper for one in compared}
    named = {cell.counting for one in compared for cell in one.cells.values()}
    countings = {name: str(count.__doc__) for name, count in COUNTINGS.items() if name in named}
    return {**{key: name for key, name in PAPERS.items() if key in papers}, **_MARKS, **countings}


def _counts(compared: Sequence[Compared]) -> str:
    n = summary(compared)
    return (
        f"{n['ours']} of {n['figures']} printed figures of complexity agree by our own counting "
        f"({n['ours_cut_off']} of them cut off), {n['other_counting']} more by the counting named, "
        f"{n['difference']} in the difference alone; {n['unexplained']} do not, and {n['not_built']} are of "
        "networks that cannot be built here."
    )
