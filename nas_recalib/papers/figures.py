"""Figures that the papers print: their tables as rows, and the comparison with our counts."""

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.papers.countings import COUNTINGS

Agreement = Literal["rounded", "cut off"]

PAPERS = {
    "scnet": "SCNet, CVPR 2020",
    "psconv": "PSConv, ECCV 2020",
    "ms-sar": "MS-SAR, ECCV 2018",
    "booster": "Accuracy Booster, WACV 2020",
}
QUANTITIES = ("params", "macs", "flops")
POWERS = {"M": 6, "G": 9}


@dataclass(frozen=True)
class Accuracy:
    """Printed accuracy or error of one row on one data set, in per cent; what is not printed is empty.

    Attributes:
        dataset: Name of the data set: "imagenet", "cifar10" or "cifar100".
        kind: Whether the figures are accuracies or errors.
        top1: Top-1 figure with all printed digits.
        top1_std: Standard deviation of the top-1 figure over the runs.
        top5: Top-5 figure with all printed digits.
        runs: Number of runs that the figure is the mean of, where the paper states it.
        test: Crop or image size of the test.
        schedule: Training schedule, as the paper's text or table names it.
        recipe: Name of our recipe with the same schedule.
    """

    dataset: str
    kind: Literal["accuracy", "error"]
    top1: str
    top1_std: str
    top5: str
    runs: int | None
    test: str
    schedule: str
    recipe: str


@dataclass(frozen=True)
class Row:
    """One row of a paper's table.

    Attributes:
        key: Permanent name of the row, such as "scnet-t1-scnet50".
        paper: Key of the paper in `PAPERS`.
        table: Number of the table in the paper, or "section 4.2" for a figure in the text.
        network: Name of the network in the paper.
        dataset: Data set that the complexity is for.
        choice: Our choice for all blocks, or for each stage with bars between.
        architecture: Our architecture with this choice; None where no backbone and operator can build it.
        printed: Printed complexity by quantity, such as "25.6M"; empty where there is none.
        countings: Name of the counting that the table seems to follow, by quantity; empty where it is ours.
        note: Remark on our architecture, or on a figure that nothing explains.
        accuracies: Printed results, one for each data set.
    """

    key: str
    paper: str
    table: str
    network: str
    dataset: str
    choice: str
    architecture: Architecture | None
    printed: Mapping[str, str]
    countings: Mapping[str, str]
    note: str
    accuracies: tuple[Accuracy, ...]


@dataclass(frozen=True)
class Cell:
    """Comparison of a printed figure with our count.

    Attributes:
        printed: Printed figure.
        ours: Our count; None where the network cannot be built.
        agrees: Whether the count is the printed figure after rounding or cutting off; None where no count is.
        counting: "ours"; the name of another counting, where only that agrees; "difference" where only the
            difference to the vanilla network agrees.
        counted: Count by that counting, or the difference.
    """

    printed: str
    ours: int | None = None
    agrees: Agreement | None = None
    counting: str | None = None
    counted: int | None = None


@dataclass(frozen=True)
class Compared:
    """A row with its comparisons, by quantity; a quantity that is not printed has none."""

    row: Row
    cells: Mapping[str, Cell]


def read_rows(paper: str | None = None) -> list[Row]:
    """Return the rows of all papers, or of one, in the order in which they are printed.

    Raises:
        InputError: If there is no such paper.
    """
    if paper not in (None, *PAPERS):
        raise InputError(f"paper: {paper!r} is not one of {', '.join(PAPERS)}")
    results: dict[str, list[Accuracy]] = {}
    for record in _read_csv("accuracies.csv"):
        row, runs = record.pop("row"), record.pop("runs")
        results.setdefault(row, []).append(Accuracy(**record, runs=int(runs) if runs else None))
    return [
        _row(record, tuple(results.get(record["key"], ())))
        for record in _read_csv("complexity.csv")
        if paper in (None, record["paper"])
    ]


