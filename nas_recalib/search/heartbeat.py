"""Heartbeats of running trials: how the trials of dead workers are noticed."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from nas_recalib.study.trials import HEARTBEAT
from nas_recalib.study.worker_lock import worker_has_ended

SECONDS = 20.0  # seconds between two signs of life
GRACE = 60.0  # without one, after which a worker is suspected
_SUSPECTED_BEATS = 3  # after which it is taken for dead


class Heartbeat(Protocol):
    """Keeps this worker's trials alive, and finds those that are not."""

    def hold(self, trial: int) -> None:
        """Takes a trial, by its identity in the storage, as this worker's."""

    def let_go(self, trial: int) -> None:
        """Has it be nobody's."""

    def dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Of the trials of others those whose workers have died."""


class SingleProcess:
    """On a study that no other process can write to, what runs and is not this one's has lost its worker."""

    def hold(self, trial: int) -> None: ...

    def let_go(self, trial: int) -> None: ...

    def dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return list(running)


@dataclass
class _Watched:
    sign: object
    since: float
    suspected: float | None = None


@dataclass
class StorageHeartbeat:
    """Signs of life in the storage, a count that each worker raises in its trials.

    Clocks of different machines are not compared: a trial is suspected when its count has stood still for the
    whole grace by this worker's clock, and has died if it still does a few beats later; so nobody dies of a
    time without storage, after which all counts are old. Workers of this machine are known to have ended by
    their locks, at once.

    Attributes:
        storage: Of the study.
        folder: Of the study, on this machine.
        beat: Seconds between two signs.
        grace: Seconds without one.
        now: A clock that never goes back.
    """

    storage: BaseStorage
    folder: Path
    beat: float = SECONDS
    grace: float = GRACE
    now: Callable[[], float] = time.monotonic
    _held: set[int] = field(default_factory=set)
    _watched: dict[int, _Watched] = field(default_factory=dict)
    _count: int = 0
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "StorageHeartbeat":
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()

    def hold(self, trial: int) -> None:
        self._held.add(trial)

    def let_go(self, trial: int) -> None:
        self._held.discard(trial)

    def dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        now = self.now()
        before, self._watched = self._watched, {}
        for trial in running:
            sign = (trial.system_attrs.get(HEARTBEAT), len(trial.intermediate_values))
            known = before.get(trial.number)
            self._watched[trial.number] = known if known and known.sign == sign else _Watched(sign, now)
        return [trial for trial in running if self._gone(trial, now)]

    def _gone(self, trial: FrozenTrial, now: float) -> bool:
        worker: Any = trial.user_attrs.get("worker")
        if isinstance(worker, str) and worker_has_ended(self.folder, worker):
            return True
        watched = self._watched[trial.number]
        if watched.suspected is None and now - watched.since >= self.grace:
            watched.suspected = now
        return watched.suspected is not None and now - watched.suspected >= _SUSPECTED_BEATS * self.beat

    def sign(self) -> None:
        """Gives a sign of life."""
        self._count += 1
        for trial in tuple(self._held):
            with suppress(Exception):  # of a storage's troubles the main thread tells
                self.storage.set_trial_system_attr(trial, HEARTBEAT, [self._count, time.time()])

    def _beat(self) -> None:
        while not self._end.wait(self.beat):
            self.sign()
