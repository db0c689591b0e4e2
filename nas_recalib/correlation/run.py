"""Work of a correlation study, task by task in processes of its own, each result stored at once."""

import time
from collections.abc import Callable, Sequence

import optuna
import torch

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.correlation.plan import Done, Plan, Task, tasks
from nas_recalib.correlation.setup import Ready
from nas_recalib.correlation.study import keep, scored, trained
from nas_recalib.device import device_name, versions
from nas_recalib.errors import StopSearch
from nas_recalib.proxy.objective import Failure, explain
from nas_recalib.proxy.pool import run_in_processes
from nas_recalib.proxy.scores import score_network
from nas_recalib.proxy.train import normalise
from nas_recalib.proxy.trainer import Loader, Trainer

_BATCH = 64  # images that scores look at


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
        shape = architecture.shape.scaled(fidelity.width)
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


def pending(
    study: optuna.Study, plan: Plan, architectures: int, seeds: int, scores: Sequence[str]
) -> list[Task]:
    """What is left to do."""
    done = trained(study)
    left = []
    for task in tasks(plan, architectures, seeds, scores):
        if task.scores:
            known = scored(study, task.index)
            missing = tuple(name for name in task.scores if name not in known)
            left += [Task(task.index, "", task.seed, missing)] if missing else []
        elif task not in done:
            left.append(task)
    return left


def run(
    ready: Ready,
    left: Sequence[Task],
    *,
    jobs: int,
    device: torch.device,
    told: Callable[[Done], None],
) -> None:
    """Does what is left.

    Args:
        ready: The study.
        left: The tasks.
        jobs: Processes.
        device: Of all trainings.
        told: Is called for each piece that is done.

    Raises:
        StopSearch: If a worker dies, memory runs out or there is an error in the program.
    """
    common_attrs = {"device": device_name(device, ready.plan.threads), "versions": versions()}

    def take(done: Done) -> None:
        keep(ready.study, ready.space, ready.drawn[done.task.index], done, common_attrs)
        told(done)
        if done.failure is not None and done.failure.kind == "error":
            raise StopSearch(f"{ready.drawn[done.task.index]}: {done.failure.details}")
        if done.failure is not None and done.failure.kind == "out-of-memory":
            raise StopSearch(
                f"{ready.drawn[done.task.index]}: {done.failure.message}; the same command goes on from here "
                "with fewer --jobs"
            )

    run_in_processes(
        do,
        [(task, str(ready.drawn[task.index])) for task in left],
        take,
        jobs=jobs,
        initializer=begin,
        initargs=(ready.plan, ready.images, str(device)),
    )