def _read_csv(name: str) -> list[dict[str, Any]]:
    with (files("nas_recalib.papers") / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _row(record: Mapping[str, str], accuracies: tuple[Accuracy, ...]) -> Row:
    return Row(
        **{name: record[name] for name in ("key", "paper", "table", "network", "dataset", "choice")},
        architecture=_architecture(record) if record["backbone"] else None,
        printed={quantity: record[quantity] for quantity in QUANTITIES},
        countings={quantity: record[f"{quantity}_counting"] for quantity in QUANTITIES},
        note=record["note"],
        accuracies=accuracies,
    )


def _architecture(record: Mapping[str, str]) -> Architecture:
    names = list(get_backbone(record["backbone"]).blocks())
    stages = list(dict.fromkeys(_stage(name) for name in names))
    texts = [text.strip() for text in record["choice"].split("|")]
    choices = dict(zip(stages, texts if len(texts) > 1 else texts * len(stages), strict=True))
    sizes = {key: int(record[key]) for key in ("input_size", "num_classes")}
    return Architecture.of(record["backbone"], {name: choices[_stage(name)] for name in names}, **sizes)


def _stage(block: str) -> str:
    return block.rpartition(".")[0]


def find_row(key: str) -> Row:
    """Return the row of that key.

    Raises:
        InputError: If there is none; the nearest keys are named.
    """
    rows = {row.key: row for row in read_rows()}
    if key not in rows:
        nearest = difflib.get_close_matches(key[:100], rows, cutoff=0)
        raise InputError(
            f"row: {key!r} is not a row of the papers' tables; the nearest are {', '.join(nearest)}"
        )
    return rows[key]


def export_row(row: Row, path: Path) -> Architecture:
    """Write the architecture of a row, with the table it is from and what the paper prints for it.

    Args:
        row: Row to export.
        path: File to write.

    Returns:
        The architecture that was written.

    Raises:
        InputError: If the network cannot be built or the file cannot be written.
    """
    if row.architecture is None:
        raise InputError(f"row: {row.key} is {row.network}, which no backbone and operator here can build")
    accuracies = [
        {name: value for name, value in asdict(accuracy).items() if value not in ("", None)}
        for accuracy in row.accuracies
    ]
    complexity = {quantity: figure for quantity, figure in row.printed.items() if figure}
    origin = {
        "row": row.key,
        "paper": PAPERS[row.paper],
        "table": row.table,
        "network": row.network,
        **({"printed_complexity": complexity} if complexity else {}),
        **({"printed_accuracy": accuracies} if accuracies else {}),
    }
    row.architecture.save(path, origin)
    return row.architecture


@cache
def count(architecture: Architecture, quantity: str, counting: str = "") -> int:
    """Return a quantity by our own counting, or by the named one; a MAC is two FLOPs."""
    if quantity == "flops":
        return 2 * count(architecture, "macs", counting)
    return int(COUNTINGS[counting](architecture) if counting else getattr(architecture.cost(), quantity))


def compare(rows: Sequence[Row]) -> list[Compared]:
    """Count every row and compare it with the printed figures."""
    vanilla: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        if row.architecture and set(map(str, row.architecture.choices)) == {"vanilla"}:
            vanilla.setdefault((row.paper, row.table, row.architecture.backbone), row)
    return [
        Compared(row, {name: _cell(row, vanilla, name) for name in QUANTITIES if row.printed[name]})
        for row in rows
    ]


def _cell(row: Row, vanilla: Mapping[tuple[str, str, str], Row], quantity: str) -> Cell:
    printed, architecture = row.printed[quantity], row.architecture
    if architecture is None:
        return Cell(printed)
    ours = count(architecture, quantity)
    for counting in filter(None, ("ours", row.countings[quantity])):
        counted = ours if counting == "ours" else count(architecture, quantity, counting)
        if agrees := agreement(counted, printed):
            return Cell(printed, ours, agrees, counting, counted)
    base = vanilla.get((row.paper, row.table, architecture.backbone))
    if base and base is not row and base.architecture and base.printed[quantity]:
        difference = ours - count(base.architecture, quantity)
        if _differ_by(difference, printed, base.printed[quantity]):
            return Cell(printed, ours, "rounded", "difference", difference)
    return Cell(printed, ours)


def agreement(value: int, printed: str) -> Agreement | None:
    """Return whether a value, rounded or else cut off, is the printed one; None if it is not."""
    number, unit = Decimal(printed[:-1]), printed[-1]
    exact = Decimal(value).scaleb(-POWERS[unit])
    if exact.quantize(number, ROUND_HALF_UP) == number:
        return "rounded"
    return "cut off" if exact.quantize(number, ROUND_DOWN) == number else None


def _differ_by(difference: int, printed: str, vanilla: str) -> bool:
    """Return whether the difference of two printed figures is a value, rounded."""
    between = Decimal(printed[:-1]) - Decimal(vanilla[:-1])
    return printed[-1] == vanilla[-1] and agreement(difference, f"{between}{vanilla[-1]}") == "rounded"


def summary(compared: Sequence[Compared]) -> dict[str, int]:
    """Return the number of figures of complexity, in all and by the way in which they agree."""
    cells = [cell for item in compared for cell in item.cells.values()]
    countings = [cell.counting for cell in cells if cell.ours is not None]
    return {
        "figures": len(cells),
        "ours": countings.count("ours"),
        "ours_cut_off": sum(cell.counting == "ours" and cell.agrees == "cut off" for cell in cells),
        "other_counting": sum(counting in COUNTINGS for counting in countings),
        "difference": countings.count("difference"),
        "unexplained": countings.count(None),
        "not_built": len(cells) - len(countings),
    }
