"""`nas-recalib search` as its users meet it: strategies, pruners, objectives, and another study's trials."""

import json
from functools import partial
from pathlib import Path

import optuna
import pytest

from nas_recalib.cli import run
from nas_recalib.search.progress import Progress
from nas_recalib.study.storage import open_storage
from nas_recalib.study.trials import finished

QUICK = [
    "--data=digits",
    "--images=40",
    "--validation=20",
    "--resolution=8",
    "--epochs=2",
    "--space=tiny.yaml",
]


def search(*arguments):
    return run(["search", *QUICK, "--study=s", *arguments])


def load(name="s"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///runs/{name}/study.db")


def test_a_finished_study_goes_on_with_another_strategy_and_pruner(here, capsys):
    assert search("--trials=5", "--strategy=random") == 0
    assert search("--trials=7", "--strategy=tpe", "--pruner=halving") == 0
    assert search("--trials=8") == 0
    strategies = [trial.user_attrs["strategy"] for trial in finished(load())]
    assert strategies == ["random"] * 5 + ["tpe"] * 3, "the last stays"
    assert load().user_attrs["config"]["pruner"] == "halving"


def test_what_is_not_given_again_stays_and_baselines_are_announced(here, capsys, monkeypatch):
    confirmed = []
    monkeypatch.setattr(
        "nas_recalib.search.confirm.confirm_leaders", lambda *given: confirmed.append(given[3])
    )
    assert search("--trials=2", "--epochs=1", "--confirm=2") == 0
    assert (
        "\n4 baselines first (--baselines no to skip); with --trials 2 nothing else"
        in capsys.readouterr().err
    )
    assert run(["search", "--study=s"]) == 0
    assert "baselines" not in capsys.readouterr().err
    assert (len(load().trials), confirmed) == (2, [2, 2])
    assert run(["search", "--study=s", "--trials=3", "--baselines=no", "--confirm=0"]) == 0
    assert "baselines" not in capsys.readouterr().err
    assert [trial.user_attrs.get("baseline") for trial in load().trials] == ["vanilla", "scconv", None]
    assert confirmed == [2, 2]


@pytest.mark.soak
def test_what_is_left_at_a_rung_goes_on_from_its_checkpoint(here, capsys):
    assert search("--trials=12", "--strategy=random", "--pruner=halving") == 0
    told = capsys.readouterr().err
    assert "stopped at epoch 1" in told
    assert ": resumed from trial" in told
    on = [trial for trial in load().trials if "continues" in trial.user_attrs]
    assert on
    whole = search("--study=whole", "--trials=12", "--strategy=random", "--pruner=none")
    assert whole == 0
    never_left = {trial.user_attrs["architecture"]: trial for trial in load("whole").trials}
    for trial in on:
        same = never_left[trial.user_attrs["architecture"]]
        assert trial.intermediate_values == same.intermediate_values, "to the last bit"


def test_a_warm_start_takes_over_what_fits_and_says_what_does_not(here, capsys):
    assert search("--trials=8", "--strategy=random") == 0
    dearest = max(trial.user_attrs["macs"] for trial in finished(load()))
    limit = f"--budget={dearest - 1}"
    again = ("--study=t", limit, "--warm-start=s", "--strategy=random")
    assert search(*again, "--trials=1") == 0
    streams = capsys.readouterr()
    told = streams.err
    taken = [trial for trial in load("t").trials if "taken_from" in trial.user_attrs]
    assert f"t: 1 trained trials and {len(taken)} transferred" in streams.out
    assert "1 of 1 trials, " in told
    assert f"warm start: {len(taken)} trials transferred from s; skipped" in told
    assert "that are over the budget (" in told
    assert all(trial.user_attrs["macs"] < dearest for trial in taken)
    by_architecture = {trial.user_attrs["architecture"]: trial for trial in finished(load())}
    assert all(
        trial.value == by_architecture[trial.user_attrs["architecture"]].value and trial.intermediate_values
        for trial in taken
    )
    assert len(load("t").trials) == len(taken) + 1, "one is trained here, as asked"
    assert load("t").trials[-1].user_attrs["architecture"] not in by_architecture
    assert any("baseline" in trial.user_attrs for trial in taken)

    assert search(*again, "--trials=1") == 0
    assert "warm start: 0 trials transferred from s" in capsys.readouterr().err
    assert run(["status", "t", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["trained"], shown["transferred"]) == (1, len(taken))
    assert len(load("t").trials) == len(taken) + 1


def test_several_objectives_are_searched_and_shown(here, capsys):
    assert search("--objectives=accuracy,macs,params", "--trials=6", "--strategy=random") == 0
    trials = load().trials
    assert [len(trial.values) for trial in trials] == [3] * 6
    assert all(trial.values[1:] == [trial.user_attrs[c] for c in ("macs", "params")] for trial in trials)
    assert all(len(trial.user_attrs["curve"]) == 2 for trial in trials)
    assert search("--trials=8") == 0, "what is not given again is as the study has it"
    capsys.readouterr()
    assert run(["show", "s", "--json", "--html=page.html"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["objectives"] == ["accuracy", "macs", "params"]
    assert len(shown["rows"]) == 8
    assert run(["export", "s"]) == 0


REFUSED = {
    "a strategy for one objective": (
        ["--objectives=accuracy,macs", "--strategy=evolution"],
        "strategy: evolution supports one objective only; for accuracy, macs use one of random, tpe, ",
    ),
    "a pruner for one objective": (
        ["--objectives=accuracy,macs", "--pruner=halving"],
        "pruner: halving needs a single objective; for accuracy, macs use none",
    ),
    "no such objective": (["--objectives=accuracy,size"], "objectives: unknown 'size'; allowed: accuracy,"),
    "accuracy is no objective": (["--objectives=macs"], "objectives: 'macs' should be accuracy, then"),
    "an objective twice": (["--objectives=accuracy,macs,macs"], "each once"),
    "latency without a table": (["--objectives=accuracy,latency"], "latency: no table of tiny"),
    "no such strategy": (["--strategy=best"], "strategy: unknown 'best'; allowed: random, tpe, gp, nsga2"),
    "no such pruner": (
        ["--pruner=best"],
        "pruner: unknown 'best'; allowed: none, median, halving, hyperband",
    ),
    "a strategy for larger spaces": (
        ["--strategy=evolution", "--budget=33M"],
        "strategy: evolution starts with 32 uniform draws, but only",
    ),
    "no such study to start from": (["--warm-start=none"], "study: there is no 'none'"),
    "itself to start from": (["--warm-start=s"], "there is no 's'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_suit_is_refused_before_the_first_trial(here, capsys, case):
    arguments, complaint = REFUSED[case]
    assert search(*arguments) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert told.out == ""
    assert not Path("runs/s/study.db").exists()


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_study_that_is_deleted_while_a_search_runs_ends_it_in_one_line(here, capsys, monkeypatch, kind):
    url = f"journal:{here}/s.log" if kind == "journal" else f"sqlite:///{here}/runs/s/study.db"
    place = url if kind == "journal" else "runs/s/study.db"
    delete = partial(optuna.delete_study, study_name="s")
    monkeypatch.setattr(Progress, "ended", lambda *_: delete(storage=open_storage(url)))
    given = [f"--storage={url}"] if kind == "journal" else []
    assert search("--trials=3", "--epochs=1", *given) == 1
    told = capsys.readouterr()
    gone = f"failed: study: 's' was deleted from {place} while the command ran"
    assert (told.out, told.err.splitlines()[-1]) == ("", gone)
    assert "Traceback" not in told.err


def test_a_warm_start_from_another_kind_of_training_is_refused(here, capsys):
    assert search("--trials=1") == 0
    capsys.readouterr()
    assert search("--study=t", "--epochs=1", "--warm-start=s") == 2
    told = capsys.readouterr().err
    assert "warm-start: study 's' trained with another fidelity.epochs: stored 2, given 1" in told
    assert not Path("runs/t/study.db").exists()
