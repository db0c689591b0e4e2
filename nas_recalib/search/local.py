"""Engine that trains in this process, one trial after the other."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nas_recalib.device import Described, describe, keep_freed_memory, pick_device
from nas_recalib.proxy.objective import Failure
from nas_recalib.search.job import Job, train
from nas_recalib.search.oneshot import RunTasks
from nas_recalib.search.progress import Observer
from nas_recalib.search.search import Search
from nas_recalib.study.config import SearchConfig

_POLL = 1.0  # seconds between two reads of the study while other workers train


def run_here(
    search: Search, trials: int, observer: Observer, pause: Callable[[float], None] = time.sleep
) -> bool:
    """Train until a study has so many trained architectures and no paused trial is to be promoted.

    Other workers may train for the same study; this one waits for their last trials.

    Args:
        search: Search on the study.
        trials: Number of trained architectures that the study is to end with.
        observer: Observer to notify of the progress.
        pause: Function that waits for some seconds.

    Returns:
        Whether the target was reached; False where every architecture within the budget has been tried.

    Raises:
        StopSearch: If too many trials fail in a row, or a checkpoint cannot be written.
    """
    search.begin(trials, observer)
    try:
        while not search.done:
            job = search.next_job()
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
    search.finish(job.number)


@dataclass(frozen=True)
class Engine:
    """Engine that runs the trainings of a search.

    Attributes:
        device: Device of this process, which images are loaded to first.
        trains: Description of the device that trains.
        run: Function that trains until the study has so many trained architectures; see `run_here`.
        run_tasks: Function that runs the tasks of a one-shot search.
    """

    device: torch.device
    trains: Described
    run: Callable[[Search, SearchConfig, int, Observer], bool]
    run_tasks: RunTasks


def here(device: str | None) -> Engine:
    """Return the engine that trains in this process.

    Args:
        device: Name of the device (default: a GPU if there is one).

    Raises:
        InputError: If there is no such device.
    """
    chosen = pick_device(device)
    keep_freed_memory()
    return Engine(
        chosen,
        describe(chosen),
        lambda search, _, trials, observer: run_here(search, trials, observer),
        lambda function, supernets, items, say: (function(supernets, item, chosen, say) for item in items),
    )
