"""One piece of a correlation study's work, done in a process of its own."""

import time
from dataclasses import dataclass

import torch

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.correlation.plan import Plan, Task
from nas_recalib.proxy.objective import Failure, explain
from nas_recalib.proxy.scores import score_network
from nas_recalib.proxy.train import normalise
from nas_recalib.proxy.trainer import Loader, Trainer

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
        failure: Why there is no value.
    """

    task: Task
    seconds: float
    accuracies: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    scores: dict[str, tuple[float, float]] | None = None
    failure: Failure | None = None


class Worker:
    """Does the tasks of one plan."""

    def __init__(self, plan: Plan, images: Loader, device: str) -> None:
        self._plan = plan
        self._trainer = Trainer(
            images,
            device,
            dtype=plan.dtype,
            threads=plan.threads,
            plugins=plan.plugins,
            gate_fan=plan.gate_fan,
        )

    def do(self, task: Task, architecture: Architecture) -> Done:
        start = time.monotonic()
        if task.scores:
            try:
                scores = self._scores(task, architecture)
            except Exception as error:  # an operator of the user's own may be anything
                return Done(task, round(time.monotonic() - start, 2), failure=explain(error))
            return Done(task, round(time.monotonic() - start, 2), scores=scores)
        curve = self._trainer.train(architecture, self._plan.fidelity(task.fidelity), task.seed)
        seconds = round(time.monotonic() - start, 2)
        if isinstance(curve, Failure):
            return Done(task, seconds, failure=curve)
        return Done(task, seconds, tuple(e.accuracy for e in curve), tuple(e.loss for e in curve))

    def _scores(self, task: Task, architecture: Architecture) -> dict[str, tuple[float, float]]:
        fidelity = self._plan.reference
        data = self._trainer.data(fidelity)
        shape = architecture.shape.twin(fidelity.width)
        given = (shape, architecture.blocks, data.num_classes, 3, task.seed, self._plan.gate_fan)
        network = build_seeded(*given)
        network.to(self._trainer.device)
        some = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(task.seed))
        some = some[:_BATCH].to(self._trainer.device)  # in their own order they may all be of one class
        images, labels = normalise(data.train_images[some], data), data.train_labels[some]
        found = {}
        for name in task.scores:
            start = time.monotonic()
            value = score_network(name, network, images, labels, seed=task.seed)
            found[name] = (value, round(time.monotonic() - start, 4))
        return found


_worker: Worker | None = None


def begin(plan: Plan, images: Loader, device: str) -> None:
    """Makes this process a worker."""
    global _worker
    _worker = Worker(plan, images, device)


def do(task: Task, architecture: str) -> Done:
    """A task in a process that `begin` has made a worker."""
    assert _worker is not None
    return _worker.do(task, Architecture.parse(architecture))
