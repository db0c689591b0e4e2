"""The rows of the papers' tables: what is printed for them, and their networks as architecture files."""

import re

import pytest
import yaml

from nas_recalib.architecture import Architecture, build
from nas_recalib.cli import run
from nas_recalib.errors import EXISTS
from nas_recalib.papers.figures import PAPERS, POWERS, find_row, read_rows
from nas_recalib.training.recipe import RECIPES


@pytest.fixture(scope="module")
def rows():
    return {row.key: row for row in read_rows()}


# Drawn at random, and read in the papers' texts a second time.
PRINTED = {
    ("booster-t12-resnet56-i", "cifar100"): ("accuracy", "71.36", "", ""),
    ("ms-sar-t2-densenet100", "cifar10"): ("error", "4.67", "", ""),
    ("booster-t5-resnet56", "cifar10"): ("error", "6.5", "", ""),
    ("ms-sar-t3-resnet56-k2", "cifar100"): ("error", "28.31", "0.17", ""),
    ("ms-sar-t2-resnet20", "cifar100"): ("error", "31.87", "", ""),
    ("booster-t5-resnet164-se", "cifar10"): ("error", "4.4", "", ""),
    ("booster-t11-resnet56-e", "cifar100"): ("accuracy", "72.0", "", ""),
    ("psconv-t2-fishnet150-200-epochs", "imagenet"): ("error", "20.65", "", "5.25"),
    ("psconv-t6-resnext29-16x64d", "cifar100"): ("error", "17.538", "0.094", ""),
    ("booster-t13-resnet50-dw9-bn", "imagenet"): ("accuracy", "77.2", "", ""),
    ("psconv-t4-resnet50", "imagenet"): ("error", "22.850", "", "6.532"),
    ("psconv-t1-se-resnet101", "imagenet"): ("error", "20.732", "", "5.406"),
    ("psconv-t2-ps-resnet50", "imagenet"): ("error", "21.126", "", "5.724"),
    ("psconv-t3-ps-resnet50-t2", "imagenet"): ("error", "21.948", "", "5.978"),
    ("psconv-t6-ps-resnext29-8x64d", "cifar100"): ("error", "17.138", "0.286", ""),
}


@pytest.mark.parametrize(("key", "dataset"), PRINTED)
def test_the_accuracies_are_those_that_the_papers_print(rows, key, dataset):
    (found,) = [one for one in rows[key].accuracies if one.dataset == dataset]
    assert (found.kind, found.top1, found.top1_std, found.top5) == PRINTED[key, dataset]


def test_every_row_has_a_key_of_its_own_a_paper_and_a_table(rows):
    assert len(rows) == len(read_rows()) == 212
    for key, row in rows.items():
        assert row.paper in PAPERS
        assert re.fullmatch(r"[0-9]+|section [0-9.]+", row.table)
        table = row.table.replace("section ", "s") if " " in row.table else f"t{row.table}"
        assert re.fullmatch(rf"{row.paper}-{re.escape(table)}-[a-z0-9]+(-[a-z0-9]+)*", key)
        assert row.network
        assert row.dataset in ("imagenet", "cifar10", "cifar100")
        assert row.accuracies or any(row.printed.values())


def test_every_printed_figure_is_in_range(rows):
    results = [one for row in rows.values() for one in row.accuracies]
    assert len(results) == 238  # none of them belongs to a row that is not there
    for row in rows.values():
        for figure in filter(None, row.printed.values()):
            assert re.fullmatch(r"[0-9]+(\.[0-9]+)?[MG]", figure)
            assert 1e5 < float(figure[:-1]) * 10 ** POWERS[figure[-1]] < 1e11
        for one in row.accuracies:
            least = {"accuracy": 70.0, "error": 2.0}[one.kind]
            assert least < float(one.top1) < least + 35
            if one.top5:
                error = {"accuracy": 100 - float(one.top5), "error": float(one.top5)}[one.kind]
                assert 4 < error < 13
            assert not one.top1_std or 0 < float(one.top1_std) < 1
            assert not one.top1_std or one.runs in (3, 5)
            assert one.recipe in ("", *RECIPES)
            assert one.dataset == row.dataset or (one.dataset, row.dataset) == ("cifar100", "cifar10")


