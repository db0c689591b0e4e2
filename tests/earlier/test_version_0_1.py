"""What version 0.1 wrote still loads, and computes what it did."""

import gzip
import json
import sqlite3
from pathlib import Path

import optuna
import pytest
import torch
from examples import soaked

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.cli import run
from nas_recalib.operators.choice_format import modern_text
from nas_recalib.space import SearchSpace

WRITTEN = json.loads(gzip.decompress((Path(__file__).parent / "version-0.1.json.gz").read_bytes()))
SMALL = ("resnet18", "resnet20", "shufflenet-g3")
OPTIONS = "--data digits --images 200 --validation 100 --epochs 2 --resolution 8 --threads 1 --device cpu"


def logits(architecture):
    """As the fixture was made: fresh weights, one batch for the running statistics, then evaluation."""
    shape = architecture.shape
    network = build_seeded(
        shape, architecture.blocks, architecture.num_classes, 3, seed=7, gate_fan="fan_out"
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, architecture.input_size, architecture.input_size, generator=generator)
    with torch.no_grad():
        network.train()(x)
        return network.eval()(x)


@pytest.mark.parametrize(
    "written",
    soaked(WRITTEN["networks"], [w for w in WRITTEN["networks"] if w["text"].startswith(SMALL)]),
    ids=lambda w: w["text"].split()[0],
)
def test_an_architecture_computes_what_it_did(tmp_path, written):
    (tmp_path / "a.yaml").write_text(written["file"])
    loaded = Architecture.load(tmp_path / "a.yaml")
    assert loaded == Architecture.parse(written["text"])
    torch.testing.assert_close(logits(loaded), torch.tensor(written["logits"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("written", WRITTEN["networks"], ids=lambda w: w["text"].split()[0])
def test_an_architecture_is_written_as_it_was(tmp_path, written):
    architecture = Architecture.parse(written["text"])
    assert str(architecture) == written["text"]
    architecture.save(tmp_path / "a.yaml")
    assert (tmp_path / "a.yaml").read_text() == written["file"]


@pytest.mark.parametrize("choice", ["msar", "psconv+msar(scales=1-2)", "msar(norm=both, reduction=3)"])
def test_what_is_written_now_is_read_as_it_is_meant(tmp_path, choice):
    architecture = Architecture.of("resnet20", choice)
    assert Architecture.parse(str(architecture)) == architecture
    architecture.save(tmp_path / "a.yaml")
    assert Architecture.load(tmp_path / "a.yaml") == architecture
    assert architecture != Architecture.parse(str(architecture).replace("#2", ""))


def test_a_depthwise_psconv_is_another_operator_now():
    now = Architecture.of("shufflenet-g3", "psconv")
    before = Architecture.of("shufflenet-g3", "psconv(depthwise=blocks)")
    assert Architecture.parse(str(before)) == before != now == Architecture.parse(str(now))
    assert "psconv(depthwise" not in str(before)
    assert "#2" not in str(Architecture.of("resnet20", "psconv"))  # elsewhere nothing has changed


def test_the_space_of_a_study_means_what_it_did():
    space = SearchSpace.parse(WRITTEN["space"], "study")
    assert space.describe() == WRITTEN["space"]
    assert [str(r) for r in space.positions[0].recalibrations] == ["none", "msar(norm=hidden)", "ab", "se"]
    assert space.options()["layer1.recalibration"] == ("none", "msar", "ab", "se")


def test_a_space_without_a_format_is_of_version_0_1_and_that_is_said(tmp_path):
    (tmp_path / "s.yaml").write_text(WRITTEN["space"])
    with pytest.warns(
        UserWarning, match=r"msar is read as in version 0.1, as msar\(norm=hidden\); .*format: nas"
    ):
        before = SearchSpace.load(tmp_path / "s.yaml")
    assert before.describe() == WRITTEN["space"]
    (tmp_path / "s.yaml").write_text("format: nas-recalib/space/2\n" + WRITTEN["space"])
    now = SearchSpace.load(tmp_path / "s.yaml")
    assert [str(r) for r in now.positions[0].recalibrations] == ["none", "msar", "ab", "se"]
    assert SearchSpace.parse(now.describe(), "text").describe() == now.describe() != before.describe()


def test_words_that_mean_the_same_are_left_alone():
    assert modern_text("psconv(pattern=1-2)+ab", 1, depthwise=False) == "psconv(pattern=1-2)+ab"
    assert modern_text("msar(norm=both)", 1, depthwise=False) == "msar(norm=both)"
    assert modern_text("msar", 2, depthwise=False) == "msar"
    assert modern_text("psconv(pattern=1-2)+msar", 1, depthwise=True) == (
        "psconv(pattern=1-2, depthwise=blocks)+msar(norm=hidden)"
    )


def test_a_study_goes_on_as_it_would_have(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "before"
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "study.db") as connection:
        connection.executescript(WRITTEN["study"]["sql"])
    assert run([*["search", "--study", "before", "--trials", "9"], *OPTIONS.split()]) == 0
    study = optuna.load_study(study_name="before", storage=f"sqlite:///{folder}/study.db")
    later = [(t.user_attrs["architecture"], list(t.intermediate_values.values())) for t in study.trials[6:]]
    assert later == [(text, curve) for text, _, curve in WRITTEN["study"]["later_trials"]]
    assert run(["export", "before", "--trial", "3", "-o", "best.yaml"]) == 0
    assert Architecture.load("best.yaml") == Architecture.of("resnet20", "msar(norm=hidden)")
    assert "msar(norm=hidden)" in capsys.readouterr().out


def test_the_commands_say_it_once_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(WRITTEN["space"])
    assert run(["cost", "--space", "s.yaml"]) == 0
    assert capsys.readouterr().err == (
        "note: s.yaml: msar is read as in version 0.1, as msar(norm=hidden); for its current meaning "
        "add the line 'format: nas-recalib/space/2'\n"
    )
