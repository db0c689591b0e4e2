"""The command line as its users meet it: the main job, going on, and what ends it early."""

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from commands import SPACE
from inputs import LATENCY, QUICK, pictures, search

from nas_recalib.architecture import Architecture
from nas_recalib.cli import run
from nas_recalib.errors import InputError

SMALL = SPACE.replace("granularity", "input_size: 8\ngranularity")


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


@pytest.mark.soak
def test_a_limit_on_latency_from_the_table_to_the_measured_finalists(here, capsys):
    (here / "tiny.yaml").write_text(SMALL)
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
    (here / "tiny.yaml").write_text(SMALL)
    (here / "other.yaml").write_text(SMALL.replace("[none, ab]", "[none, msar(scales=1), ab]"))
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


def test_how_auto_chose_the_data_stays_in_the_study_when_it_goes_on(here, monkeypatch):
    def unreachable(*_, **__):
        raise InputError("data: cifar10 cannot be downloaded")

    monkeypatch.setattr("nas_recalib.data.sources.load_cifar", unreachable)
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
    assert run(["export", "s", "-o", "link.yaml", "--force"]) == 0
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
        "nas_recalib.search.search.Search.next_job", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
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
    (here / "tiny.yaml").write_text(SMALL)
    path = here / "runs/latency/tiny-cpu-b2-float32.json"
    quick = [*LATENCY, "--batch", "2", "--rounds", "6"]
    with monkeypatch.context() as interrupted:
        rounds = []

        def interrupt(table):
            rounds.append(table)
            if len(rounds) == 4:
                raise KeyboardInterrupt

        interrupted.setattr("nas_recalib.report.timings.round_reporter", lambda _: interrupt)
        assert run(quick) == 130
    assert "interrupted: run the same command again to resume" in capsys.readouterr().err
    assert len(json.loads(path.read_text())["rounds"]) == 4

    assert run(quick) == 0
    told = capsys.readouterr()
    assert [line.split(":")[0] for line in told.err.splitlines()[:-1]] == ["round 5/6", "round 6/6"]
    assert "batch size 2, float32" in told.out
    rows = [line.split()[:2] for line in told.out.splitlines()[-9:]]
    assert rows == [[f"layer{n}", which] for n in (1, 2, 3) for which in ("first", "fastest", "slowest")]
    assert run([*quick, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text())

    assert run([*quick, "--dtype", "bfloat16", "-o", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {path}: made with dtype float32, not bfloat16; name another file with -o"
