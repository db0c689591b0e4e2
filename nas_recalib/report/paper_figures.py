"""The papers' complexity figures, and whether ours are the same.

What the papers print is in complexity.csv beside this file, with what of ours stands for each row, the
counting that its table seems to follow, and what is to be said of it.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from importlib.resources import files
from typing import Literal

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.report.countings import COUNTINGS

Agreement = Literal["rounded", "cut off"]

PAPERS = {
    "scnet": "SCNet, CVPR 2020",
    "psconv": "PSConv, ECCV 2020",
    "ms-sar": "MS-SAR, ECCV 2018",
    "booster": "Accuracy Booster, WACV 2020",
}
QUANTITIES = ("params", "macs")
POWERS = {"M": 6, "G": 9}


@dataclass(frozen=True)
class Row:
    """One row of a paper's table.

    Attributes:
        paper: A key of `PAPERS`.
        table: Its number in the paper.
        network: As the paper names it.
        choice: What of ours stands for it: of all blocks, or of each stage, set apart by bars.
        architecture: The same, on the backbone.
        printed: The printed figures, such as "25.6M", by quantity; empty where there is none.
        countings: By quantity the counting that its table seems to follow, empty where that is ours.
        note: What is to be said of what stands for it, or of a figure that nothing explains.
    """

    paper: str
    table: str
    network: str
    choice: str
    architecture: Architecture
    printed: Mapping[str, str]
    countings: Mapping[str, str]
    note: str


@dataclass(frozen=True)
class Cell:
    """A printed figure beside ours.

    Attributes:
        printed: As the paper has it.
        ours: By our own counting.
        agrees: How the counting named gives the printed figure to its every digit; None where nothing does.
        counting: "ours"; another one's name, where ours does not agree but that does; "difference" where
            no figure agrees, but its difference to that of the plain network.
        counted: Ours by the counting named, or the difference.
    """

    printed: str
    ours: int
    agrees: Agreement | None = None
    counting: str | None = None
    counted: int | None = None


@dataclass(frozen=True)
class Compared:
    """A row and its cells, by quantity; a quantity that is not printed has none."""

    row: Row
    cells: Mapping[str, Cell]


def read_rows(paper: str | None = None) -> list[Row]:
    """The rows of all papers, or of one.

    Raises:
        InputError: If there is no such paper.
    """
    if paper not in (None, *PAPERS):
        raise InputError(f"paper: {paper!r} is not one of {', '.join(PAPERS)}")
    with (files("nas_recalib.report") / "complexity.csv").open(encoding="utf-8") as file:
        return [_row(record) for record in csv.DictReader(file) if paper in (None, record["paper"])]


def _row(record: dict[str, str]) -> Row:
    return Row(
        paper=record["paper"],
        table=record["table"],
        network=record["network"],
        choice=record["choice"],
        architecture=_architecture(record),
        printed={quantity: record[quantity] for quantity in QUANTITIES},
        countings={quantity: record[f"{quantity}_counting"] for quantity in QUANTITIES},
        note=record["note"],
    )


def _architecture(record: dict[str, str]) -> Architecture:
    names = list(get_backbone(record["backbone"]).blocks())
    stages = list(dict.fromkeys(_stage(name) for name in names))
    texts = [text.strip() for text in record["choice"].split("|")]
    choices = dict(zip(stages, texts if len(texts) > 1 else texts * len(stages), strict=True))
    sizes = {key: int(record[key]) for key in ("input_size", "num_classes")}
    return Architecture.of(record["backbone"], {name: choices[_stage(name)] for name in names}, **sizes)


def _stage(block: str) -> str:
    return block.rpartition(".")[0]


def compare(rows: Sequence[Row]) -> list[Compared]:
    """Counts every row and compares it with what is printed."""
    plain = {
        (row.paper, row.architecture.backbone): row
        for row in reversed(rows)
        if set(map(str, row.architecture.choices)) == {"vanilla"}
    }
    return [
        Compared(
            row,
            {
                quantity: _cell(row, plain[row.paper, row.architecture.backbone], quantity)
                for quantity in QUANTITIES
                if row.printed[quantity]
            },
        )
        for row in rows
    ]


def _cell(row: Row, plain: Row, quantity: str) -> Cell:
    printed, ours = row.printed[quantity], _ours(row, quantity)
    agrees = agreement(ours, printed)
    if agrees:
        return Cell(printed, ours, agrees, "ours", ours)
    counting = row.countings[quantity]
    if counting:
        counted = COUNTINGS[counting](row.architecture)
        agrees = agreement(counted, printed)
        if agrees:
            return Cell(printed, ours, agrees, counting, counted)
    difference = ours - _ours(plain, quantity)
    if row is not plain and _differ_by(difference, printed, plain.printed[quantity]):
        return Cell(printed, ours, "rounded", "difference", difference)
    return Cell(printed, ours)


def _ours(row: Row, quantity: str) -> int:
    return int(getattr(row.architecture.cost(), quantity))


def agreement(value: int, printed: str) -> Agreement | None:
    """Whether a value is the printed one to its every digit, rounded or else cut off."""
    number, unit = Decimal(printed[:-1]), printed[-1]
    exact = Decimal(value).scaleb(-POWERS[unit])
    if exact.quantize(number, ROUND_HALF_UP) == number:
        return "rounded"
    return "cut off" if exact.quantize(number, ROUND_DOWN) == number else None


def _differ_by(difference: int, printed: str, plain: str) -> bool:
    """Whether two printed figures differ by a value, rounded."""
    between = Decimal(printed[:-1]) - Decimal(plain[:-1])
    return printed[-1] == plain[-1] and agreement(difference, f"{between}{plain[-1]}") == "rounded"


def summary(compared: Sequence[Compared]) -> dict[str, int]:
    """How many figures there are, and how many of them agree in which way."""
    cells = [cell for one in compared for cell in one.cells.values()]
    countings = [cell.counting for cell in cells]
    return {
        "figures": len(cells),
        "ours": countings.count("ours"),
        "ours_cut_off": sum(cell.counting == "ours" and cell.agrees == "cut off" for cell in cells),
        "other_counting": sum(counting in COUNTINGS for counting in countings),
        "difference": countings.count("difference"),
        "unexplained": countings.count(None),
    }
