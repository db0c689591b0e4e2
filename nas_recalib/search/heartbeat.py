"""Heartbeats of running trials: how a worker finds the stale trials of workers that died."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from nas_recalib.study.location import worker_has_ended
from nas_recalib.study.trials import HEARTBEAT

INTERVAL = 20.0  # seconds between two heartbeats
GRACE = 60.0  # seconds without a heartbeat until a trial is suspected to be stale
_SUSPECTED_BEATS = 3  # intervals until a suspected trial is stale


class Heartbeat(Protocol):
    """Heartbeat that keeps this worker's trials alive and finds the stale trials of others."""

    def keep_alive(self, trial_id: int) -> None:
        """Start heartbeats for a trial of this worker."""

    def release(self, trial_id: int) -> None:
        """Stop the heartbeats of a trial."""

    def stale_trials(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Return those of other workers' running trials whose workers have died."""


class SingleProcess:
    """Heartbeat of a study that one process writes to: all other running trials are stale."""

    def keep_alive(self, trial_id: int) -> None: ...

    def release(self, trial_id: int) -> None: ...

    def stale_trials(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return list(running)


@dataclass
class _LastBeat:
    value: object
    seen: float
    suspected: float | None = None


@dataclass
class StorageHeartbeat:
    """Heartbeat in the storage: a counter that each worker increments in its trials.

    Clocks of different machines are never compared. A trial is suspected when its counter has not changed for
    the grace period by this worker's clock, and stale if it does not change for a few more intervals; the
    second wait keeps trials alive through an outage of the storage, after which all counters are old. Workers
    on this machine are known to have ended by their locks, at once.

    Attributes:
        storage: Storage of the study.
        folder: Folder of the study on this machine.
        interval: Seconds between two heartbeats.
        grace: Seconds without a heartbeat until a trial is suspected to be stale.
        clock: Monotonic clock, in seconds.
    """

    storage: BaseStorage
    folder: Path
    interval: float = INTERVAL
    grace: float = GRACE
    clock: Callable[[], float] = time.monotonic
    _own: set[int] = field(default_factory=set)
    _last_beats: dict[int, _LastBeat] = field(default_factory=dict)
    _count: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "StorageHeartbeat":
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def keep_alive(self, trial_id: int) -> None:
        self._own.add(trial_id)

    def release(self, trial_id: int) -> None:
        self._own.discard(trial_id)

    def stale_trials(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        now = self.clock()
        before, self._last_beats = self._last_beats, {}
        for trial in running:
            value = (trial.system_attrs.get(HEARTBEAT), len(trial.intermediate_values))
            last = before.get(trial.number)
            self._last_beats[trial.number] = last if last and last.value == value else _LastBeat(value, now)
        return [trial for trial in running if self._is_stale(trial, now)]

    def _is_stale(self, trial: FrozenTrial, now: float) -> bool:
        worker: Any = trial.user_attrs.get("worker")
        if isinstance(worker, str) and worker_has_ended(self.folder, worker):
            return True
        last = self._last_beats[trial.number]
        if last.suspected is None and now - last.seen >= self.grace:
            last.suspected = now
        return last.suspected is not None and now - last.suspected >= _SUSPECTED_BEATS * self.interval

    def beat(self) -> None:
        """Send a heartbeat for all trials of this worker."""
        self._count += 1
        for trial_id in tuple(self._own):
            with suppress(Exception):  # the main thread reports problems of the storage
                self.storage.set_trial_system_attr(trial_id, HEARTBEAT, [self._count, time.time()])

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self.beat()
