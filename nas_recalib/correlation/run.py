"""Worker processes of a correlation study, which train and score; each result is stored at once."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.correlation.setup import Ready
from nas_recalib.correlation.study import Done, Plan, Task, keep, scored, tasks, trained
from nas_recalib.device import device_name, versions
from nas_recalib.errors import StopSearch
from nas_recalib.proxy.evaluation import normalise
from nas_recalib.proxy.objective import Failure, explain
from nas_recalib.proxy.pool import run_in_processes
from nas_recalib.proxy.scores import score_network
from nas_recalib.proxy.trainer import Loader, Trainer

_BATCH_SIZE = 64  # of the images that zero-cost proxies look at


class Worker:
    """Trainer and scorer of the architectures of one plan.

    Args:
        plan: Plan of the study.
        images: Loader of the images.
        device: Device of all trainings.
    """

    def __init__(self, plan: Plan, images: Loader, device: str) -> None:
        self._plan = plan
        options = {name: getattr(plan, name) for name in ("dtype", "threads", "plugins")}
        recipe = {"gate_fan": plan.gate_fan, "evaluated": plan.evaluated}
        self._trainer = Trainer(images, device, **options, recipe=recipe)

    def run(self, task: Task, architecture: Architecture) -> Done:
        """Return the result of a task; a failure is part of it."""
        start = time.monotonic()
        result: dict[str, Any]
        if task.scores:
            try:
                result = {"scores": self._scores(task, architecture)}
            except Exception as error:  # a user's own operator may raise anything
                result = {"failure": explain(error)}
        else:
            curve = self._trainer.train(architecture, self._plan.fidelity(task.fidelity), task.seed)
            if isinstance(curve, Failure):
                result = {"failure": curve}
            else:
                accuracies, losses = zip(*((epoch.accuracy, epoch.loss) for epoch in curve), strict=True)
                result = {"accuracies": accuracies, "losses": losses}
        return Done(task, round(time.monotonic() - start, 2), **result)

    def _scores(self, task: Task, architecture: Architecture) -> dict[str, tuple[float, float]]:
        """Return the value and the seconds of each zero-cost proxy of a task."""
        fidelity = self._plan.reference
        data = self._trainer.data(fidelity)
        shape = architecture.shape.scaled(fidelity.width)
        network = build_seeded(
            shape, architecture.blocks, data.num_classes, 3, task.seed, self._plan.gate_fan
        ).to(self._trainer.device)
        order = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(task.seed))
        batch = order[:_BATCH_SIZE].to(self._trainer.device)  # unshuffled images may all be of one class
        images, labels = normalise(data.train_images[batch], data), data.train_labels[batch]
        scores = {}
        for name in task.scores:
            start = time.monotonic()
            value = score_network(name, network, images, labels, seed=task.seed)
            scores[name] = (value, round(time.monotonic() - start, 4))
        return scores


_worker: Worker | None = None


def start_worker(plan: Plan, images: Loader, device: str) -> None:
    """Prepare this process for `run_task`."""
    global _worker
    _worker = Worker(plan, images, device)


def run_task(task: Task, architecture: str) -> Done:
    """Return the result of a task, in a process that `start_worker` has prepared."""
    assert _worker is not None
    return _worker.run(task, Architecture.parse(architecture))


def pending(ready: Ready) -> list[Task]:
    """Return the tasks that the study has no result of yet."""
    done = trained(ready.study)
    remaining = []
    for task in tasks(ready.plan, ready.scores):
        if task.scores:
            known = scored(ready.study, task.index)
            missing = tuple(name for name in task.scores if name not in known)
            remaining += [Task(task.index, "", task.seed, missing)] if missing else []
        elif task not in done:
            remaining.append(task)
    return remaining


def run(
    ready: Ready,
    remaining: Sequence[Task],
    *,
    jobs: int,
    device: torch.device,
    progress: Callable[[Done], None],
) -> None:
    """Run the remaining tasks of a study.

    Args:
        ready: Study that is open and locked.
        remaining: Tasks to run.
        jobs: Number of worker processes.
        device: Device of all trainings.
        progress: Function that is called with the result of each task.

    Raises:
        StopSearch: If a worker dies, memory runs out or there is an error in the program.
    """
    common_attrs = {"device": device_name(device, ready.plan.threads), "versions": versions()}

    def store(done: Done) -> None:
        architecture, failure = ready.drawn[done.task.index], done.failure
        keep(ready.study, ready.space, architecture, done, common_attrs)
        progress(done)
        if failure is not None and failure.kind == "error":
            raise StopSearch(f"{architecture}: {failure.details}")
        if failure is not None and failure.kind == "out-of-memory":
            raise StopSearch(
                f"{architecture}: {failure.message}; run the same command again with fewer --jobs to resume"
            )

    run_in_processes(
        run_task,
        [(task, str(ready.drawn[task.index])) for task in remaining],
        store,
        jobs=jobs,
        initializer=start_worker,
        initargs=(ready.plan, ready.images, str(device)),
    )
