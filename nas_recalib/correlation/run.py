"""The work of a correlation study, spread over processes; whatever is done is kept at once."""

from collections.abc import Callable, Sequence

import optuna
import torch

from nas_recalib.correlation.plan import Plan, Task, tasks
from nas_recalib.correlation.setup import Ready
from nas_recalib.correlation.study import keep, scored, trained
from nas_recalib.correlation.work import Done, begin, do
from nas_recalib.device import device_name, versions
from nas_recalib.errors import StopSearch
from nas_recalib.proxy.pool import spread


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
    facts = {"device": device_name(device, ready.plan.threads), "versions": versions()}

    def take(done: Done) -> None:
        keep(ready.study, ready.space, ready.drawn[done.task.index], done, facts)
        told(done)
        if done.failure is not None and done.failure.kind == "error":
            raise StopSearch(f"{ready.drawn[done.task.index]}: {done.failure.details}")
        if done.failure is not None and done.failure.kind == "out-of-memory":
            raise StopSearch(
                f"{ready.drawn[done.task.index]}: {done.failure.message}; the same command goes on from here "
                "with fewer --jobs"
            )

    spread(
        do,
        [(task, str(ready.drawn[task.index])) for task in left],
        take,
        jobs=jobs,
        begin=begin,
        given=(ready.plan, ready.images, str(device)),
    )
