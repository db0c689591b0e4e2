"""Trials trained in this process, one after the other."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nas_recalib.device import Described, describe, keep_freed_memory, pick_device
from nas_recalib.proxy.objective import Failure
from nas_recalib.search.job import Job, train
from nas_recalib.search.progress import Observer
from nas_recalib.search.search import Search
from nas_recalib.study.config import SearchConfig

_POLL = 1.0  # seconds between two looks at what others do


def run_here(
    search: Search, trials: int, observer: Observer, pause: Callable[[float], None] = time.sleep
) -> bool:
    """Goes on until a study has trained so many architectures, and nothing left at a rung is to go on.

    Other workers may be at the same study; what is left for them, and to them, is waited for.

    Args:
        search: On the study.
        trials: How many.
        observer: Is told what happens.
        pause: Waits for some seconds.

    Returns:
        Whether it got there; False where every architecture within the budget has been tried.

    Raises:
        StopSearch: If too many trials fail in a row, or a checkpoint cannot be kept.
    """
    search.begin(trials, observer)
    try:
        while not search.done:
            job = search.next()
            if job is not None:
                _train(search, job)
            elif not search.done:
                pause(_POLL)
    except KeyboardInterrupt:
        search.requeue_running()
        raise
    return search.reached


def _train(search: Search, job: Job) -> None:
    for step in train(search.proxy, job, search.checkpoints):
        if isinstance(step, Failure):
            search.fail(job.number, step)
            return
        if search.report(job.number, step):
            break
    search.end(job.number)


@dataclass(frozen=True)
class Engine:
    """Where trainings run.

    Attributes:
        device: Of this process, where images are put first.
        trains: The device that trains.
        run: Goes on until a study has trained so many architectures; see `run_here`.
    """

    device: torch.device
    trains: Described
    run: Callable[[Search, SearchConfig, int, Observer], bool]


def here(device: str | None) -> Engine:
    """This process, on a device by name.

    Raises:
        InputError: If there is no such device.
    """
    chosen = pick_device(device)
    keep_freed_memory()
    return Engine(
        chosen, describe(chosen), lambda search, _, trials, observer: run_here(search, trials, observer)
    )
