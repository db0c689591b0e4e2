"""Tasks run in a pool of worker processes."""

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


def run_in_processes(
    function: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    on_result: Callable[[Result], None],
    *,
    jobs: int,
    initializer: Callable[..., None],
    initargs: tuple[Any, ...] = (),
) -> None:
    """Call a function with each of many tuples of arguments in worker processes.

    The processes end when this one does, even if it is killed.

    Args:
        function: Function of a module, called in one of the processes for each task.
        tasks: Arguments of the calls.
        on_result: Function called in this process with each result as soon as it is there; an exception that
            it raises ends the run.
        jobs: Number of processes.
        initializer: Function called first in every process.
        initargs: Arguments of the initializer.

    Raises:
        StopSearch: If a process dies.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")  # a forked process cannot use torch's threads, nor CUDA
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)), context, initializer=_initialize, initargs=(initializer, initargs)
    )
    try:
        for result in _as_completed((pool.submit(function, *task) for task in tasks), jobs):
            on_result(result)
    except BrokenProcessPool as error:
        raise StopSearch(
            "a worker process died: run the same command again to resume, with fewer --jobs if memory ran out"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def default_jobs(device: torch.device, threads: int) -> int:
    """Return how many trainings run at once: as many as the CPU has threads for, or one on a GPU."""
    return max(1, (os.cpu_count() or 1) // threads) if device.type == "cpu" else 1


def _as_completed(submitted: Iterator[Future[Result]], at_once: int) -> Iterator[Result]:
    """Yield results in the order of completion, submitting a task only when one of `at_once` has ended."""
    running = set(islice(submitted, at_once))
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            running |= set(islice(submitted, 1))
            yield future.result()


def _initialize(initializer: Callable[..., None], initargs: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # left to the parent
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    initializer(*initargs)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
