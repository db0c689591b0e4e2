"""The command line as its users meet it: what it does, and what it says to bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from commands import SPACE
from PIL import Image

from nas_recalib.architecture import Architecture
from nas_recalib.cli import run
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.space import SearchSpace

QUICK = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--epochs=1"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path


def search(*arguments):
    return run([*TINY, *arguments])


def pictures(folder, classes, each=2):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(each):
            Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(folder / name / f"{index}.png")


def edited(here, name, **changes):
    """An architecture file with lines replaced: {"layer1.0: vanilla": "layer9.9: vanilla"}."""
    Architecture.of("resnet20", "vanilla").save(here / name)
    text = (here / name).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (here / name).write_text(text)


def test_the_main_job_from_search_to_trained_weights(here, capsys):
    assert search("--budget", "40M", "--trials", "3") == 0
    told = capsys.readouterr()
    assert "Best architecture" in told.out
    assert "best" in told.err
    assert "Best architecture" not in told.err
    study = optuna.load_study(study_name="tiny-40m", storage="sqlite:///runs/tiny-40m/study.db")
    assert len(study.trials) == 3
    assert all(trial.user_attrs["macs"] <= 40_000_000 for trial in study.trials)
    assert len({trial.user_attrs["architecture"] for trial in study.trials}) == 3

    assert run(["show", "tiny-40m", "--json", "--html", "page.html"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["best"] == study.best_trial.number
    assert "plotly" in (here / "page.html").read_text()

    assert run(["export", "tiny-40m", "-o", "best.yaml"]) == 0
    assert str(Architecture.load("best.yaml")) == study.best_trial.user_attrs["architecture"]
    assert run(["cost", "best.yaml", "--json"]) == 0
    capsys.readouterr()

    train = (
        "train best.yaml --data digits --epochs 1 --batch-size 32 --limit-batches 2 --workers 0 --device cpu"
    )
    assert run([*train.split(), "-o", "out"]) == 0
    assert "top-1" in capsys.readouterr().out
    assert (here / "out" / "weights.safetensors").is_file()


def test_a_limit_on_latency_from_the_table_to_the_measured_finalists(here, capsys):
    assert run([*LATENCY, "--rounds", "6"]) == 0
    capsys.readouterr()
    assert run(["cost", "--space", "tiny.yaml", "--latency", "10s", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["least"]["latency"] < told["greatest"]["latency"]
    assert search("--latency", "1us", "--trials", "2") == 2
    assert "latency: 0.001 ms is below the fastest architecture of tiny" in capsys.readouterr().err
    assert not (here / "runs" / "tiny-0.001ms").exists()

    limit = (told["least"]["latency"] + told["greatest"]["latency"]) / 2e6
    asked = ["--latency", f"{limit:.6f}ms", "--memory", "100MB", "--study", "quick"]
    assert search(*asked, "--trials", "3") == 0
    streams = capsys.readouterr()
    assert "ms predicted" in streams.out
    assert "measuring finalists: trials" in streams.err
    assert search("--study", "quick", "--trials", "4") == 0, "what is not given again is as the study has it"
    study = optuna.load_study(study_name="quick", storage="sqlite:///runs/quick/study.db")
    assert len(study.trials) == 4
    assert all(trial.user_attrs["predicted_latency_ms"] <= limit for trial in study.trials)
    assert all(trial.user_attrs["memory"] <= 100_000_000 for trial in study.trials)
    assert len(study.user_attrs["latency_ms"]) >= 3
    capsys.readouterr()

    assert run(["export", "quick", "-o", "quick.yaml"]) == 0
    latency = yaml.safe_load(Path("quick.yaml").read_text())["origin"]["latency"]
    assert latency["predicted_ms"] <= limit
    assert run(["cost", "quick.yaml", "--space", "tiny.yaml", "--latency", f"{limit:.6f}ms", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["within_budget"] is True


def test_a_study_with_a_table_of_latencies_refuses_another_space_by_what_differs(here, capsys):
    (here / "other.yaml").write_text(SPACE.replace("[none, ab]", "[none, msar, ab]"))
    assert run([*LATENCY, "--rounds", "6"]) == 0
    assert search("--latency", "100s", "--study", "q", "--trials", "1") == 0
    for change, named in (
        (["--space", "other.yaml"], "space.recalibration"),
        (["--space", "tiny.yaml", "--latency", "1ns"], "budget.latency"),
    ):
        capsys.readouterr()
        assert run(["search", "--study", "q", *QUICK, *change]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: study 'q' was made with another {named}")


@pytest.mark.parametrize(
    ("limit", "name"), [("1000GB", "tiny-1000000mb"), ("1.5GiB", "tiny-1610.612736mb"), ("9MB", "tiny-9mb")]
)
def test_a_study_is_named_after_its_limit_to_the_last_byte(here, limit, name):
    assert search("--memory", limit, "--trials", "1") == 0
    assert (here / "runs" / name / "config.yaml").is_file()


def test_the_same_command_goes_on_and_less_may_be_said_again(here, capsys):
    assert search("--trials", "2") == 0
    assert run(["search", "--study", "tiny", "--trials", "3"]) == 0
    study = optuna.load_study(study_name="tiny", storage="sqlite:///runs/tiny/study.db")
    assert len(study.trials) == 3
    assert {trial.user_attrs["fidelity"]["images"] for trial in study.trials} == {40}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--budget", "40M"], "budget.macs"),
        (["--epochs", "2"], "fidelity.epochs"),
        (["--fidelity", "wide.yaml"], "fidelity.width"),
        (["--seed", "1"], "seed"),
        (["--data", "folder:other"], "data"),
        (["--space", "other.yaml"], "space"),
        (["--objectives", "accuracy,macs"], "objectives"),
    ],
)
def test_a_study_goes_on_as_it_was_made_or_not_at_all(here, capsys, change, named):
    pictures(here / "other" / "train", ["a", "b"], each=40)
    (here / "other.yaml").write_text(SPACE.replace("[none, ab]", "[none, msar]"))
    (here / "wide.yaml").write_text("width: 0.9")
    assert search("--trials", "1", "--study", "s") == 0
    before = (here / "runs/s/config.yaml").read_bytes()
    capsys.readouterr()
    assert search("--trials", "2", "--study", "s", *change) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"error: study 's' was made with another {named}")
    assert (here / "runs/s/config.yaml").read_bytes() == before


TINY = ["search", "--space", "tiny.yaml", *QUICK]
LATENCY = ["latency", "--space", "tiny.yaml", "--device", "cpu", "--threads", "1", "--seconds", "0.01"]
BAD_INPUT = {
    "no such space": (["search", "--space", "resnet51"], "unknown space 'resnet51'; allowed: densenet100"),
    "no such space file": (["search", "--space", "no.yaml"], "no.yaml: cannot be read"),
    "no space": (["search"], "--space"),
    "no quantity": (["search", "--space", "resnet50", "--budget", "4X"], "'4X' is not a quantity"),
    "too little": (["search", "--space", "resnet50", "--budget", "1G"], "the least possible cost, 3.732G"),
    "too few": (["search", "--space", "resnet50", "--params", "1M"], "the least possible cost, 25.557M"),
    "no such data": (["search", "--space", "tiny.yaml", "--data", "mnist"], "unknown set 'mnist'; allowed"),
    "no such device": (["search", "--space", "tiny.yaml", "--device", "tpu9"], "device: 'tpu9'"),
    "no such strategy": (
        ["search", "--space", "tiny.yaml", "--data", "digits", "--strategy", "x"],
        "strategy: unknown 'x'; allowed: random, tpe",
    ),
    "no such folder": (["search", "--space", "tiny.yaml", "--data", "folder:none"], "is not a folder"),
    "no train part": (["search", "--space", "tiny.yaml", "--data", "folder:bare"], "no folder train/"),
    "empty folder": (["search", "--space", "tiny.yaml", "--data", "folder:empty"], "no images"),
    "one class": (["search", "--space", "tiny.yaml", "--data", "folder:single"], "has one class, 'a'"),
    "bad resolution": (
        ["search", "--space", "tiny.yaml", "--data", "digits", "--resolution", "2"],
        "resolution: 2",
    ),
    "images nobody has": (
        [*TINY, "--images", "9999"],
        "images: 9999 is more",
    ),
    "pixels nobody has": (
        [*TINY, "--resolution", "100000"],
        "at most 512",
    ),
    "cores nobody has": ([*TINY, "--threads", "99999"], "threads: 99999"),
    "endless seed": ([*TINY, "--seed", str(2**64)], "--seed"),
    "endless budget": (["cost", "--budget", "1e99"], "'1e99' is not a quantity"),
    "no number": ([*TINY, "--width", "nan"], "width: nan"),
    "endless width": ([*TINY, "--width", "inf"], "width: inf"),
    "a misfit twin": (["search", "--space", "misfit.yaml", *QUICK], "layer1.0: psconv: in_channels = 8"),
    "huge images": (["search", "--space", "huge.yaml"], "input_size: input should be less than or equal"),
    "nested options": (["search", "--space", "nested.yaml"], "overrides"),
    "an endless name": (["search", "--space", "tiny.yaml", "--study", "s" * 300], "is not a name"),
    "a passing storage": (
        [*TINY, "--storage", "sqlite://"],
        "is gone when",
    ),
    "a storage not there": (["show", "s", "--storage", "sqlite:///new.db"], "there is no 's'"),
    "nobody's home": (
        ["search", "--space", "tiny.yaml", "--data", "folder:~no-such-user/x"],
        "cannot be read",
    ),
    "a place for a file": (["export", "none", "-o", "."], "there is no 'none'"),
    "no such paper": (
        ["tables", "--paper", "resnet"],
        "'resnet' is not one of scnet, psconv, ms-sar, booster",
    ),
    "an endless choice": (["cost", "x" * 5000], "unknown operator"),
    "name of a study": (["search", "--space", "tiny.yaml", "--study", "../up"], "'../up' is not a name"),
    "no such study": (["show", "none"], "there is no 'none'"),
    "no such study to export": (["export", "none"], "there is no 'none'"),
    "no such option": (["search", "--spice", "x"], "--spice"),
    "no trials": (["search", "--space", "tiny.yaml", "--trials", "0"], "--trials"),
    "no such command": (["serach"], "serach"),
    "unreachable storage": (
        ["search", "--space", "tiny.yaml", "--data", "digits", "--storage", "sqlite:////no/such/folder/s.db"],
        "storage:",
    ),
    "no such storage": (
        ["show", "s", "--storage", "nonsense"],
        "storage: the given URL cannot be used",
    ),
    "secret storage": (
        ["show", "s", "--storage", "postgresql://me:secret@127.0.0.1:1/db"],
        "storage: postgresql://me:***@127.0.0.1:1/db cannot be used",
    ),
    "runs not writable": (
        [*TINY, "--runs-dir", "tiny.yaml"],
        "cannot be written",
    ),
    "wrong key": (
        ["search", "--space", "wrong_key.yaml"],
        "unknown key 'backbones'; allowed: name, backbone",
    ),
    "list for a name": (["search", "--space", "list.yaml"], "backbone: "),
    "unknown operator": (["search", "--space", "operator.yaml"], "convolution: unknown convolution 'ps'"),
    "unknown argument": (
        ["search", "--space", "argument.yaml"],
        "psconv takes no argument 'r'; allowed: pattern",
    ),
    "impossible argument": (["search", "--space", "impossible.yaml"], "convolution: scconv: r = 0"),
    "unknown block": (["cost", "block.yaml"], "resnet20 has no block 'layer9.9'"),
    "missing block": (["cost", "missing.yaml"], "no choice for the block 'layer1.0'"),
    "edited cost": (
        ["train", "edited.yaml", "--data", "digits"],
        "cost.macs is 1, but its blocks cost 40813184",
    ),
    "no such choice": (["cost", "psconvv"], "unknown operator 'psconvv'"),
    "no such recipe": (
        ["train", "fine.yaml", "--data", "digits", "--recipe", "step90"],
        "step100, cosine120",
    ),
    "no such set": (["bench", "--set", "layer"], "set: 'layer' is not one of layers, blocks, networks, all"),
    "no such sizes": (["bench", "--sizes", "big"], "sizes: 'big' is not one of imagenet, cifar, all"),
    "no such mode": (["bench", "--mode", "both"], "mode: 'both' is not one of forward, train"),
    "no such type": (["bench", "--dtype", "int8"], "dtype: 'int8' is not one of float32, bfloat16"),
    "no such format": (["bench", "--memory-format", "x"], "memory-format: 'x' is not one of channels_last"),
    "no batch": (["bench", "--batch-size", "0"], "--batch-size"),
    "no time": (["bench", "--seconds", "nan"], "seconds: nan is not"),
    "no such device to time": (["bench", "--device", "tpu9"], "device: 'tpu9' is not here"),
    "cores nobody has to time": (["bench", "--threads", "99999"], "threads: 99999 is not from 1 to"),
    "no such choice to time": (["bench", "--choice", "psconvv"], "choice: unknown operator 'psconvv'"),
    "a gate alone": (["bench", "--set", "layers", "--choice", "ab"], "vanilla+ab recalibrates a block"),
    "a misfit to time": (
        ["bench", "--sizes", "cifar", "--choice", "psconv(pattern=1-2-3)"],
        "psconv: in_channels = 16",
    ),
    "no place for timings": (["bench", "-o", "no/such/folder.json"], "cannot be written: No such file"),
    "latencies without a limit": (
        ["search", "--space", "tiny.yaml", "--latency-table", "t.json"],
        "latency-table: of no use without a limit",
    ),
    "a batch without a limit": (
        ["search", "--space", "tiny.yaml", "--batch", "8"],
        "batch: of no use without a limit",
    ),
    "a latency without a unit": (["search", "--space", "tiny.yaml", "--latency", "5"], "latency: '5' is not"),
    "memory without a unit": (
        ["search", "--space", "tiny.yaml", "--memory", "3"],
        "memory: '3' is not a size",
    ),
    "no such space to time": (["latency", "--space", "resnet51"], "unknown space 'resnet51'"),
    "no such device for a table": ([*LATENCY, "--device", "tpu9"], "device: 'tpu9' is not here"),
    "no such type for a table": ([*LATENCY, "--dtype", "int8"], "dtype: 'int8' is not one of"),
    "no batch for a table": ([*LATENCY, "--batch", "0"], "--batch"),
    "too few rounds": ([*LATENCY, "--rounds", "5"], "rounds: 5 is not from 6, the choices of a position"),
    "endless rounds": ([*LATENCY, "--rounds", "900000000"], "rounds: 900000000 is not from 6"),
    "no place for a table": ([*LATENCY, "-o", "no/such/folder.json"], "cannot be written: No such file"),
    "a folder for a table": ([*LATENCY, "-o", "bare"], "bare: cannot be written: not a regular file"),
    "a foreign table": ([*LATENCY, "-o", "tiny.yaml"], "tiny.yaml: not JSON"),
    "no such table": (
        [*TINY, "--latency", "9ms", "--latency-table", "no.json"],
        "error: no.json: cannot be read: No such file",
    ),
    "one class to train on": (["train", "fine.yaml", "--data", "folder:single"], "has one class"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_status_2_and_leaves_nothing_behind(here, capsys, case):
    arguments, named = BAD_INPUT[case]
    (here / "bare").mkdir()
    (here / "empty" / "train").mkdir(parents=True)
    pictures(here / "single" / "train", ["a"])
    for name, old, new in (
        ("wrong_key", "backbone:", "backbones:"),
        ("list", "resnet20", "[resnet20]"),
        ("operator", "psconv", "ps"),
        ("argument", "psconv", "psconv(r=2)"),
        ("impossible", "psconv", "scconv(r=0)"),
        ("misfit", "psconv", "psconv(pattern=1-2-3-4-1-2-3-5-1-2-3-4-1-2-3-6)"),
        ("huge", "granularity", "input_size: 10000000000\ngranularity"),
        ("nested", "granularity", "overrides: {convolution: {foo: 1}}\ngranularity"),
    ):
        (here / f"{name}.yaml").write_text(SPACE.replace(old, new))
    edited(here, "fine.yaml")
    edited(here, "block.yaml", **{"layer1.0": "layer9.9"})
    edited(here, "missing.yaml", **{"  layer1.0: vanilla\n": ""})
    edited(here, "edited.yaml", **{"macs: 40813184": "macs: 1"})
    before = sorted(here.rglob("*"))

    assert run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = [line for line in told.err.splitlines() if not line.startswith(("study ", "data: "))]
    assert len(lines) == 1, told.err
    assert lines[0].startswith("error: ")
    assert named in lines[0]
    assert "secret" not in told.err
    if case != "unreachable storage":  # its lock folder is made before the storage is tried
        assert sorted(here.rglob("*")) == before


def test_how_auto_chose_the_data_stays_in_the_study_when_it_goes_on(here, monkeypatch):
    def unreachable(*_, **__):
        raise InputError("data: cifar10 cannot be downloaded")

    monkeypatch.setattr("nas_recalib.data.sources._cifar", unreachable)
    quick = [option for option in QUICK if option != "--data=digits"]
    for trials in ("1", "2"):
        assert run(["search", "--space", "tiny.yaml", "--study", "s", *quick, "--trials", trials]) == 0
        study = optuna.load_study(study_name="s", storage="sqlite:///runs/s/study.db")
        assert study.user_attrs["config"]["data"] == "digits"
        assert study.user_attrs["config"]["data_note"] == "auto chose digits: cifar10 cannot be downloaded"


def test_a_search_that_was_refused_leaves_its_name_free(here):
    assert search("--study", "s", "--images", "9999") == 2
    assert search("--study", "s", "--trials", "1") == 0


@pytest.mark.parametrize("target", [".", "/", "folder", "/dev/null"])
def test_only_a_file_can_be_written_over(here, capsys, target):
    (here / "folder").mkdir()
    assert search("--trials", "1", "--study", "s") == 0
    capsys.readouterr()
    assert run(["export", "s", "-o", target]) == 2
    assert "cannot be written: not a regular file" in capsys.readouterr().err
    assert run(["show", "s", "--html", target]) == 2


def test_a_link_is_written_through(here):
    (here / "real.yaml").write_text("old")
    (here / "link.yaml").symlink_to("real.yaml")
    assert search("--trials", "1", "--study", "s") == 0
    assert run(["export", "s", "-o", "link.yaml"]) == 0
    assert (here / "link.yaml").is_symlink()
    assert Architecture.load("real.yaml")


def test_a_resumed_search_knows_the_best_so_far(here, capsys):
    assert search("--trials", "3") == 0
    capsys.readouterr()
    assert search("--trials", "4") == 0
    study = optuna.load_study(study_name="tiny", storage="sqlite:///runs/tiny/study.db")
    assert len(study.trials) == 4
    assert f"4 of 4 trials, best {study.best_value:.4f}" in capsys.readouterr().err


def test_help_comes_without_waiting_for_torch():
    commands = "[], ['search'], ['show'], ['export'], ['cost'], ['bench'], ['latency'], ['train']"
    program = f"""
