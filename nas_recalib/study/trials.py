"""Stored attributes of trials: their keys, their validation, and which trials count or continue others."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.costs import Budget
from nas_recalib.errors import InputError, in_one_line
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.study.statistics import PREFIX

_LONGEST = 100_000  # an architecture of hundreds of blocks has tens of thousands of letters
_GREATEST = 2**62


def is_text(value: object) -> bool:
    return type(value) is str


def is_line(value: object) -> bool:
    """Whether it is text that may be shown as it is."""
    return isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST


def is_integer(value: object, least: int = 0, most: int = _GREATEST) -> bool:
    return type(value) is int and least <= value <= most


def is_number(value: object, least: float = 0.0, most: float = _GREATEST) -> bool:
    return type(value) in (int, float) and least <= value <= most  # type: ignore[operator]


def is_any_number(value: object) -> bool:
    """Whether it is a number, be it none that is finite."""
    return type(value) is float or is_number(value, -_GREATEST)


def is_accuracy(value: object) -> bool:
    return is_number(value, 0, 1)


def require_types(sound: Mapping[str, bool]) -> None:
    """Raises TypeError naming the first key that is not of its form."""
    for key, is_so in sound.items():
        if not is_so:
            raise TypeError(f"{key} is not of its form")


def read_budget(content: Mapping[str, Any]) -> Budget:
    """What a study keeps of its budget.

    Raises:
        TypeError: If it is of another form.
    """
    require_types({f"budget.{key}": value is None or is_integer(value, 1) for key, value in content.items()})
    return Budget(**content)


def read_fidelity(content: Mapping[str, Any]) -> Fidelity:
    """What a study keeps of a fidelity.

    Raises:
        TypeError: If it is of another form.
        InputError: If a value is out of range.
    """
    if not isinstance(content, Mapping):
        raise TypeError("a fidelity is not of its form")
    whole = ("images", "validation", "resolution", "epochs")
    form = {
        f"fidelity.{key}": is_integer(content[key], 1, 2**31) for key in whole if content[key] is not None
    }
    require_types({**form, "fidelity.width": is_number(content["width"])})
    return Fidelity(**content)


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
FAILURE = "failure"  # kind of a failed trial's failure
ATTEMPT = "attempt"  # how often, with this one, its training was begun or gone on with after a worker died
PARTS = "parts"  # that each batch is split into, where a whole one did not fit into memory
OUR_OWN = ("architecture", CONTINUES, CURVE, TAKEN, REPLAYED, FAILURE, "message", ATTEMPT, PARTS)
ENQUEUED = "fixed_params"  # a system attribute: Optuna's, of a trial that somebody enqueued
BEAT = "nas_recalib:beat"  # a system attribute: a count that its worker raises, and when it did last
WITHDRAWN: Final = "withdrawn"  # a kind of failure: another worker was first
OF_ITS_OWN = ("out-of-memory", "diverged", "abandoned")  # kinds that come from the architecture
_PASSING = ("interrupted", "lost", WITHDRAWN)  # kinds that say nothing of the architecture


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were really trained, to the end or until they were given up or left."""
    return finished_of(study.get_trials(deepcopy=False))


def finished_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """As `finished`, of trials at hand."""
    return _last((trial for trial in trials if trial.state in FINISHED), trials)


def standing(study: optuna.Study) -> list[FrozenTrial]:
    """As `finished`, and what is being trained in the place of what that goes on from.

    A training that failed for a reason of its own takes what it went on from along; an interrupted one, or
    one whose worker died, does not.
    """
    trials = study.get_trials(deepcopy=False)
    lasting = (trial for trial in trials if failure_of(trial) not in _PASSING)
    return [trial for trial in _last(lasting, trials) if trial.state in (*FINISHED, TrialState.RUNNING)]


def trained_here(study: optuna.Study) -> list[FrozenTrial]:
    """As `finished`, without what was begun in another study."""
    return trained_here_of(study.get_trials(deepcopy=False))


def trained_here_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return what `trained_here` does, for trials at hand."""
    first, taken = first_trial_of(trials), warm_started(trials)
    return [trial for trial in finished_of(trials) if first(trial) not in taken]


def failure_of(trial: FrozenTrial) -> str | None:
    """Kind of a failed trial's failure; of another it may be written, where who wrote it got no further."""
    return trial.user_attrs.get(FAILURE, "error") if trial.state == TrialState.FAIL else None


