"""Status of a running study and details of one trial, from any machine that reaches its storage."""

import time
from collections import Counter
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


@dataclass(frozen=True)
class RunningTrial:
    """A trial that is being trained, or that a dead worker has left so.

    Attributes:
        number: Optuna's.
        worker: The machine and the process.
        architecture: In its canonical form.
        operators: How many blocks take each operator.
        epochs: Reported so far.
        accuracy: At the last of them.
        seconds: Since it was begun.
        silent: Seconds since its worker's last heartbeat, by this machine's clock; None where there is none,
            as of a search that has its storage to itself.
    """

    number: int
    worker: str
    architecture: str
    operators: str
    epochs: int
    accuracy: float | None
    seconds: float
    silent: float | None


@dataclass(frozen=True)
class StudyStatus:
    """A search in short.

    Attributes:
        study: Its name.
        trained: Number of architectures trained, to the end or until they were given up or left.
        transferred: Number of architectures whose training was begun in another study.
        epochs: Of a whole training.
        best: Number and accuracy of the best trial that ran to the end.
        per_hour: Trials ended in the last hour.
        running: What is being trained.
        waiting: Trials that someone enqueued.
        to_resume: Trials that were broken off and not gone on with yet.
        failures: How many trials failed, by kind.
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
        return asdict(self)


@dataclass(frozen=True)
class TrialDetails:
    """All that a study knows of a trial.

    Attributes:
        number: Optuna's.
        state: running, complete, pruned, fail or waiting.
        begun: When, in the storage's time.
        ended: When.
        curve: Accuracies after each epoch.
        attributes: Everything else that is kept with it.
        traceback: Of the error that it ended in.
        continued_by: Number of the trial that went on with it.
    """

    number: int
    state: str
    begun: str | None
    ended: str | None
    curve: tuple[float, ...]
    attributes: dict[str, Any]
    traceback: str
    continued_by: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_status(study: optuna.Study) -> StudyStatus:
    """Reads a study.

    Raises:
        InputError: If it was not made by this package.
    """
    config = read_config(study)
    if config is None:
        raise InputError(f"study: {study.study_name!r} was not made by nas-recalib")
    validate_study(study)
    trials = study.get_trials(deepcopy=False)
    done, here = finished_of(trials), trained_here_of(trials)
    complete = [(accuracy_of(one), -one.number) for one in done if one.state == TrialState.COMPLETE]
    now = datetime.now()
    hour = timedelta(hours=1)
    recent = [one for one in done if one.datetime_complete and now - one.datetime_complete < hour]
    kinds = map(failure_of, trials)
    return StudyStatus(
        study=study.study_name,
        trained=len(here),
        transferred=len(done) - len(here),
        epochs=config.fidelity.epochs,
        best=(-max(complete)[1], max(complete)[0]) if complete else None,
        per_hour=len(recent),
        running=tuple(_running(one, now) for one in trials if one.state == TrialState.RUNNING),
        waiting=sum(one.state == TrialState.WAITING for one in trials),
        to_resume=len(to_resume(trials)),
        failures=dict(Counter(kind for kind in kinds if kind not in (None, WITHDRAWN))),
    )


def find_trial(study: optuna.Study, number: int) -> TrialDetails:
    """Everything about one trial.

    Raises:
        InputError: If there is none of that number.
    """
    validate_study(study)
    trials = study.get_trials(deepcopy=False)
    trial = next((one for one in trials if one.number == number), None)
    if trial is None:
        there = f"0 to {len(trials) - 1}" if trials else "none yet"
        raise InputError(f"trial: {number} is not in study {study.study_name!r}; there are {there}")
    attributes = dict(trial.user_attrs)
    resumed_attributes = (one.number for one in trials if one.user_attrs.get(RESUMED_FROM) == number)
    return TrialDetails(
        number=number,
        state=trial.state.name.lower(),
        begun=_told(trial.datetime_start),
        ended=_told(trial.datetime_complete),
        curve=tuple(curve_of(trial)),
        traceback=str(attributes.pop("traceback", "")),
        attributes=attributes,
        continued_by=next(resumed_attributes, None),
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
        silent=None if heartbeat is None else time.time() - heartbeat,
    )


def _operators(architecture: str) -> str:
    """Return how many blocks take each operator; by whole choices where some are not loaded."""
    try:
        return Architecture.parse(architecture).operators()
    except ValueError:
        choices = [item.split("=", 1)[1] for item in architecture.split() if "=" in item]
        return ", ".join(f"{count} {choice}" for choice, count in Counter(choices).most_common())


def _told(when: datetime | None) -> str | None:
    return when.isoformat(sep=" ", timespec="seconds") if when else None
