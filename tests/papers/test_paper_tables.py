"""The papers' complexity: what agrees stays in agreement, each other counting is what it says."""

import csv
import hashlib
import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from examples import soaked
from rich.console import Console

from nas_recalib.architecture import Architecture, build
from nas_recalib.cli import run
from nas_recalib.papers.countings import COUNTINGS
from nas_recalib.papers.figures import agreement, compare, count, read_rows, summary
from nas_recalib.papers.tables import as_dict, paper_page, paper_table
from nas_recalib.report.terminal import print_table

PAGE = Path(__file__).parent.parent.parent / "docs" / "results" / "complexity.md"


@pytest.fixture(scope="module")
def compared():
    return compare(read_rows())


@pytest.fixture(scope="module")
def few():
    """Only one paper's rows, compared."""
    return compare([row for row in read_rows() if row.paper == "psconv"])


class Cells(dict):
    """Cells of figures by paper, table, network and quantity, each compared when it is looked up."""

    def __missing__(self, key):
        *table, network, quantity = key
        rows = [row for row in read_rows() if [row.paper, row.table] == table]
        (found,) = (row for row in rows if row.network == network)
        plain = [
            row
            for row in rows
            if found.architecture
            and row.architecture
            and row is not found
            and row.architecture.backbone == found.architecture.backbone
            and set(map(str, row.architecture.choices)) == {"vanilla"}
        ]
        (cell,) = (one.cells[quantity] for one in compare([*plain[:1], found]) if one.row is found)
        self[key] = cell
        return cell


@pytest.fixture(scope="module")
def cells():
    return Cells()


# Rows that print no other complexity than what the first edition of complexity.csv had left out.
LATER_TABLES = {("scnet", "2"), ("ms-sar", "1"), ("ms-sar", "4"), ("booster", "3")}
LATER_NETWORKS = {"ResNet-152", "ResNet-50+CBAM", "WRN-18-2+CBAM"}


def test_the_figures_are_those_that_were_taken_from_the_papers():
    with (files("nas_recalib.papers") / "complexity.csv").open(encoding="utf-8") as file:
        rows = [record[:7] for record in csv.reader(file)][1:]
    ablation = [row for row in rows if row[:2] == ["ms-sar", "3"] and "K=" in row[2]]
    rest = [
        row
        for row in rows
        if (row[4] or row[5])
        and tuple(row[:2]) not in LATER_TABLES | {("ms-sar", "3")}
        and row[2] not in LATER_NETWORKS
        and (row[:2] != ["scnet", "3"] or row[2] == "GE-SCNet-50")
        and (row[:2] != ["psconv", "2"] or row[2] in ("ResNet-50", "PS-ResNet-50"))
    ]
    digest = "a5735b8be69d2a339fe0f86c493d388ac8c3ee9386278ebfce03a2ae7c14f32e"
    assert (len(rest), hashlib.sha256(repr(rest).encode()).hexdigest()) == (58, digest)
    assert [row[5] for row in ablation] == [
        *("125.7M", "125.8M", "126.3M", "125.8M", "126.0M", "126.1M", "126.0M"),
        *("252.6M", "253.0M", "254.3M", "252.8M", "253.5M", "253.7M", "253.3M"),
    ]
    assert [row[4] for row in ablation] == [""] * 7 + ["0.99M"] * 7


@pytest.mark.soak
def test_as_many_figures_agree_as_ever(compared):
    """These may rise, but not fall."""
    found = summary(compared)
    assert found["figures"] == 211
    assert found["ours"] >= 105
    assert found["ours"] + found["other_counting"] >= 160
    assert found["unexplained"] <= 25
    assert found["figures"] == sum(
        found[key] for key in ("ours", "other_counting", "difference", "unexplained", "not_built")
    )


SMALL = [
    ("psconv", "2", "PS-ResNet-50"),
    ("ms-sar", "2", "ResNet-20+MS-SAR"),
    ("booster", "4", "WRN-18-2+AB-Plus"),
]
BOOSTED = soaked([("2", "ResNet-50"), ("4", "WRN-18-2")], [("4", "WRN-18-2")])
BOOSTED_164 = ["", "+AB", "+AB G=16", "+AB G=8", "+AB G=4", "+AB G=2", "+AB-Plus G=1"]
PROMISED = {
    **{
        ("scnet", "1", f"{prefix}SCNet-{depth}"): ("ours", macs)
        for prefix in ("", "SE-")
        for depth, macs in ((50, "norms-and-relus"), (101, "ours"))
    },
    ("psconv", "2", "PS-ResNet-50"): ("ours", "ours"),
    **{("ms-sar", "2", f"ResNet-{depth}+MS-SAR"): ("ours", "ours") for depth in (20, 32, 56)},
    ("ms-sar", "2", "DenseNet-100"): ("hundred-classes", "no-transitions"),
    ("ms-sar", "2", "DenseNet-100+MS-SAR"): (None, "no-transitions"),  # its parameters are not reached
    ("scnet", "3", "ResNet-50+CBAM"): ("ours", "ours"),
    ("scnet", "3", "ResNet-50+GE"): (None, "ours"),
    ("booster", "2", "ResNet-152"): ("ours", "convolution-outputs"),
    ("booster", "2", "ResNet-50+AB-Plus"): ("no-gate-norms", "ours"),
    ("booster", "4", "WRN-18-2+AB-Plus"): ("no-gate-norms", "ours"),
    **{("booster", "15", f"ResNet-164{boost}"): ("ours", "biased-outputs") for boost in BOOSTED_164},
}


