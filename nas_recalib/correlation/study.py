"""Stored results of a correlation study: written, validated and read."""

from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic needs these before Python 3.12
)

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.plan import Done, Plan, Task
from nas_recalib.space import SearchSpace
from nas_recalib.study import stored
from nas_recalib.study.location import CORRELATION
from nas_recalib.study.trials import FAILURE, validate_contents

_SCORES = "scores of "  # a study's attribute: value and seconds of each zero-cost proxy, by its name
_RETRIED_FAILURES = ("error", "interrupted", "out-of-memory")


def read_plan(study: optuna.Study) -> Plan | None:
    """Return the plan of a study, or None if nothing has been written yet.

    Raises:
        InputError: If it was written by another version; the key is named.
    """
    content = study.user_attrs.get(CORRELATION)
    if isinstance(content, dict):
        content = {"gate_fan": "fan_out", "evaluated": "raw", **content}
    return None if content is None else stored.read_stored(Plan, content, study.study_name)


def write_plan(study: optuna.Study, plan: Plan) -> None:
    study.set_user_attr(CORRELATION, plan.as_dict())


def keep(
    study: optuna.Study,
    space: SearchSpace,
    architecture: Architecture,
    done: Done,
    common_attrs: Mapping[str, Any],
) -> None:
    """Store the result of a task at once: a training as a trial, zero-cost proxies in the study's attributes.

    Failed zero-cost proxies are not stored.

    Args:
        study: Study to write to.
        space: Search space of the study.
        architecture: Architecture of the task.
        done: Result of the task.
        common_attrs: User attributes written to every trial (device, versions).
    """
    if done.scores is not None:
        before = study.user_attrs.get(_scores_key(done.task.index), {})
        study.set_user_attr(_scores_key(done.task.index), {**before, **done.scores})
    if done.task.scores:
        return
    attributes: dict[str, Any] = {
        "index": done.task.index,
        "fidelity": done.task.fidelity,
        "architecture": str(architecture),
        **space.table.cost(space.indices_of(architecture)),
        "seed": done.task.seed,
        "seconds": done.seconds,
        "losses": list(done.losses),
        **common_attrs,
    }
    if done.failure is not None:
        attributes |= {FAILURE: done.failure.kind, "message": done.failure.message}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.COMPLETE if done.failure is None else TrialState.FAIL,
            value=done.accuracies[-1] if done.failure is None else None,
            params=space.encode(architecture),
            distributions={n: CategoricalDistribution(allowed) for n, allowed in space.options().items()},
            user_attrs=attributes,
            intermediate_values=dict(enumerate(done.accuracies, start=1)),
        )
    )


@with_config(stored.STRICT_VALUES)
class _TrialAttributes(TypedDict):
    index: stored.Count
    fidelity: stored.Line
    seed: stored.Count
    seconds: stored.Number
    device: stored.Line
    losses: list[float]
    failure: NotRequired[stored.Line]


class _StoredTrial(BaseModel):
    """Form of a trial of a correlation study; attributes of other names are allowed."""

    model_config = ConfigDict(strict=True, from_attributes=True)

    user_attrs: _TrialAttributes
    values: list[stored.Accuracy] | None
    intermediate_values: dict[int, stored.Accuracy]


_STORED_SCORES = TypeAdapter(
    dict[str, Annotated[tuple[float, stored.Number], Field(strict=False)]], config=stored.STRICT_VALUES
)


def validate_study(study: optuna.Study) -> None:
    """Validate all results of a correlation study before any of them is used.

    Raises:
        InputError: If the study cannot be read, or contains what `keep` does not write; the key and, if it is
            one of a trial, the trial are named.
    """
    validate_contents(study, _validate_attribute, _StoredTrial.model_validate)


def _validate_attribute(key: str, value: object) -> None:
    if key.startswith(_SCORES):
        _STORED_SCORES.validate_python(value)


def trained(study: optuna.Study) -> dict[Task, FrozenTrial]:
    """Return the trainings that are done, by their tasks.

    One that failed in such a way that it may succeed when tried again is not among them.
    """
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.user_attrs.get(FAILURE) not in _RETRIED_FAILURES]
    return {Task(*(trial.user_attrs[key] for key in ("index", "fidelity", "seed"))): trial for trial in done}


def scored(study: optuna.Study, index: int) -> dict[str, tuple[float, float]]:
    """Return the value and the seconds of each zero-cost proxy of an architecture, by its name."""
    results = study.user_attrs.get(_scores_key(index), {})
    return {name: (value, seconds) for name, (value, seconds) in results.items()}


def _scores_key(index: int) -> str:
    return f"{_SCORES}{index}"
