"""The work of a correlation study, spread over processes; whatever is done is kept at once."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

import optuna
import torch

from nas_recalib.correlation.plan import Plan, Task, tasks
from nas_recalib.correlation.setup import Ready
from nas_recalib.correlation.study import keep, scored, trained
from nas_recalib.correlation.work import Done, begin, do
from nas_recalib.device import device_name, versions
from nas_recalib.errors import StopSearch


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
        StopSearch: If a worker dies or a training ends in an error of the program.
    """
    if not left:
        return
    facts = {"device": device_name(device, ready.plan.threads), "versions": versions()}
    context = multiprocessing.get_context("spawn")  # a forked process cannot use torch's threads, nor CUDA
    pool = ProcessPoolExecutor(
        min(jobs, len(left)), context, initializer=begin, initargs=(ready.plan, ready.images, str(device))
    )
    try:
        submitted = (pool.submit(do, task, str(ready.drawn[task.index])) for task in left)
        for done in _as_they_end(submitted, jobs):
            keep(ready.study, ready.space, ready.drawn[done.task.index], done, facts)
            told(done)
            if done.failure is not None and done.failure.kind == "error":
                raise StopSearch(f"{ready.drawn[done.task.index]}: {done.failure.details}")
    except BrokenProcessPool as error:
        raise StopSearch(
            "a worker ended before its work did; the same command goes on from here, with fewer --jobs if "
            "memory ran out"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def _as_they_end(submitted: Iterator[Future[Done]], at_once: int) -> Iterator[Done]:
    """Results in the order in which they come; no more is handed out than is worked on."""
    running = set(islice(submitted, at_once))
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            running |= set(islice(submitted, 1))
            yield future.result()


def default_jobs(device: torch.device, threads: int) -> int:
    """As many trainings at once as the CPU has threads for; one on a GPU."""
    return max(1, (os.cpu_count() or 1) // threads) if device.type == "cpu" else 1
