"""Stored attributes of trials: their keys, their validation, and which trials count or resume others."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from nas_recalib.errors import InputError, in_one_line
from nas_recalib.study import stored
from nas_recalib.study.statistics import PREFIX

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
ACCURACY = "accuracy"  # the first objective of every search
COST_ATTRIBUTES = {  # name of a cost: user attribute of trials that holds it
    "macs": "macs",
    "params": "params",
    "latency": "predicted_latency_ms",
    "memory": "memory",
}
# User attributes of trials; stored studies spell the keys as here.
RESUMED_FROM = "continues"  # number of the trial whose training this one resumes
CURVE = "curve"  # accuracies after each epoch, as Optuna takes none under several objectives
WARM_STARTED_FROM = "taken_from"  # study and number of the trial that a warm start copied
CACHED_FROM = "replayed_from"  # number of the trial whose result answered this proposal
FAILURE = "failure"  # kind of a failed trial's failure
ATTEMPT = "attempt"  # number of workers that have trained it, as each but the last died
MICRO_BATCHES = "parts"  # number of micro-batches of a batch that did not fit into memory
RESERVED_ATTRIBUTES = (
    "architecture",
    RESUMED_FROM,
    CURVE,
    WARM_STARTED_FROM,
    CACHED_FROM,
    FAILURE,
    "message",
    ATTEMPT,
    MICRO_BATCHES,
)
# System attributes of trials.
ENQUEUED = "fixed_params"  # Optuna's mark of an enqueued trial
HEARTBEAT = "nas_recalib:beat"  # a count that the worker raises, and the time when it last did
# User attributes of studies.
MEASURED = "latency_ms"  # measured milliseconds of the finalists, by the numbers of their trials
ONE_SHOT = "oneshot:"  # prefix, before the number of a round of scores by supernets

# Kinds of failure.
WITHDRAWN: Final = "withdrawn"  # another worker had started the same architecture before
ARCHITECTURE_FAILURES = ("out-of-memory", "diverged", "abandoned")  # caused by the architecture
_TRANSIENT_FAILURES = ("interrupted", "lost", WITHDRAWN)  # not caused by the architecture


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return a study's trained trials, complete or pruned; of those that resume one another only the last.

    Results from cache are not among them.
    """
    return finished_of(study.get_trials(deepcopy=False))


def finished_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return what `finished` does from the trials of a study."""
    return _last_of_lineages((trial for trial in trials if trial.state in FINISHED), trials)


def finished_or_running(study: optuna.Study) -> list[FrozenTrial]:
    """Return a study's finished trials, with a running trial in place of the one that it resumes.

    If the resuming trial fails because of its architecture, neither counts; if it was interrupted or its
    worker died, the resumed one counts again.
    """
    trials = study.get_trials(deepcopy=False)
    lasting = (trial for trial in trials if failure_of(trial) not in _TRANSIENT_FAILURES)
    counted = (*FINISHED, TrialState.RUNNING)
    return [trial for trial in _last_of_lineages(lasting, trials) if trial.state in counted]


def trained_here(study: optuna.Study) -> list[FrozenTrial]:
    """Return a study's finished trials without those that a warm start copied, or that resume such a copy."""
    return trained_here_of(study.get_trials(deepcopy=False))