@pytest.mark.parametrize(
    "row", [row if row in SMALL else pytest.param(row, marks=pytest.mark.soak) for row in PROMISED]
)
def test_what_was_promised_agrees_but_for_what_is_not_reached(cells, row):
    assert tuple(cells[*row, quantity].counting for quantity in ("params", "macs")) == PROMISED[row]


@pytest.mark.parametrize(("table", "name"), BOOSTED)
def test_ab_plus_adds_what_its_paper_prints(cells, table, name):
    """By the counting named, within the last of the printed digits."""
    for quantity, unit, last in (("params", 1e6, 0.01), ("macs", 1e9, 0.001)):
        plain, boosted = (cells["booster", table, f"{name}{boost}", quantity] for boost in ("", "+AB-Plus"))
        printed = float(boosted.printed[:-1]) - float(plain.printed[:-1])
        assert printed > last
        assert abs((boosted.counted - plain.counted) / unit - printed) < last


@pytest.mark.parametrize(
    ("value", "printed", "how"),
    [
        (45_677_000, "45.67M", "cut off"),
        (45_674_999, "45.67M", "rounded"),
        (45_665_000, "45.67M", "rounded"),
        (45_680_000, "45.67M", None),
        (45_664_999, "45.67M", None),
        (800_032, "0.80M", "rounded"),
        (7_991_221_248, "7.99G", "rounded"),
        (7_991_221_248, "7.98G", None),
        (0, "0.00M", "rounded"),
    ],
)
def test_figures_agree_to_every_printed_digit_or_not_at_all(value, printed, how):
    assert agreement(value, printed) == how


OUTPUTS_20 = 7 * 16 * 32**2 + 7 * 32 * 16**2 + 7 * 64 * 8**2  # stem and projections among them
RELUS_20 = 7 * 16 * 32**2 + 6 * 32 * 16**2 + 6 * 64 * 8**2
GATHER = {f"layer{stage}.{block}": f"ge(size={64 >> stage})" for stage in (1, 2, 3) for block in range(3)}
BY_HAND = {
    "norms-and-relus": ("resnet20", "vanilla", "macs", 2 * OUTPUTS_20 + RELUS_20),
    "convolution-outputs": ("resnet20", "vanilla", "macs", OUTPUTS_20),
    "biased-outputs": ("resnet164", "vanilla", "macs", 18 * (64 * 32**2 + 128 * 16**2 + 256 * 8**2)),
    "no-transitions": ("densenet100", "vanilla", "macs", -(216 * 108 * 32**2 + 300 * 150 * 16**2)),
    "hundred-classes": ("resnet20", "vanilla", "params", 90 * 65),
    "no-gate-norms": ("resnet20", "ab", "params", -2 * 3 * (16 + 32 + 64)),
    "gather-bias": ("resnet20", GATHER, "params", -3 * (16 + 32 + 64)),
}


@pytest.mark.parametrize("name", COUNTINGS)
def test_each_counting_differs_from_ours_by_what_it_says(name):
    backbone, choice, quantity, more = BY_HAND[name]
    architecture = Architecture.of(backbone, choice)
    assert COUNTINGS[name](architecture) - getattr(architecture.cost(), quantity) == more


@pytest.mark.soak
def test_one_counting_gives_all_of_scnets_first_table(compared):
    """Its FLOPs are twice the MACs with norms and ReLUs; ResNeXt-101's are cut off."""
    rows = [one.row for one in compared if (one.row.paper, one.row.table) == ("scnet", "1")]
    found = {}
    for row in rows:
        macs, flops = (count(row.architecture, name, "norms-and-relus") for name in ("macs", "flops"))
        assert agreement(macs, row.printed["macs"]) == "rounded"
        found[row.network] = agreement(flops, row.printed["flops"])
    assert len(found) == 13
    assert {name for name, how in found.items() if how != "rounded"} == {"ResNeXt-101 32x4d"}
    assert found["ResNeXt-101 32x4d"] == "cut off"


