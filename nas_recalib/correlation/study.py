"""A correlation study: which work is done, and what came of it."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.plan import Done, Plan, Task
from nas_recalib.errors import InputError
from nas_recalib.space import SearchSpace
from nas_recalib.study.location import CORRELATION
from nas_recalib.study.trials import is_accuracy, is_any_number, is_integer, is_line, is_number, read_all

_SCORES = "scores of "
_FORMS: dict[str, Callable[[object], bool]] = {
    "index": is_integer,
    "fidelity": is_line,
    "seed": is_integer,
    "seconds": is_number,
    "device": is_line,
    "losses": lambda value: isinstance(value, list) and all(map(is_any_number, value)),
}
_TRY_AGAIN = ("error", "interrupted", "out-of-memory")


def read_plan(study: optuna.Study) -> Plan | None:
    """The plan of a study, or None where it has none yet.

    Raises:
        InputError: If it was written by another version.
    """
    content = study.user_attrs.get(CORRELATION)
    if content is None:
        return None
    try:
        return Plan.from_dict(content)
    except (TypeError, KeyError) as error:
        raise InputError(
            f"study: {study.study_name!r} was not made by this version of nas-recalib"
        ) from error


def write_plan(study: optuna.Study, plan: Plan) -> None:
    study.set_user_attr(CORRELATION, plan.as_dict())


def keep(
    study: optuna.Study,
    space: SearchSpace,
    architecture: Architecture,
    done: Done,
    common_attrs: Mapping[str, Any],
) -> None:
    """Writes what came of a task, in one piece: a training is a trial, scores are the study's.

    Scores that failed are not kept.
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
        attributes |= {"failure": done.failure.kind, "message": done.failure.message}
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


def validate_study(study: optuna.Study) -> None:
    """Looks at all of a study before any of it is used.

    Raises:
        InputError: If it cannot be read, or holds what `keep` does not write; it is named.
    """
    attributes, trials = read_all(study)
    for key, value in attributes.items():
        if key.startswith(_SCORES) and not (isinstance(value, dict) and all(map(_is_score, value.values()))):
            raise InputError(f"study: {study.study_name!r} holds {key!r}, which is not of its form")
    for trial in trials:
        held = trial.user_attrs
        strange = [key for key, is_so in _FORMS.items() if key not in held or not is_so(held[key])]
        values = (*(trial.values or ()), *trial.intermediate_values.values())
        if strange or not all(map(is_accuracy, values)) or not is_line(held.get("failure", "")):
            raise InputError(
                f"study: trial {trial.number} of {study.study_name!r} was not made by nas-recalib: "
                f"its {(*strange, 'accuracy or failure')[0]} is not of its form"
            )


def _is_score(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and is_any_number(value[0]) and is_number(value[1])


def trained(study: optuna.Study) -> dict[Task, FrozenTrial]:
    """The trainings that are done, by their tasks; one that failed by no fault of its own is not."""
    trials = study.get_trials(deepcopy=False)
    told = [trial for trial in trials if trial.user_attrs.get("failure") not in _TRY_AGAIN]
    return {Task(*(t.user_attrs[key] for key in ("index", "fidelity", "seed"))): t for t in told}


def scored(study: optuna.Study, index: int) -> dict[str, tuple[float, float]]:
    """Value and seconds of each score that an architecture has."""
    return {name: (told[0], told[1]) for name, told in study.user_attrs.get(_scores_key(index), {}).items()}


def _scores_key(index: int) -> str:
    return f"{_SCORES}{index}"
