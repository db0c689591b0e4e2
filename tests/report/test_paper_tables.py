"""The papers' complexity tables: what agrees stays in agreement, each other counting is what it says."""

import csv
import hashlib
import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from nas_recalib.architecture import Architecture, build
from nas_recalib.cli import run
from nas_recalib.report.countings import COUNTINGS, early_stride, norms_and_relus
from nas_recalib.report.paper_figures import agreement, compare, read_rows, summary
from nas_recalib.report.paper_tables import as_dict, paper_page, paper_table
from nas_recalib.report.terminal import print_table

PAGE = Path(__file__).parent.parent.parent / "docs" / "results" / "complexity.md"


@pytest.fixture(scope="module")
def compared():
    return compare(read_rows())


@pytest.fixture(scope="module")
def cells(compared):
    return {
        (one.row.paper, one.row.table, one.row.network, quantity): cell
        for one in compared
        for quantity, cell in one.cells.items()
    }


def test_the_figures_are_those_that_were_taken_from_the_papers():
    with (files("nas_recalib.report") / "complexity.csv").open(encoding="utf-8") as file:
        rows = [record[:7] for record in csv.reader(file)][1:]
    ablation = [row for row in rows if row[:2] == ["ms-sar", "3"]]
    rest = [row for row in rows if row not in ablation]
    digest = "a5735b8be69d2a339fe0f86c493d388ac8c3ee9386278ebfce03a2ae7c14f32e"
    assert (len(rest), hashlib.sha256(repr(rest).encode()).hexdigest()) == (58, digest)
    assert [row[5] for row in ablation] == [
        *("125.7M", "125.8M", "126.3M", "125.8M", "126.0M", "126.1M", "126.0M"),
        *("252.6M", "253.0M", "254.3M", "252.8M", "253.5M", "253.7M", "253.3M"),
    ]
    assert [row[4] for row in ablation] == [""] * 7 + ["0.99M"] * 7


def test_as_many_figures_agree_as_ever(compared):
    """These may rise, but not fall."""
    found = summary(compared)
    assert found["figures"] == 137
    assert found["ours"] >= 71
    assert found["ours"] + found["other_counting"] >= 113
    assert found["unexplained"] <= 22
    assert found["figures"] == sum(
        found[key] for key in ("ours", "other_counting", "difference", "unexplained")
    )


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
    ("booster", "2", "ResNet-50+AB-Plus"): ("no-gate-norms", "early-stride"),
    ("booster", "4", "WRN-18-2+AB-Plus"): ("no-gate-norms", "ours"),
    **{("booster", "15", f"ResNet-164{boost}"): ("ours", "biased-outputs") for boost in BOOSTED_164},
}


@pytest.mark.parametrize("row", PROMISED)
def test_what_was_promised_agrees_but_for_what_is_not_reached(cells, row):
    assert tuple(cells[*row, quantity].counting for quantity in ("params", "macs")) == PROMISED[row]


@pytest.mark.parametrize(("table", "name"), [("2", "ResNet-50"), ("4", "WRN-18-2")])
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
    "early-stride": ("resnet50", "vanilla", "macs", -3 * 256 * 128 * (56**2 - 28**2)),
    "hundred-classes": ("resnet20", "vanilla", "params", 90 * 65),
    "no-gate-norms": ("resnet20", "ab", "params", -2 * 3 * (16 + 32 + 64)),
    "gather-bias": ("resnet20", GATHER, "params", -3 * (16 + 32 + 64)),
}


@pytest.mark.parametrize("name", COUNTINGS)
def test_each_counting_differs_from_ours_by_what_it_says(name):
    backbone, choice, quantity, more = BY_HAND[name]
    architecture = Architecture.of(backbone, choice)
    assert COUNTINGS[name](architecture) - getattr(architecture.cost(), quantity) == more


# SCNet's table 1 also prints operations, two for each MAC; ResNeXt-101's are cut off.
FLOPS = {
    "ResNet-50": "8.2G", "SCNet-50": "7.9G", "ResNeXt-50 32x4d": "8.5G", "ResNeXt-50 2x40d": "8.3G",
    "SCNeXt-50": "8.5G", "SE-ResNet-50": "8.2G", "SE-SCNet-50": "7.9G", "ResNet-101": "15.7G",
    "SCNet-101": "14.4G", "ResNeXt-101 32x4d": "16.0G", "SCNeXt-101": "15.9G", "SE-ResNet-101": "15.7G",
    "SE-SCNet-101": "14.4G",
}  # fmt: skip


