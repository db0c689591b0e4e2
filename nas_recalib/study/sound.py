"""Whether what a study's trials carry can be used, whoever wrote it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.errors import InputError, in_one_line
from nas_recalib.study.confirmation import PREFIX
from nas_recalib.study.form import is_accuracy, is_line, is_number, is_text, is_whole
from nas_recalib.study.trials import ATTEMPT, CONTINUES, CURVE, FINISHED, PARTS, REPLAYED, TAKEN

MEASURED = "latency_ms"  # a study's attribute: milliseconds of its finalists, by their numbers
_CONFIRMED = re.compile(rf"{PREFIX}[0-9]{{1,9}}/[0-9]{{1,10}}")


def _is_positive(value: object) -> bool:
    return is_number(value, 1e-9)


def _is_curve(value: object) -> bool:
    return isinstance(value, list) and all(map(is_accuracy, value))


_FORMS: dict[str, Callable[[object], bool]] = {
    "architecture": is_line,
    "macs": lambda value: is_whole(value, 1),
    "params": lambda value: is_whole(value, 1),
    "predicted_latency_ms": _is_positive,
    "memory": lambda value: is_whole(value, 1),
    "seconds": is_number,
    "baseline": is_line,
    "failure": is_line,
    "message": is_text,
    "bracket": lambda value: is_whole(value, 0, 100),
    "worker": is_line,
    "node": is_line,
    "traceback": is_text,
    ATTEMPT: lambda value: is_whole(value, 1),
    PARTS: lambda value: is_whole(value, 1, 2),
    CONTINUES: is_whole,
    REPLAYED: is_whole,
    TAKEN: is_line,
    CURVE: _is_curve,
}
_OF_TRAINED = ("architecture", "macs", "params", "seconds")


def require_sound(study: optuna.Study) -> None:
    """Looks at all of a search before any of it is used.

    Raises:
        InputError: If the study cannot be read, or holds what no search of this package writes; it is named.
    """
    attributes, trials = read_all(study)
    for key, value in attributes.items():
        if not _is_sound(key, value):
            raise InputError(f"study: {study.study_name!r} holds {key!r}, which is not of its form")
    for trial in trials:
        if problem := _problem(trial):
            raise InputError(
                f"study: trial {trial.number} of {study.study_name!r} was not made by nas-recalib: {problem}"
            )


def read_all(study: optuna.Study) -> tuple[Mapping[str, Any], list[FrozenTrial]]:
    """A study's attributes and trials.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return study.user_attrs, study.get_trials(deepcopy=False)
    except Exception as error:  # of a damaged database Optuna raises whatever it stumbles over
        raise InputError(f"study: {study.study_name!r} cannot be read: {in_one_line(error)}") from error


def _is_sound(key: str, value: object) -> bool:
    if key == MEASURED:
        return isinstance(value, dict) and all(map(_is_positive, value.values()))
    if not key.startswith(PREFIX):
        return True
    if not isinstance(value, dict) or not _CONFIRMED.fullmatch(key):
        return False
    return is_accuracy(value["accuracy"]) if "accuracy" in value else is_line(value.get("failure"))


def _problem(trial: FrozenTrial) -> str:
    """What is wrong with a trial; nothing if all is well."""
    attributes = trial.user_attrs
    strange = [key for key, is_so in _FORMS.items() if key in attributes and not is_so(attributes[key])]
    if strange:
        return f"its {strange[0]} is not of its form"
    if not all(map(is_text, trial.params.values())):
        return "its parameters are not text"
    values = [value for value in trial.values or () if value is not None]
    if not all(map(is_accuracy, (*values[:1], *trial.intermediate_values.values()))):
        return "its accuracy is not from 0 to 1"
    if not all(map(is_number, values)):
        return "its values are not numbers"
    if trial.state not in FINISHED or REPLAYED in attributes:
        return ""
    if trial.state == TrialState.COMPLETE and not values:
        return "it has no accuracy"
    missing = [key for key in _OF_TRAINED if key not in attributes]
    return f"it has no {missing[0]}" if missing else ""
