"""One piece of a correlation study's work, done in a process of its own."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from functools import cache
from multiprocessing import parent_process
from pathlib import Path

import torch

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.correlation.plan import Plan, Task
from nas_recalib.data import Resident, load_resident, open_source
from nas_recalib.device import keep_freed_memory
from nas_recalib.plugins import load_plugins
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.scores import score_network
from nas_recalib.proxy.train import default_recipe, normalise

_BATCH = 64  # images that scores look at


@dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes:
        task: Which.
        seconds: Taken, all in all.
        accuracies: On the validation images after each epoch.
        losses: Mean training loss of each epoch.
        scores: Value and seconds of each.
        failure: Why a training has no value.
    """

    task: Task
    seconds: float
    accuracies: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    scores: dict[str, tuple[float, float]] | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Loader:
    """How images are decoded.

    Attributes:
        data: Name of a data set.
        cache: Folder that downloads and decoded images are kept in.
        corrupt: What to do about images that cannot be decoded: refuse or skip.
        seed: Of the split.
    """

    data: str
    cache: Path
    corrupt: str
    seed: int

    def load(self, fidelity: Fidelity) -> Resident:
        """What a fidelity needs, on the CPU; decoded once, from then on read from the cache.

        Raises:
            InputError: If an image cannot be decoded, and such are refused, or there are too few.
        """
        sizes = (fidelity.resolution, fidelity.images, fidelity.validation)
        source = open_source(self.data, self.cache)
        return load_resident(source, *sizes, self.seed, cache=self.cache, corrupt=self.corrupt)


class Worker:
    """Does the tasks of one plan; images stay on the device from one to the next."""

    def __init__(self, plan: Plan, images: Loader, device: str) -> None:
        load_plugins(plan.plugins)
        torch.set_num_threads(plan.threads)
        keep_freed_memory()
        self._plan = plan
        self._device = torch.device(device)
        self._resident = cache(lambda fidelity: images.load(fidelity).to(self._device))

    def do(self, task: Task, architecture: Architecture) -> Done:
        start = time.monotonic()
        if task.scores:
            scores = self._scores(task, architecture)
            return Done(task, round(time.monotonic() - start, 2), scores=scores)
        fidelity = self._plan.fidelity(task.fidelity)
        data = self._resident(fidelity)
        proxy = Proxy(
            data=data,
            width=fidelity.width,
            epochs=fidelity.epochs,
            recipe=default_recipe(len(data.train_labels)),
            dtype=getattr(torch, self._plan.dtype),
            seed=task.seed,
        )
        curve = proxy.train(architecture, lambda _: False)
        seconds = round(time.monotonic() - start, 2)
        if isinstance(curve, Failure):
            return Done(task, seconds, failure=curve)
        return Done(task, seconds, tuple(e.accuracy for e in curve), tuple(e.loss for e in curve))

    def _scores(self, task: Task, architecture: Architecture) -> dict[str, tuple[float, float]]:
        fidelity = self._plan.reference
        data = self._resident(fidelity)
        shape = architecture.shape.twin(fidelity.width)
        network = build_seeded(shape, architecture.blocks, data.num_classes, 3, task.seed).to(self._device)
        images = normalise(data.train_images[:_BATCH], data)
        found = {}
        for name in task.scores:
            start = time.monotonic()
            value = score_network(name, network, images, data.train_labels[:_BATCH], seed=task.seed)
            found[name] = (value, round(time.monotonic() - start, 4))
        return found


_worker: Worker | None = None


def begin(plan: Plan, images: Loader, device: str) -> None:
    """Makes this process a worker that ends with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    threading.Thread(target=_follow_parent, daemon=True).start()
    global _worker
    _worker = Worker(plan, images, device)


def do(task: Task, architecture: str) -> Done:
    """A task in a process that `begin` has made a worker."""
    assert _worker is not None
    return _worker.do(task, Architecture.parse(architecture))


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
