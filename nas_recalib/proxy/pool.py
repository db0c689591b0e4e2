"""Work spread over processes of their own; whatever is done is told at once."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import torch

from nas_recalib.errors import StopSearch

Result = TypeVar("Result")


def spread(
    do: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    told: Callable[[Result], None],
    *,
    jobs: int,
    begin: Callable[..., None],
    given: tuple[Any, ...],
) -> None:
    """Does every task, and tells of each as soon as it is done.

    The processes end with this one, however that ends.

    Args:
        do: A function of a module, which is called with each task's arguments in one of the processes.
        tasks: The arguments.
        told: Is called here with each result, in the order in which they come; what it raises ends the work.
        jobs: Processes.
        begin: Is called first in every process.
        given: Its arguments.

    Raises:
        StopSearch: If a process dies.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")  # a forked process cannot use torch's threads, nor CUDA
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)), context, initializer=_begin_worker, initargs=(begin, given)
    )
    try:
        for result in _as_they_end((pool.submit(do, *task) for task in tasks), jobs):
            told(result)
    except BrokenProcessPool as error:
        raise StopSearch(
            "a worker ended before its work did; the same command goes on from here, with fewer --jobs if "
            "memory ran out"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def default_jobs(device: torch.device, threads: int) -> int:
    """As many trainings at once as the CPU has threads for; one on a GPU."""
    return max(1, (os.cpu_count() or 1) // threads) if device.type == "cpu" else 1


def _as_they_end(submitted: Iterator[Future[Result]], at_once: int) -> Iterator[Result]:
    """Results in the order in which they come; no more is handed out than is worked on."""
    running = set(islice(submitted, at_once))
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            running |= set(islice(submitted, 1))
            yield future.result()


def _begin_worker(begin: Callable[..., None], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    threading.Thread(target=_follow_parent, daemon=True).start()
    begin(*given)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