def test_one_counting_gives_all_of_scnets_first_table():
    rows = [row for row in read_rows("scnet") if row.table == "1"]
    counted = {row.network: norms_and_relus(row.architecture) for row in rows}
    assert all(agreement(counted[row.network], row.printed["macs"]) == "rounded" for row in rows)
    found = {name: agreement(2 * counted[name], printed) for name, printed in FLOPS.items()}
    assert found == {**dict.fromkeys(FLOPS, "rounded"), "ResNeXt-101 32x4d": "cut off"}


def test_what_is_said_of_the_figures_that_nothing_explains(cells):
    """MS-SAR, table 5."""
    with torch.device("meta"):
        weights = dict(build(Architecture.of("resnet18", "vanilla")).named_parameters())
    alone = sum(p.numel() for name, p in weights.items() if p.dim() == 4 and "downsample" not in name)
    assert agreement(alone, cells["ms-sar", "5", "ResNet-18", "params"].printed) == "cut off"
    resnet50 = early_stride(Architecture.of("resnet50", "vanilla"))
    assert agreement(resnet50, cells["ms-sar", "5", "ResNeXt-50", "macs"].printed) == "rounded"
    for depth in (18, 34):

        def printed(boost, quantity, depth=depth):
            return float(cells["ms-sar", "5", f"ResNet-{depth}{boost}", quantity].printed[:-1])

        weights = printed("+MS-SAR", "params") - printed("", "params")
        macs = (1 + 4 + 16) / 3 * weights / 1e3  # a third of them for each scale, at its every place
        assert printed("", "macs") + macs > printed("+MS-SAR", "macs") + 0.01
        for boost, choice in (("+SE", "msar(scales=1)"), ("+MS-SAR", "msar")):
            assert Architecture.of(f"resnet{depth}", choice).cost().params / 1e6 < printed(boost, "params")


@pytest.mark.parametrize("network", ["ResNet-32", "ResNet-32+MS-SAR", "ResNet-56"])
def test_ms_sars_figures_that_look_cut_off_are_rounded_without_the_projections(cells, network):
    cell = cells["ms-sar", "2", network, "params"]
    projections = 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert (cell.agrees, agreement(cell.ours - projections, cell.printed)) == ("cut off", "rounded")


def test_the_page_of_results_is_what_the_command_prints(compared):
    assert PAGE.read_text(encoding="utf-8") == paper_page(compared) + "\n"


def test_the_table_has_every_row_mark_and_note(compared, capsys):
    print_table(paper_table(compared))
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "psconv 2 PS-ResNet-50 25.557M 25.557M yes 4.089G 4.089G yes" in told
    assert "scnet 1 SCNet-50 25.6M 25.565M yes 4.0G 3.925G norms-and-relus 3.959G" in told
    boosted = (
        "booster 7 ShuffleNet+AB 1.82M 1.889M difference 0.024M 140.5M 137.469M convolution-outputs 140.475M"
    )
    assert boosted in told
    assert told[-1].startswith(
        f"{summary(compared)['ours']} of 137 printed figures agree by our own counting ("
    )
    assert set(COUNTINGS) < set(as_dict(compared)["marks"])


def test_of_every_figure_that_nothing_explains_something_is_said(compared):
    unexplained = [one.row for one in compared for cell in one.cells.values() if cell.counting is None]
    assert unexplained
    assert all(row.note for row in unexplained)


def test_the_command_prints_one_papers_tables_as_json(capsys):
    assert run(["tables", "--paper", "psconv", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["network"] for row in content["rows"]] == ["ResNet-50", "PS-ResNet-50"]
    assert content["rows"][1]["choice"] == "psconv"
    assert content["rows"][1]["macs"] == {
        "printed": "4.089G", "ours": 4_089_184_256, "agrees": "rounded",
        "counting": "ours", "counted": 4_089_184_256,
    }  # fmt: skip
    assert content["summary"]["figures"] == content["summary"]["ours"] == 4
    assert run(["tables", "--paper", "psconv", "--markdown"]) == 0
    assert "| psconv 2 | PS-ResNet-50 | 25.557M | 25.557M | yes |" in capsys.readouterr().out