@pytest.mark.soak
def test_what_is_said_of_the_figures_that_nothing_explains(cells):
    """MS-SAR, table 5."""
    with torch.device("meta"):
        weights = dict(build(Architecture.of("resnet18", "vanilla")).named_parameters())
    alone = sum(p.numel() for name, p in weights.items() if p.dim() == 4 and "downsample" not in name)
    assert agreement(alone, cells["ms-sar", "5", "ResNet-18", "params"].printed) == "cut off"
    early = Architecture.of("resnet50-v1", "vanilla").cost().macs
    assert agreement(early, cells["ms-sar", "5", "ResNeXt-50", "macs"].printed) == "rounded"
    for depth in (18, 34):

        def printed(boost, quantity, depth=depth):
            return float(cells["ms-sar", "5", f"ResNet-{depth}{boost}", quantity].printed[:-1])

        weights = printed("+MS-SAR", "params") - printed("", "params")
        macs = (1 + 4 + 16) / 3 * weights / 1e3  # a third of them for each scale, at its every place
        assert printed("", "macs") + macs > printed("+MS-SAR", "macs") + 0.01
        for boost, choice in (("+SE", "msar(scales=1)"), ("+MS-SAR", "msar")):
            assert Architecture.of(f"resnet{depth}", choice).cost().params / 1e6 < printed(boost, "params")


@pytest.mark.parametrize("network", soaked(["ResNet-32", "ResNet-56"], ["ResNet-32"]))
def test_ms_sars_figures_that_look_cut_off_are_rounded_without_the_projections(cells, network):
    cell = cells["ms-sar", "2", network, "params"]
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert (cell.agrees, agreement(cell.ours - projections, cell.printed)) == ("cut off", "rounded")


def test_one_papers_rows_on_the_page_of_results_are_what_the_command_prints(few):
    rows = [line for line in paper_page(few).splitlines() if line.startswith("| psconv-")]
    assert len(rows) >= len(few)
    assert set(rows) <= set(PAGE.read_text(encoding="utf-8").splitlines())


@pytest.mark.soak
def test_the_page_of_results_is_what_the_command_prints(compared):
    assert PAGE.read_text(encoding="utf-8") == paper_page(compared) + "\n"


@pytest.mark.soak
def test_the_table_has_every_row_and_counting(compared, capsys):
    print_table(paper_table(compared))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    start = lines.index("psconv-t2-ps-resnet50 params 25.557M 25.557M yes")
    assert lines[start + 1] == "MACs 4.089G 4.089G yes"
    start = lines.index("scnet-t1-scnet50 params 25.6M 25.565M yes")
    assert lines[start + 1 : start + 3] == [
        "MACs 4.0G 3.925G norms-and-relus 3.959G",
        "FLOPs 7.9G 7.851G yes",
    ]
    start = lines.index("booster-t7-shufflenet-ab params 1.82M 1.889M difference 0.024M")
    assert lines[start + 1] == "MACs 140.5M 137.469M convolution-outputs 140.475M"
    assert "scnet-t3-gcnet50 params 28.1M not built" in lines
    assert lines[-1].startswith(
        f"{summary(compared)['ours']} of 211 printed figures of complexity agree by our own counting ("
    )
    assert set(COUNTINGS) < set(as_dict(compared)["marks"])


@pytest.mark.parametrize("rows", soaked(["few", "compared"], ["few"]))
def test_a_terminal_of_80_columns_cuts_no_number_off(request, rows):
    compared = request.getfixturevalue(rows)
    console = Console(width=80, no_color=True, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(paper_table(compared))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = {word.strip(",;()") for word in text.split()}
    for one in compared:
        assert one.row.key in words
        for cell in one.cells.values():
            assert cell.printed in words
        for accuracy in one.row.accuracies:
            assert {accuracy.top1, accuracy.top1_std, accuracy.top5} - {""} <= words


@pytest.mark.soak
def test_of_every_figure_that_nothing_explains_something_is_said(compared):
    cells = [(one.row, cell) for one in compared for cell in one.cells.values()]
    unexplained = [row for row, cell in cells if cell.counting is None and cell.ours is not None]
    assert unexplained
    assert all(row.note for row in unexplained)


def test_the_command_prints_one_papers_tables_as_json(capsys):
    assert run(["tables", "--paper", "psconv", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    rows = {row["key"]: row for row in content["rows"]}
    assert rows["psconv-t2-ps-resnet50"]["choice"] == "psconv"
    assert rows["psconv-t2-ps-resnet50"]["macs"] == {
        "printed": "4.089G", "ours": 4_089_184_256, "agrees": "rounded",
        "counting": "ours", "counted": 4_089_184_256,
    }  # fmt: skip
    (accuracy,) = rows["psconv-t6-ps-resnext29-8x64d"]["accuracies"]
    assert accuracy == {
        "dataset": "cifar100", "kind": "error", "top1": "17.138", "top1_std": "0.286", "top5": None,
        "runs": 5, "test": None, "schedule": "as in the ResNeXt paper", "recipe": None,
    }  # fmt: skip
    assert rows["psconv-t2-drn-a-50"]["backbone"] is None
    assert rows["psconv-t2-drn-a-50"]["params"]["ours"] is None
    assert (content["summary"]["figures"], content["summary"]["ours"]) == (22, 4)
    assert run(["tables", "--paper", "psconv", "--markdown"]) == 0
    page = capsys.readouterr().out
    assert "| psconv-t2-ps-resnet50 | PS-ResNet-50 | 25.557M | 25.557M | yes |" in page
    assert "| psconv-t6-ps-resnext29-8x64d | PS-ResNeXt-29 8x64d | 17.138 ± 0.286 | 5 |" in page