def trained_here_of(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return what `trained_here` does from the trials of a study."""
    first, copied = first_trial_of(trials), warm_started(trials)
    return [trial for trial in finished_of(trials) if first(trial) not in copied]


def failure_of(trial: FrozenTrial) -> str | None:
    """Return the kind of a failed trial's failure, and None for a trial in another state.

    A worker writes the kind before it changes the state, so a trial that carries a kind need not have failed.
    """
    return trial.user_attrs.get(FAILURE, "error") if trial.state == TrialState.FAIL else None


def will_resume(trial: FrozenTrial) -> bool:
    """Return whether a trial failed in such a way that another trial is to resume its training.

    Interrupted trainings and those of dead workers are resumed; one that ran out of memory is retried once,
    with micro-batches.
    """
    kind = failure_of(trial)
    if not trial.params or "architecture" not in trial.user_attrs or CACHED_FROM in trial.user_attrs:
        return False
    return kind in ("interrupted", "lost") or (
        kind == "out-of-memory" and MICRO_BATCHES not in trial.user_attrs
    )


def to_resume(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the failed trials that are to be resumed and that no trial has resumed yet.

    In older studies a trial does not say which one it resumes: a failed trial counts as resumed if its
    architecture was trained in a later trial.
    """
    resumable = [trial for trial in trials if trial.state == TrialState.FAIL and will_resume(trial)]
    if not resumable:
        return []
    resumed = {trial.user_attrs.get(RESUMED_FROM) for trial in trials if failure_of(trial) != WITHDRAWN}
    latest = {
        trial.user_attrs.get("architecture"): trial.number
        for trial in trials
        if trial.state in FINISHED and CACHED_FROM not in trial.user_attrs
    }
    return [
        trial
        for trial in resumable
        if trial.number not in resumed and latest.get(trial.user_attrs["architecture"], -1) < trial.number
    ]


def started(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the trainings that count towards `--trials`: finished, running or to be resumed.

    Returns:
        Number of each training's first trial, without copies of a warm start.
    """
    counted = [
        trial
        for trial in trials
        if trial.state in (*FINISHED, TrialState.RUNNING) and CACHED_FROM not in trial.user_attrs
    ]
    first = first_trial_of(trials)
    return {first(trial) for trial in (*counted, *to_resume(trials))} - warm_started(trials)


def warm_started(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that a warm start copied from another study."""
    return {trial.number for trial in trials if WARM_STARTED_FROM in trial.user_attrs}


def first_trial_of(trials: Collection[FrozenTrial]) -> Callable[[FrozenTrial], int]:
    """Return a function that gives the number of the trial in which a trial's training started."""
    earlier = lineage(trials)
    return lambda trial: (trial.number, *earlier(trial))[-1]


def lineage(trials: Collection[FrozenTrial]) -> Callable[[FrozenTrial], tuple[int, ...]]:
    """Return a function that gives the numbers of the trials that a trial resumes, the latest first."""
    resumed_from = {
        trial.number: trial.user_attrs[RESUMED_FROM] for trial in trials if RESUMED_FROM in trial.user_attrs
    }

    def earlier(trial: FrozenTrial) -> tuple[int, ...]:
        numbers, number = [], trial.number
        while 0 <= (before := resumed_from.get(number, -1)) < number:
            numbers.append(number := before)
        return tuple(numbers)

    return earlier


def _last_of_lineages(chosen: Iterable[FrozenTrial], trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the chosen trials without results from cache and without those that another of them resumes."""
    trained = [trial for trial in chosen if CACHED_FROM not in trial.user_attrs]
    earlier = lineage(trials)
    resumed = {number for trial in trained for number in earlier(trial)}
    return [trial for trial in trained if trial.number not in resumed]


def cost_attributes(cost: Mapping[str, int]) -> dict[str, Any]:
    """Return the user attributes that hold a cost; a latency, which is predicted, is in milliseconds."""
    values = {name: value / 1e6 if name == "latency" else value for name, value in cost.items()}
    return {COST_ATTRIBUTES[name]: value for name, value in values.items()}


def accuracy_of(trial: FrozenTrial) -> float:
    """Return the accuracy after the last epoch trained, from 0 to 1; 0 before the first epoch."""
    return float(trial.values[0]) if trial.values else 0.0


def curve_of(trial: FrozenTrial) -> list[float]:
    """Return the learning curve of a trial: its accuracy after each epoch."""
    steps = sorted(trial.intermediate_values.items())
    return [value for _, value in steps] or list(trial.user_attrs.get(CURVE, ()))


def last_heartbeat(trial: FrozenTrial) -> float | None:
    """Return the time of a trial's last heartbeat in seconds since the epoch, or None if it has none."""
    match trial.system_attrs.get(HEARTBEAT):
        case [_, int() | float() as seconds] if 0 <= seconds < 2**62:
            return seconds
    return None


@with_config(stored.STRICT_VALUES)
class _TrialAttributes(TypedDict, total=False):
    architecture: stored.Line
    macs: stored.PositiveCount
    params: stored.PositiveCount
    predicted_latency_ms: stored.PositiveNumber
    memory: stored.PositiveCount
    seconds: stored.Number
    baseline: stored.Line
    failure: stored.Line
    message: str
    bracket: Annotated[int, Field(ge=0, le=100)]
    worker: stored.Line
    node: stored.Line
    traceback: str
    attempt: stored.PositiveCount
    parts: Annotated[int, Field(ge=1, le=2)]
    continues: stored.Count
    replayed_from: stored.Count
    taken_from: stored.Line
    curve: list[stored.Accuracy]


def _accuracy_first(values: list[float | None] | None) -> list[float | None] | None:
    accuracy = next((value for value in values or () if value is not None), 0)
    if accuracy > 1:
        raise ValueError(f"the accuracy {accuracy} is above 1")
    return values


class _StoredTrial(BaseModel):
    """Form of a trial of a search; attributes of other names are allowed."""

    model_config = ConfigDict(strict=True, from_attributes=True)

    user_attrs: _TrialAttributes
    params: dict[str, str]
    values: Annotated[list[stored.Number | None] | None, AfterValidator(_accuracy_first)]
    intermediate_values: dict[int, stored.Accuracy]


@with_config(stored.STRICT_VALUES)
class _StoredConfirmation(TypedDict, total=False):
    accuracy: stored.Accuracy
    failure: stored.Line


_REQUIRED = ("architecture", "macs", "params", "seconds")  # attributes of a trained trial
_CONFIRMATION_KEY = re.compile(rf"{PREFIX}[0-9]{{1,9}}/[0-9]{{1,10}}")
_MEASURED = TypeAdapter(dict[str, stored.PositiveNumber], config=stored.STRICT_VALUES)
_CONFIRMATION = TypeAdapter(_StoredConfirmation)
_SCORES = TypeAdapter(  # indices of each subnet, then accuracy and loss by each supernet
    list[
        tuple[list[stored.Count], Annotated[list[tuple[stored.Accuracy, stored.Number]], Field(min_length=1)]]
    ]
)


def validate_study(study: optuna.Study) -> None:
    """Validate all attributes and trials of a search before any of them is used.

    Raises:
        InputError: If the study cannot be read, or contains what nas-recalib does not write; the key and, if
            it is one of a trial, the trial are named.
    """
    validate_contents(study, _validate_attribute, _validate_trial)


def validate_contents(
    study: optuna.Study,
    validate_attribute: Callable[[str, object], object],
    validate_trial: Callable[[FrozenTrial], object],
) -> None:
    """Validate all attributes and trials of a study.

    Args:
        study: Study of any kind.
        validate_attribute: Function that raises ValueError for the key and value of a bad attribute.
        validate_trial: Function that raises ValueError for a bad trial.

    Raises:
        InputError: In place of the ValueError, or if the study cannot be read.
    """
    attributes, trials = read_all(study)
    name, checked = study.study_name, ""
    try:
        for key, value in attributes.items():
            checked = f"attribute {key!r} of {name!r}"
            validate_attribute(key, value)
        for trial in trials:
            checked = f"trial {trial.number} of {name!r}"
            validate_trial(trial)
    except ValueError as error:
        raise InputError(
            f"study: {checked} was not written by nas-recalib: {stored.first_problem(error)}"
        ) from error


def read_all(study: optuna.Study) -> tuple[Mapping[str, Any], list[FrozenTrial]]:
    """Return the user attributes and the trials of a study.

    Raises:
        InputError: If the study cannot be read.
    """
    try:
        return study.user_attrs, study.get_trials(deepcopy=False)
    except Exception as error:  # Optuna raises various exceptions for a damaged database
        raise InputError(f"study: {study.study_name!r} cannot be read: {in_one_line(error)}") from error


def _validate_attribute(key: str, value: object) -> None:
    if key == MEASURED:
        _MEASURED.validate_python(value)
    elif key.startswith(ONE_SHOT):
        if not key.removeprefix(ONE_SHOT).isdecimal():
            raise ValueError(f"key should be '{ONE_SHOT}ROUND'")
        _SCORES.validate_python(value)
    elif key.startswith(PREFIX):
        if not _CONFIRMATION_KEY.fullmatch(key):
            raise ValueError(f"key should be '{PREFIX}TRIAL/SEED'")
        if not _CONFIRMATION.validate_python(value):
            raise ValueError("it has neither an accuracy nor a failure")


def _validate_trial(trial: FrozenTrial) -> None:
    _StoredTrial.model_validate(trial)
    if trial.state not in FINISHED or CACHED_FROM in trial.user_attrs:
        return
    missing = [key for key in _REQUIRED if key not in trial.user_attrs]
    if trial.state == TrialState.COMPLETE and all(value is None for value in trial.values or ()):
        missing = [ACCURACY]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