def will_resume(trial: FrozenTrial) -> bool:
    """Whether a trial failed in a way after which its training is gone on with."""
    kind = failure_of(trial)
    if not trial.params or "architecture" not in trial.user_attrs or REPLAYED in trial.user_attrs:
        return False
    return kind in ("interrupted", "lost") or (kind == "out-of-memory" and PARTS not in trial.user_attrs)


def to_resume(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Failed trainings that are to be gone on with: interrupted, lost with their workers, or short of memory.

    What ran out of memory is owed once: with each batch in two parts. Nothing is owed that a younger trial
    has trained without saying what it goes on with, as in older studies.
    """
    broken_off = [trial for trial in trials if trial.state == TrialState.FAIL and will_resume(trial)]
    if not broken_off:
        return []
    resumed = {trial.user_attrs.get(CONTINUES) for trial in trials if failure_of(trial) != WITHDRAWN}
    youngest = {
        trial.user_attrs.get("architecture"): trial.number
        for trial in trials
        if trial.state in FINISHED and REPLAYED not in trial.user_attrs
    }
    return [
        trial
        for trial in broken_off
        if trial.number not in resumed and youngest.get(trial.user_attrs["architecture"], -1) < trial.number
    ]


def begun(trials: Sequence[FrozenTrial]) -> set[int]:
    """Trainings of this study that have ended, go on or are owed, each by the number of its first trial."""
    counted = [
        trial
        for trial in trials
        if trial.state in (*FINISHED, TrialState.RUNNING) and REPLAYED not in trial.user_attrs
    ]
    first = first_trial_of(trials)
    return {first(trial) for trial in (*counted, *to_resume(trials))} - warm_started(trials)


def warm_started(trials: Sequence[FrozenTrial]) -> set[int]:
    """Numbers of the trials that were taken over from another study."""
    return {trial.number for trial in trials if TAKEN in trial.user_attrs}


def first_trial_of(trials: Collection[FrozenTrial]) -> Callable[[FrozenTrial], int]:
    """What tells of a trial the number of the one that its training was begun as."""
    older = lineage(trials)
    return lambda trial: (trial.number, *older(trial))[-1]


def lineage(trials: Collection[FrozenTrial]) -> Callable[[FrozenTrial], tuple[int, ...]]:
    """What tells of a trial the numbers of those whose training it goes on with, the last first."""
    before = _before(trials)
    return lambda trial: tuple(_line(trial.number, before)) if trial.number in before else ()


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


def _before(trials: Collection[FrozenTrial]) -> dict[int, int]:
    return {trial.number: trial.user_attrs[CONTINUES] for trial in trials if CONTINUES in trial.user_attrs}


def _line(number: int, before: Mapping[int, int]) -> Iterator[int]:
    while 0 <= (one := before.get(number, -1)) < number:
        yield (number := one)


def _last(some: Iterator[FrozenTrial], trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Without what was replayed, and of those that go on from one another the last."""
    trained = [trial for trial in some if REPLAYED not in trial.user_attrs]
    older = lineage(trials)
    passed = {number for trial in trained for number in older(trial)}
    return [trial for trial in trained if trial.number not in passed]


MEASURED = "latency_ms"  # a study's attribute: milliseconds of its finalists, by their numbers
_CONFIRMED = re.compile(rf"{PREFIX}[0-9]{{1,9}}/[0-9]{{1,10}}")


def _is_positive(value: object) -> bool:
    return is_number(value, 1e-9)


def _is_curve(value: object) -> bool:
    return isinstance(value, list) and all(map(is_accuracy, value))


_FORMS: dict[str, Callable[[object], bool]] = {
    "architecture": is_line,
    "macs": lambda value: is_integer(value, 1),
    "params": lambda value: is_integer(value, 1),
    "predicted_latency_ms": _is_positive,
    "memory": lambda value: is_integer(value, 1),
    "seconds": is_number,
    "baseline": is_line,
    "failure": is_line,
    "message": is_text,
    "bracket": lambda value: is_integer(value, 0, 100),
    "worker": is_line,
    "node": is_line,
    "traceback": is_text,
    ATTEMPT: lambda value: is_integer(value, 1),
    PARTS: lambda value: is_integer(value, 1, 2),
    CONTINUES: is_integer,
    REPLAYED: is_integer,
    TAKEN: is_line,
    CURVE: _is_curve,
}
_OF_TRAINED = ("architecture", "macs", "params", "seconds")


def validate_study(study: optuna.Study) -> None:
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
