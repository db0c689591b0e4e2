"""Every table that is printed, on terminals of any width: nothing is cut off, and nothing is too wide."""

import io
import re
import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from commands import SPACE
from fake_machine import FakeMachine, space
from made_up_correlation import baseline, correlation, score, training
from rich.cells import cell_len
from small_study import small_study

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.recommend import evaluate
from nas_recalib.costs import Budget
from nas_recalib.errors import encodable
from nas_recalib.latency.table import build_table
from nas_recalib.operators import BlockChoice
from nas_recalib.papers.figures import Cell, Compared, read_rows
from nas_recalib.papers.tables import paper_table
from nas_recalib.report.correlation import correlation_tables
from nas_recalib.report.costs import CostOptions, cost_lines, space_costs, space_lines
from nas_recalib.report.study import status_tables, study_tables
from nas_recalib.report.terminal import UNFOLDED, PlainTable, print_table
from nas_recalib.report.timings import latency_summary, timing_tables
from nas_recalib.study.statistics import Confirmation
from nas_recalib.study.status import RunningTrial, StudyStatus
from nas_recalib.study.summary import summarise
from nas_recalib.timing.cases import Case, Place, Settings
from nas_recalib.timing.paired import Times
from nas_recalib.timing.run import Result

CHOICES = (
    "psconv(pattern=1-2-1-4)+ab-plus",
    "scconv(pooling=max, r=2)+msar(scales=1-2-4, share=yes)",
    "vanilla",
)
MIXED = Architecture.of(
    "resnet20",
    {f"layer{stage}.{block}": CHOICES[(stage + block) % 3] for stage in (1, 2, 3) for block in (0, 1, 2)},
)


def study():
    """A study with everything that a row can have, its name as long as names may be."""
    summary = summarise(small_study())
    wide = Confirmation.of({seed: {"accuracy": value} for seed, value in enumerate((0.2, 0.9, 0.7))}, 400)
    rows = tuple(
        replace(row, latency_ms=1234.5678, measured_ms=999.25, over_limit=row.number == 0, confirmation=wide)
        for row in summary.rows
    )
    best = replace(rows[0], architecture=str(MIXED))
    shares = {f"layer{stage}.{block}": 0.111 for stage in (1, 2, 3) for block in (0, 1, 2)}
    return replace(summary, study="s" * 100, rows=(best, *rows[1:]), importance=shares)


def status():
    worker = "node0123.cluster.example.org, process 4194304"
    running = [
        RunningTrial(117 + n, worker, str(MIXED), MIXED.operators(), 30, 0.7123, 12_345.0, 75.0)
        for n in range(3)
    ]
    return StudyStatus(
        "s" * 100, 123_456, 12_345, 100, (31, 0.8123), 42, tuple(running), 7, 3, {"out-of-memory": 12}
    )


def timings():
    place = Place("networks", "imagenet", "resnet50 layer4.2", (2048, 7, 7), lambda _: torch.nn.Identity())
    times = Times(tuple((0.123456, 0.123456 * ratio) for ratio in (0.9, 1.0, 12.345)), iterations=20)
    return [Result(Case(place, BlockChoice.parse(choice), 128), times) for choice in CHOICES]


def papers():
    rows = read_rows()
    figures = {
        quantity: Cell("140.5M", 137_469_000, "cut off", "convolution-outputs", 140_475_000)
        for quantity in ("params", "macs")
    }
    return [Compared(replace(row, note="What stands for it is ours. " * 3), figures) for row in rows]


def latencies(folder):
    settings = Settings(torch.device("cpu"), threads=1)
    wide = space("stage", convolution="[vanilla, 'psconv(pattern=1-2-3-4, vary=in)']")
    return build_table(folder / "t.json", wide, settings, 128, rounds=4, timer=FakeMachine())


