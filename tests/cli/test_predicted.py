"""`show --predicted` and `export --predicted`: the optimum of a regression on all trials."""

import json
from itertools import product
from pathlib import Path

import optuna
import pytest

from nas_recalib.architecture import Architecture
from nas_recalib.cli import run
from nas_recalib.search.samplers.base import distributions
from nas_recalib.space import SearchSpace
from nas_recalib.study.summary import leaders, summarise

BUDGET = 36_500_000
LUCKY = 8  # number of a trial


def load():
    return optuna.load_study(study_name="s", storage="sqlite:///runs/s/study.db")


@pytest.fixture
def searched(here):
    """A study with a short search, to which trials of known accuracies are added."""
    quick = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--epochs=1", "--trials=1"]
    assert run(["search", "--space=tiny.yaml", "--study=s", f"--budget={BUDGET}", *quick]) == 0
    space, study = SearchSpace.load("tiny.yaml"), load()
    for number, indices in enumerate(list(product(range(6), repeat=3))[1::5]):
        accuracy = 0.5 + 0.01 * indices[0] + 0.02 * indices[1] - 0.01 * indices[2]
        cost = space.table.cost(indices)
        study.add_trial(
            optuna.trial.create_trial(
                value=accuracy + (0.15 if number + 1 == LUCKY else 0.001 * (number % 3)),  # one was lucky
                params=space.indices_to_params(indices),
                distributions=distributions(space),
                user_attrs={
                    "architecture": str(space.from_indices(indices)),
                    "macs": cost["macs"],
                    "params": cost["params"],
                    "seconds": 1.0,
                },
                intermediate_values={1: accuracy},
            )
        )
    return space


def test_the_best_within_the_budget_is_shown_and_exported(searched, capsys):
    capsys.readouterr()
    assert run(["show", "s", "--predicted", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["macs"] <= BUDGET
    low, high = shown["interval"]
    assert low < shown["accuracy"] < high
    assert run(["export", "s", "--predicted", "-o", "best.yaml"]) == 0
    trained = "never trained" if shown["trial"] is None else f"trained as trial {shown['trial']}"
    assert trained in capsys.readouterr().err
    assert str(Architecture.load("best.yaml")) == shown["architecture"]
    assert "predicted:" in Path("best.yaml").read_text()
    assert run(["show", "s", "--predicted"]) == 0
    out = capsys.readouterr().out
    assert f"predicted accuracy {shown['accuracy']:.4f}" in out


def test_a_lucky_trial_does_not_lead(searched):
    rows = summarise(load()).rows
    assert rows[0].number == LUCKY
    assert rows[0].expected < rows[0].accuracy - 0.05
    assert leaders(rows)[0].number != LUCKY


def test_too_few_trials_and_a_trial_of_its_own_are_refused(here, capsys):
    quick = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--epochs=1", "--trials=1"]
    assert run(["search", "--space=tiny.yaml", "--study=s", *quick]) == 0
    capsys.readouterr()
    assert run(["show", "s", "--predicted"]) == 2
    assert "predicted: needs 10 trials trained to the end, and study 's' has 1" in capsys.readouterr().err
    assert run(["export", "s", "--predicted", "--trial=0"]) == 2
    assert "predicted: not with --trial" in capsys.readouterr().err
    assert not Path("best.yaml").exists()
