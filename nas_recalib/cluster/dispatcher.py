"""Dispatcher of trainings to Ray actors, and the actor that trains on a node."""

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from ray import tune

from nas_recalib.cluster.connection import Resources
from nas_recalib.device import device_name
from nas_recalib.plugins import load_plugins
from nas_recalib.proxy.objective import Failure, explain
from nas_recalib.search.job import Job, Step

Train = Callable[[Job], Iterator[Step | Failure]]


@dataclass(frozen=True)
class Told:
    """What an actor tells of a job: the next thing its training yielded, or None where there is no more."""

    item: Step | Failure | None
    common_attrs: dict[str, Any]


class Actor(tune.Trainable):  # type: ignore[misc]
    """An actor, which trains one job after the other; a step is an epoch."""

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
        self._common_attrs = {"node": platform.node()}
        self._train: Train | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._items = self._run(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        item = next(self._items, None)
        return {"told": Told(item, self._common_attrs)}

    def _run(self, job: Job) -> Iterator[Step | Failure]:
        try:
            if self._train is None:
                load_plugins(self._plugins)
                self._train = self._begin(self._device)
                self._common_attrs["device"] = device_name(self._device)
            yield from self._train(job)
        except Exception as error:
            yield explain(error)


_POLL = 0.1  # seconds until a desk that has nothing to hand out is asked again
_LOOK = 1.0  # seconds for which the cluster's nodes are taken to stay the same


class Dispatcher(Protocol):
    """Hands out trainings and takes what comes of them, as a `Search` does; what it raises ends the run.

    Attributes:
        epochs: Of a whole training.
        done: Whether nothing is left to hand out, now or later.
    """

    @property
    def epochs(self) -> int: ...

    @property
    def done(self) -> bool: ...

    def next(self) -> Job | None:
        """A training that is to start at once; None where there is nothing to hand out just now."""

    def report(self, number: int, step: Step) -> bool:
        """Takes an epoch; whether the training ends there."""

    def end(self, number: int, common_attrs: Mapping[str, Any]) -> None:
        """Takes the end of a training, with the device and the node that it ran on."""

    def fail(self, number: int, failure: Failure) -> None:
        """Takes it that a training cannot go on."""

    def lose(self, number: int, message: str) -> None:
        """Takes the death of the actor or the node that a training ran on."""


class Reservation(BaseException):
    """Leaves Tune, which at an end of its own would write down and read again all of its trials.

    What the desk raised is taken along; Tune would wrap it, or swallow it.
    """

    def __init__(self, told: Exception | None = None) -> None:
        super().__init__(told)
        self.told = told


@contextmanager
def _past_tune() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Reservation(error) from error


class Bench:
    """The trainings that are out, in the process of the search."""

    def __init__(self, desk: Dispatcher, resources: Resources, workers: int | None) -> None:
        self._desk = desk
        self._resources = resources
        self._workers = workers
        self._out: set[int] = set()
        self._asked = self._looked = -math.inf
        self._places = 0
        self.controller: Any = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Nothing; Tune writes down what it is given, a desk cannot be, and no one reads it."""
        return object, ()

    def next(self) -> Job | None:
        """A job, if there is room for one; leaves when nothing is to come."""
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._places, self._looked = self._resources.places(), now
        room = self._places if self._workers is None else min(self._places, self._workers)
        if len(self._out) >= room or now - self._asked < _POLL:
            return None
        with _past_tune():
            job = self._desk.next()
            done = self._desk.done
        if done:
            raise Reservation
        if job is None:
            self._asked = now
        else:
            self._out.add(job.number)
        return job

    def told(self, job: Job, told: Told) -> bool:
        """Takes what a training yielded; whether it is over."""
        with _past_tune():
            if isinstance(told.item, Step):
                stop = self._desk.report(job.number, told.item)
                if not stop and told.item.epoch.number < self._desk.epochs:
                    return False
            self._let_go(job)
            if isinstance(told.item, Failure):
                self._desk.fail(job.number, told.item)
            else:
                self._desk.end(job.number, told.common_attrs)
        return True

    def broken(self, job: Job, failure: Failure) -> None:
        """Takes it that a training came to no word of its own."""
        self._let_go(job)
        with _past_tune():
            self._desk.fail(job.number, failure)

    def lost(self, job: Job, message: str) -> None:
        """Takes it that an actor is gone, maybe with its node."""
        self._let_go(job)
        self._looked = -math.inf
        with _past_tune():
            self._desk.lose(job.number, message)

    def clear(self) -> None:
        """Ends every actor, at once."""
        if self.controller:
            self.controller._actor_manager.cleanup()

    def _let_go(self, job: Job) -> None:
        self._out.remove(job.number)
        self._asked = -math.inf