import sys
from nas_recalib.cli import run
from nas_recalib.errors import InputError
for command in ({commands}):
    assert run([*command, "--help"]) == 0
assert not {{"torch", "optuna", "ray", "sklearn"}} & sys.modules.keys(), "imported"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--budget" in done.stdout


def test_an_interruption_is_status_130(here, capsys, monkeypatch):
    monkeypatch.setattr(
        "nas_recalib.search.search.Search.next", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert search() == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_hopeless_search_is_status_1(here, capsys, monkeypatch):
    monkeypatch.setattr("nas_recalib.proxy.objective.Training", lambda *_, **__: 1 / 0)
    assert search() == 1
    told = capsys.readouterr().err
    assert "3 trials in a row ended in an error" in told
    assert "ZeroDivisionError" in told


def test_operators_are_timed_against_vanilla(here, capsys):
    small = "--sizes cifar --batch-size 2 --seconds 0.001 --threads 1 --device cpu --choice ab"
    quick = ["bench", *small.split(" ")]
    assert run([*quick, "-o", "out.json"]) == 0
    told = capsys.readouterr()
    assert told.out.count("resnet20 layer") == told.err.count("resnet20 layer") == 3
    assert "Geometric means" in told.out
    written = json.loads((here / "out.json").read_text())
    assert [case["place"] for case in written["cases"]] == [f"resnet20 layer{s}.1" for s in (1, 2, 3)]
    assert (written["mode"], written["dtype"]) == ("forward", "float32")

    assert run([*quick, "--choice", "psconv", "--set", "all", "--mode", "train", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["mode"] == "train"
    assert [mean["set"] for mean in told["geometric_means"]] == ["layers", *["blocks"] * 2, *["networks"] * 2]


def test_a_table_of_latencies_is_made_and_goes_on_after_an_interruption(here, capsys, monkeypatch):
    (here / "tiny.yaml").write_text(SPACE.replace("granularity", "input_size: 8\ngranularity"))
    path = here / "runs/latency/tiny-cpu-b2-float32.json"
    quick = [*LATENCY, "--batch", "2", "--rounds", "6"]
    with monkeypatch.context() as interrupted:
        rounds = []

        def interrupt(table):
            rounds.append(table)
            if len(rounds) == 4:
                raise KeyboardInterrupt

        interrupted.setattr(
            "nas_recalib.report.latency.RoundsTold.__call__", lambda _, table: interrupt(table)
        )
        assert run(quick) == 130
    assert "interrupted; the same command goes on from here" in capsys.readouterr().err
    assert len(json.loads(path.read_text())["rounds"]) == 4

    assert run(quick) == 0
    told = capsys.readouterr()
    assert [line.split(":")[0] for line in told.err.splitlines()[:-1]] == ["round 5/6", "round 6/6"]
    assert "batch 2, float32" in told.out
    assert [line.split()[0] for line in told.out.splitlines()[-3:]] == ["layer1", "layer2", "layer3"]
    assert run([*quick, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text())

    assert run([*quick, "--dtype", "bfloat16", "-o", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {path}: made with another dtype float32, here bfloat16; name another file with -o"
    )


def test_cost_of_a_space_a_choice_and_json(here, capsys):
    assert run(["cost", "--space", "resnet50"]) == 0
    told = capsys.readouterr().out
    assert "all vanilla: 4,089,184,256 MACs" in told
    assert run(["cost", "scconv", "--budget", "4G", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"resnet50, all scconv": {"macs": 3925286912, "params": 25564584}, "within_budget": True}


def test_how_much_of_a_space_is_within_a_budget(here, capsys):
    """The tiny space has 216 architectures, few enough to count by hand."""
    space = SearchSpace.load("tiny.yaml")
    budget = Budget(40_000_000, 271_000)
    costs = [space.table.cost(picks) for picks in np.ndindex(6, 6, 6)]
    fitting = sum(map(budget.allows, costs))
    asked = ["cost", "--space", "tiny.yaml", "--budget", "40M", "--params", "271k"]
    assert run([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["within_budget"] == fitting < told["architectures"] == 216
    assert told["share"] == fitting / 216
    assert told["budget"] == {"macs": 40_000_000, "params": 271_000}
    histogram = told["histogram"]
    assert (histogram["macs"][0], histogram["macs"][-1]) == (told["least"]["macs"], told["greatest"]["macs"])
    assert sum(histogram["architectures"]) == 216

    assert run(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"within 40.000M macs and 271.000k params: {fitting} of 216 ({fitting / 2.16:.3g}%)" in lines
    rows = lines[lines.index("MACs of all architectures:") + 1 :]
    assert len(rows) == 20
    (marked,) = [row for row in rows if row.endswith("<- 40.000M")]
    low, _, high = marked.split()[:3]
    assert float(low[:-1]) <= 40 < float(high[:-1])


def test_a_large_count_is_readable(here, capsys):
    assert run(["cost", "--space", "resnet50", "--params", "26M"]) == 0
    told = capsys.readouterr().out
    assert "within 26.000M params: 3.24e18 of 1.21e22 (0.0267%)\n" in told
    assert "<-" not in told, "there is no limit on MACs"
    assert run(["cost", "--space", "resnet20", "--budget", "1M"]) == 2
    assert "the least possible cost, 32.040M (32,039,552)" in capsys.readouterr().err


def test_cost_is_checked_against_other_counters(here, capsys):
    assert run(["cost", "psconv+ab", "--space", "tiny.yaml", "--check"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("resnet20, all psconv+ab: ")
    assert told[1].startswith("FlopCounterMode on the whole network: ")
    assert told[1].endswith(": the same")
    assert told[-1] == "ours and these differences are thop's count, to the last digit"

    assert run(["cost", "psconv+ab", "--space", "tiny.yaml", "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    ours, check = told["resnet20, all psconv+ab"], told["check"]
    assert check["flop_counter"] == ours
    assert ours["macs"] + sum(d["macs"] for d in check["differences"]) == check["thop"]["macs"]
    assert check["unexplained"] == {"macs": 0, "params": 0}

    assert run(["cost", "--check"]) == 2
    assert "check: needs an architecture file, or a choice" in capsys.readouterr().err


@pytest.fixture
def spoilt(here):
    """Two classes of 30 pictures, of which twelve are not."""
    pictures(here / "own" / "train", "ab", each=30)
    broken = sorted((here / "own" / "train" / "a").iterdir())[::3] + [
        here / "own" / "train" / "b" / f"{number}.png" for number in (5, 6)
    ]
    for path in broken:
        path.write_bytes(b"not a picture")
    return [str(path) for path in broken]


def search_own(*arguments):
    own = ("--data=folder:own", "--images=45", "--validation=15", "--cache-dir=cache")
    return search("--budget=40M", "--study=own", *own, *arguments, "--trials=1")


def test_corrupt_images_are_refused_by_name(spoilt, capsys):
    assert search_own() == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert any(line.startswith(f"error: {path}: not an image that can be decoded") for path in spoilt)
    assert "(and 11 more); --corrupt-images skip" in line
    assert not Path("runs").exists()


def test_corrupt_images_are_skipped_by_name_when_asked(spoilt, capsys):
    assert search_own("--corrupt-images=skip") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped ")]
    assert len(told) == 11
    assert len({path for path in spoilt for line in told if path in line}) == 10
    assert told[-1] == "skipped 2 more such images"
    assert search_own() == 2  # nothing is left out unless asked