def test_a_later_table_says_the_same_of_the_same_network(rows):
    """Errors and accuracies of the tables that repeat a network add up to 100; exceptions have a note."""
    for table in ("10", "11", "14"):
        for boost in ("", "-ab", "-ab-plus"):
            (error,) = rows[f"booster-t6-resnet56{boost}"].accuracies
            (accuracy,) = rows[f"booster-t{table}-resnet56{boost}"].accuracies
            assert float(error.top1) + float(accuracy.top1) == pytest.approx(100)
    repeated = [("k1-2-4", "-msar"), ("k1-2-4", "-msar"), ("", "")]
    for network, (scales, boost) in zip(("resnet56", "densenet100", "resnet56"), repeated, strict=True):
        ablation = rows[f"ms-sar-t3-{network}{scales and '-' + scales}"]
        found = [(one.dataset, one.top1) for one in ablation.accuracies]
        other = [(one.dataset, one.top1) for one in rows[f"ms-sar-t2-{network}{boost}"].accuracies]
        assert found == other or "Table 2 prints another error" in ablation.note


@pytest.mark.parametrize(
    ("key", "choice", "recipe"),
    [
        ("scnet-t2-scnet50-no-identity", "scconv(identity=no)", "step100"),
        ("psconv-t5-ps-resnet50-in", "psconv(vary=in)", "cosine120"),
        ("ms-sar-t2-resnet20-msar", "msar(reduction=3)", None),
        ("booster-t11-resnet56-h", "ab-design(design=H, size=32)", None),
    ],
)
def test_an_exported_row_loads_and_builds(rows, tmp_path, monkeypatch, capsys, key, choice, recipe):
    monkeypatch.chdir(tmp_path)
    assert run(["tables", "--export", key]) == 0
    said = capsys.readouterr()
    content = yaml.safe_load((tmp_path / f"{key}.yaml").read_text())
    loaded = Architecture.load(f"{key}.yaml")  # compares the costs in the file with the network's
    assert loaded == rows[key].architecture
    assert str(loaded.blocks["layer1.0"]).removeprefix("vanilla+") == choice
    assert sum(p.numel() for p in build(loaded).parameters()) == content["cost"]["params"]
    assert f"wrote {key}.yaml: {rows[key].network}, {content['cost']['macs']:,} MACs" in said.err
    assert said.out == ""
    origin = content["origin"]
    assert (origin["row"], origin["paper"]) == (key, PAPERS[rows[key].paper])
    assert [one["top1"] for one in origin["printed_accuracy"]] == [one.top1 for one in rows[key].accuracies]
    assert {one.get("recipe") for one in origin["printed_accuracy"]} == {recipe}
    assert (f"--recipe {recipe}" in said.err) == (recipe is not None)


def test_an_export_replaces_a_file_only_by_force(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    arguments = ["tables", "--export", "ms-sar-t2-resnet20", "-o", str(path)]
    assert run(arguments) == 2
    assert capsys.readouterr().err == f"error: {path}: {EXISTS}\n"
    assert path.read_text() == "mine"
    assert run([*arguments, "--force"]) == 0
    assert Architecture.load(path).backbone == "resnet20"
    assert list(tmp_path.iterdir()) == [path]


REFUSED = {
    ("--export", "scnet-t2-scnet5"): "the nearest are scnet-t2-scnet50,",
    ("--export", ""): "'' is not a row of the papers' tables",
    ("--export", "x" * 5000): "is not a row of the papers' tables; the nearest are ",
    ("--export", "scnet-t3-gcnet50"): "scnet-t3-gcnet50 is GCNet-50, which no backbone",
    ("--export", "scnet-t1-scnet50", "-o", "."): ".: cannot be written: not a regular file",
    ("--export", "scnet-t1-scnet50", "-o", "no/such/folder.yaml"): "cannot be written",
    ("--export", "scnet-t1-scnet50", "-o", "x" * 500): "cannot be written",
    ("--export", "scnet-t1-scnet50", "--json"): "--export: not together with --paper, --markdown or --json",
    ("--force",): "--output and --force: only together with --export",
    ("-o", "x.yaml", "--json"): "--output and --force: only together with --export",
}  # fmt: skip


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda arguments: " ".join(arguments)[:60])
def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(["tables", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert REFUSED[arguments] in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_row_is_found_by_its_key(rows):
    assert find_row("scnet-t2-scnet50") == rows["scnet-t2-scnet50"]
