"""What a study's trials say: which count, how accurate they are, and which go on from one another."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
ACCURACY = "accuracy"  # the first objective of every search
ATTRIBUTES = {  # a trial's, that hold its costs
    "macs": "macs",
    "params": "params",
    "latency": "predicted_latency_ms",
    "memory": "memory",
}
CONTINUES = "continues"  # a trial's attribute: number of the trial whose training it goes on with
CURVE = "curve"  # where several objectives keep Optuna from taking accuracies after each epoch
TAKEN = "taken_from"  # study and number of the trial of another study that was taken over
REPLAYED = "replayed_from"  # number of the trial that answered this one


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were really trained, to the end or until they were given up or left."""
    return _last(study.get_trials(deepcopy=False, states=FINISHED))


def standing(study: optuna.Study) -> list[FrozenTrial]:
    """As `finished`, and what is being trained in the place of what that goes on from.

    A training that failed for a reason of its own takes what it went on from along; an interrupted one does
    not.
    """
    trials = study.get_trials(deepcopy=False)
    lasting = [trial for trial in trials if trial.user_attrs.get("failure") != "interrupted"]
    states = (*FINISHED, TrialState.RUNNING)
    return [trial for trial in _last(lasting) if trial.state in states]


def trained_here(study: optuna.Study) -> list[FrozenTrial]:
    """As `finished`, without what was taken over from another study."""
    return [trial for trial in finished(study) if TAKEN not in trial.user_attrs]


def cost_attributes(cost: Mapping[str, int]) -> dict[str, Any]:
    """A cost as trials carry it; a latency is in milliseconds, and only predicted."""
    values = {name: value / 1e6 if name == "latency" else value for name, value in cost.items()}
    return {ATTRIBUTES[name]: value for name, value in values.items()}


def accuracy_of(trial: FrozenTrial) -> float:
    """At the last epoch trained, 0 to 1; 0 before there is one."""
    return float(trial.values[0]) if trial.values else 0.0


def curve_of(trial: FrozenTrial) -> list[float]:
    """Accuracies after each epoch."""
    steps = sorted(trial.intermediate_values.items())
    return [value for _, value in steps] or list(trial.user_attrs.get(CURVE, ()))


def _last(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Without what was replayed, and of those that go on from one another the last."""
    trained = [trial for trial in trials if REPLAYED not in trial.user_attrs]
    left = {trial.user_attrs.get(CONTINUES) for trial in trained}
    return [trial for trial in trained if trial.number not in left]