def signals():
    shown = (
        baseline("params", 2.0),
        score("synflow", 1.2),
        training("a-fidelity-of-my-own", 120, 0.3, 12_345.0),
    )
    return evaluate(correlation(*shown))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    (folder / "tiny.yaml").write_text(SPACE)
    costs = space_costs(CostOptions(str(folder / "tiny.yaml"), Budget.parse("40M", "271k")))
    timed, found = latencies(folder), signals()
    one = {f"/a/folder/of/mine/{'x' * 60}.yaml": vars(MIXED.cost()), "within_budget": True}
    return {
        "show, confirm": lambda: study_tables(study(), top=20),
        "status": lambda: status_tables(status()),
        "cost of a space": lambda: space_lines(costs),
        "cost of an architecture": lambda: cost_lines(one),
        "tables": lambda: paper_table(papers()),
        "bench": lambda: timing_tables(timings()),
        "latency": lambda: latency_summary(timed),
        "correlate": lambda: correlation_tables(found),
    }


NAMES = ("show, confirm", "status", "cost of a space", "cost of an architecture", "tables", "bench")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def printed(table, monkeypatch, columns):
    """What a terminal of so many columns shows, without styles; what a pipe gets where there are none."""
    stream = Terminal() if columns else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns or 80))
    monkeypatch.setenv("TERM", "xterm-256color")
    print_table(table())
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())


def numbers(text):
    return Counter(re.findall(r"\d[\d.,]*\d|\d", text))


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("name", [*NAMES, "latency", "correlate"])
def test_every_table_fits_and_has_all_of_its_numbers(tables, monkeypatch, name, columns):
    whole = printed(tables[name], monkeypatch, None)
    shown = printed(tables[name], monkeypatch, columns)
    assert max(cell_len(line.rstrip()) for line in shown.splitlines()) <= columns
    assert numbers(shown) == numbers(whole)
    assert "…" not in shown
    assert "..." not in shown
    letters = re.compile(r"[\W_]+|#")  # folding and bars apart, the same is shown
    assert Counter(letters.sub("", shown)) == Counter(letters.sub("", whole))


@pytest.mark.parametrize("name", [*NAMES, "latency", "correlate"])
def test_outside_a_terminal_no_table_is_folded_or_boxed(tables, monkeypatch, name):
    whole = printed(tables[name], monkeypatch, None)
    assert not re.search("[─│┃━┏└|]", whole)
    assert not any(line.endswith(" ") for line in whole.splitlines())
    assert len(whole.splitlines()) <= len(printed(tables[name], monkeypatch, 400).splitlines())


def test_a_row_moves_to_further_lines_before_its_text_gets_too_narrow():
    table = PlainTable(
        ("trial", "accuracy", "operators"), "rrl", [("7", "0.5 ± 0.1", "9 psconv(pattern=1-2); 18 ab")]
    )
    heads, rows = table.lines(UNFOLDED)
    assert heads == ["trial   accuracy  operators"]
    assert rows == ["    7  0.5 ± 0.1  9 psconv(pattern=1-2); 18 ab"]
    assert table.lines(42)[1] == ["    7  0.5 ± 0.1  9 psconv(pattern=1-2);", "                  18 ab"]
    assert table.lines(30)[1] == ["    7  0.5 ± 0.1", "    9 psconv(pattern=1-2);", "    18 ab"]
    assert table.lines(20)[1] == ["    7  0.5 ± 0.1", "    9 psconv(", "    pattern=1-2);", "    18 ab"]


def test_cells_are_as_wide_as_they_are_shown():
    table = PlainTable(("name", "x"), "lr", [("日本語", "1 ± 2"), ("\x1b[2J", "3")])
    assert table.lines(80)[1] == ["日本語   1 ± 2", r"\x1b[2J      3"]
    assert table.lines(80, "ascii")[1] == [r"\u65e5\u672c\u8a9e  1 +/- 2", r"\x1b[2J                   3"]
    assert encodable("±…é", "ascii") == r"+/-...\xe9"
    assert encodable("±é", "latin-1") == "±é"
