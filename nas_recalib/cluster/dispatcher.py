"""Dispatcher that gives jobs to Ray actors while slots are free, and the actor that trains on a node."""

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from nas_recalib.cluster.connection import Resources
from nas_recalib.device import device_name
from nas_recalib.plugins import load_plugins
from nas_recalib.proxy.objective import Failure, explain
from nas_recalib.search.job import Job, Step
from nas_recalib.search.search import Search

Train = Callable[[Job], Iterator[Step | Failure]]

_POLL = 0.1  # seconds until a job source that had no job is asked again
_SLOTS_VALID = 1.0  # seconds for which the number of slots is not counted again


@dataclass(frozen=True)
class ActorResult:
    """Result of one step of an actor, in one object because Tune flattens dictionaries.

    Attributes:
        item: Next epoch or failure of the training, or None after the last one.
        attrs: User attributes of the trial that depend on where it runs (device, node).
    """

    item: Step | Failure | None
    attrs: dict[str, Any]


class Actor(tune.Trainable):  # type: ignore[misc]
    """Ray actor that trains one job after the other, an epoch in each step."""

    def setup(
        self,
        config: dict[str, Any],
        begin: Callable[[torch.device], Train],
        resources: Resources,
        plugins: Sequence[str],
    ) -> None:
        torch.set_num_threads(resources.cpus)
        self._device = torch.device("cuda:0" if resources.gpus else "cpu")
        self._begin = begin
        self._plugins = plugins
        self._attrs = {"node": platform.node()}
        self._train: Train | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._items = self._run(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        return {"actor_result": ActorResult(next(self._items, None), self._attrs)}

    def _run(self, job: Job) -> Iterator[Step | Failure]:
        try:
            if self._train is None:
                load_plugins(self._plugins)
                self._train = self._begin(self._device)
                self._attrs["device"] = device_name(self._device)
            yield from self._train(job)
        except Exception as error:
            yield explain(error)


class EndRun(BaseException):
    """Signal that leaves Tune at once, where a regular end would write and read all of its trials.

    Args:
        error: Error of the search, which Tune would wrap or swallow.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def _errors_end_run() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise EndRun(error) from error


class Dispatcher:
    """Dispatcher of jobs to actors, in the process of the search.

    Args:
        source: Search that hands out jobs; another object needs its methods `next_job`, `report`, `finish`,
            `fail` and `mark_lost`, and its attributes `done` and `epochs`.
        resources: Resources of each training.
        workers: Greatest number of trainings at once (default: as many as the cluster has slots for).

    Attributes:
        controller: Tune's controller of the run, once it has started.
    """

    def __init__(self, source: Search, resources: Resources, workers: int | None) -> None:
        self._source = source
        self._resources = resources
        self._workers = math.inf if workers is None else workers
        self._running: set[int] = set()
        self._no_job_since = self._counted = -math.inf
        self._slots = 0
        self.controller: Any = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Pickle as nothing, since Tune saves what cannot be pickled here and never restores it."""
        return object, ()

    def next_job(self) -> Job | None:
        """Return a job if there is a free slot, and end the run when the source is done."""
        now = time.monotonic()
        if now - self._counted > _SLOTS_VALID:
            self._slots, self._counted = self._resources.slots(), now
        if len(self._running) >= min(self._slots, self._workers) or now - self._no_job_since < _POLL:
            return None
        with _errors_end_run():
            job = self._source.next_job()
            done = self._source.done
        if done:
            raise EndRun
        if job is None:
            self._no_job_since = now
        else:
            self._running.add(job.number)
        return job

    def take_result(self, job: Job, result: ActorResult) -> bool:
        """Pass a result on to the source, and return whether the training has ended."""
        if isinstance(result.item, Failure):
            self.fail(job, result.item)
            return True
        with _errors_end_run():
            if result.item is not None:
                stop = self._source.report(job.number, result.item)
                if not stop and result.item.epoch.number < self._source.epochs:
                    return False
            self._free_slot(job)
            self._source.finish(job.number, result.attrs)
        return True

    def fail(self, job: Job, failure: Failure) -> None:
        """Pass the failure of a training on to the source."""
        self._free_slot(job)
        with _errors_end_run():
            self._source.fail(job.number, failure)

    def mark_lost(self, job: Job, message: str) -> None:
        """Pass the loss of a training on to the source, and count the slots again."""
        self._free_slot(job)
        self._counted = -math.inf
        with _errors_end_run():
            self._source.mark_lost(job.number, message)

    def _free_slot(self, job: Job) -> None:
        self._running.remove(job.number)
        self._no_job_since = -math.inf
