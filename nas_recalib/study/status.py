"""Status of a study and details of one trial, as `nas-recalib status` shows them."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.study.location import read_config
from nas_recalib.study.trials import (
    RESUMED_FROM,
    WITHDRAWN,
    accuracy_of,
    curve_of,
    failure_of,
    finished_of,
    last_heartbeat,
    to_resume,
    trained_here_of,
    validate_study,
)

_JSON_KEYS = {  # keys of the JSON output that differ from the names of the fields
    "heartbeat_age": "silent",
    "to_resume": "owed",
    "started": "begun",
    "finished": "ended",
    "resumed_by": "continued_by",
}


@dataclass(frozen=True)
class RunningTrial:
    """A trial in the state RUNNING: it is being trained, or its worker died.

    Attributes:
        number: Number of the trial.
        worker: Host and token of the worker.
        architecture: Architecture as text.
        operators: How many blocks take each operator.
        epochs: Number of epochs reported so far.
        accuracy: Accuracy at the last reported epoch; None before the first.
        seconds: Seconds since the trial was started.
        heartbeat_age: Seconds since the worker's last heartbeat, by this machine's clock; None if there is
            none, as in a search with a single process.
    """

    number: int
    worker: str
    architecture: str
    operators: str
    epochs: int
    accuracy: float | None
    seconds: float
    heartbeat_age: float | None


@dataclass(frozen=True)
class StudyStatus:
    """Progress of a search.

    Attributes:
        study: Name of the study.
        trained: Number of architectures trained, including pruned ones.
        transferred: Number of architectures whose training was started in another study.
        epochs: Number of epochs of a complete training.
        best: Number and accuracy of the most accurate complete trial; None if there is none.
        per_hour: Number of trials that finished in the last hour.
        running: Trials in the state RUNNING.
        waiting: Number of enqueued trials.
        to_resume: Number of interrupted trials that are to be resumed.
        failures: Number of failed trials by kind of failure.
    """

    study: str
    trained: int
    transferred: int
    epochs: int
    best: tuple[int, float] | None
    per_hour: int
    running: tuple[RunningTrial, ...]
    waiting: int
    to_resume: int
    failures: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self, dict_factory=_with_json_keys)


@dataclass(frozen=True)
class TrialDetails:
    """Everything that a study stores about one trial.

    Attributes:
        number: Number of the trial.
        state: State of the trial: running, complete, pruned, fail or waiting.
        started: Date and time of the start, by the clock of its worker.
        finished: Date and time of the end, by the clock of its worker.
        curve: Accuracy after each epoch.
        attributes: All other user attributes.
        traceback: Traceback of the error that ended the trial; empty if none did.
        resumed_by: Number of the trial that resumed it, if any.
    """

    number: int
    state: str
    started: str | None
    finished: str | None
    curve: tuple[float, ...]
    attributes: dict[str, Any]
    traceback: str
    resumed_by: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self, dict_factory=_with_json_keys)


def read_status(study: optuna.Study) -> StudyStatus:
    """Read the status of a search from its study.

    Raises:
        InputError: If the study was not made by this package.
    """
    config = read_config(study)
    if config is None:
        raise InputError(f"study: {study.study_name!r} was not made by nas-recalib")
    validate_study(study)
    trials = study.get_trials(deepcopy=False)
    done, here = finished_of(trials), trained_here_of(trials)
    complete = [trial for trial in done if trial.state == TrialState.COMPLETE]
    best = max(complete, key=lambda trial: (accuracy_of(trial), -trial.number), default=None)
    now = datetime.now()
    hour_ago = now - timedelta(hours=1)
    return StudyStatus(
        study=study.study_name,
        trained=len(here),
        transferred=len(done) - len(here),
        epochs=config.fidelity.epochs,
        best=None if best is None else (best.number, accuracy_of(best)),
        per_hour=sum(
            trial.datetime_complete is not None and trial.datetime_complete > hour_ago for trial in done
        ),
        running=tuple(_running(trial, now) for trial in trials if trial.state == TrialState.RUNNING),
        waiting=sum(trial.state == TrialState.WAITING for trial in trials),
        to_resume=len(to_resume(trials)),
        failures=count_failures(trials),
    )


def count_failures(trials: Iterable[FrozenTrial]) -> dict[str, int]:
    """Return the number of failed trials by kind of failure, without withdrawn duplicates."""
    return dict(Counter(kind for kind in map(failure_of, trials) if kind not in (None, WITHDRAWN)))


def find_trial(study: optuna.Study, number: int) -> TrialDetails:
    """Return everything that a study stores about one trial.

    Raises:
        InputError: If there is no trial of that number.
    """
    validate_study(study)
    trials = study.get_trials(deepcopy=False)
    trial = next((trial for trial in trials if trial.number == number), None)
    if trial is None:
        existing = f"0 to {len(trials) - 1}" if trials else "none yet"
        raise InputError(f"trial: {number} is not in study {study.study_name!r}; there are {existing}")
    attributes = dict(trial.user_attrs)
    resuming = (other.number for other in trials if other.user_attrs.get(RESUMED_FROM) == number)
    return TrialDetails(
        number=number,
        state=trial.state.name.lower(),
        started=_format_time(trial.datetime_start),
        finished=_format_time(trial.datetime_complete),
        curve=tuple(curve_of(trial)),
        traceback=str(attributes.pop("traceback", "")),
        attributes=attributes,
        resumed_by=next(resuming, None),
    )


def _running(trial: FrozenTrial, now: datetime) -> RunningTrial:
    curve = curve_of(trial)
    architecture = str(trial.user_attrs.get("architecture", ""))
    heartbeat = last_heartbeat(trial)
    return RunningTrial(
        number=trial.number,
        worker=str(trial.user_attrs.get("worker", "")),
        architecture=architecture,
        operators=_operators(architecture),
        epochs=len(curve),
        accuracy=curve[-1] if curve else None,
        seconds=(now - trial.datetime_start).total_seconds() if trial.datetime_start else 0.0,
        heartbeat_age=None if heartbeat is None else time.time() - heartbeat,
    )


def _operators(architecture: str) -> str:
    """Return how many blocks take each operator, or each block choice if a plugin is not loaded."""
    try:
        return Architecture.parse(architecture).operators()
    except ValueError:
        choices = [item.split("=", 1)[1] for item in architecture.split() if "=" in item]
        return ", ".join(f"{count} {choice}" for choice, count in Counter(choices).most_common())


def _format_time(when: datetime | None) -> str | None:
    return when.isoformat(sep=" ", timespec="seconds") if when else None


def _with_json_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {_JSON_KEYS.get(key, key): value for key, value in items}
