"""Tasks in worker processes, tested in few processes, since they start slowly."""

import multiprocessing
import os
import time

import pytest

from nas_recalib.errors import StopSearch
from nas_recalib.proxy.pool import run_in_processes

_offset = None


def initialize(offset):
    global _offset
    _offset = offset


def power(number, exponent):
    if number < 0:
        os._exit(1)
    time.sleep(0.05)
    return os.getpid(), _offset + number**exponent


def run(tasks, on_result, *, jobs, offset):
    run_in_processes(power, tasks, on_result, jobs=jobs, initializer=initialize, initargs=(offset,))


def test_each_task_has_one_result_from_an_initialized_process():
    results = []
    run([(number, 2) for number in range(8)], results.append, jobs=2, offset=100)
    assert sorted(value for _, value in results) == [100 + number**2 for number in range(8)]
    assert os.getpid() not in {process for process, _ in results}
    # The executor's own thread may be the one to reap a process, whose handle here is then late to say so.
    deadline = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()
    run([], results.append, jobs=2, offset=100)
    assert len(results) == 8


def test_an_exception_of_on_result_and_a_dying_process_end_the_run():
    results = []

    def refuse(result):
        results.append(result)
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        run([(1, 1)] * 3, refuse, jobs=1, offset=0)
    assert len(results) == 1
    with pytest.raises(StopSearch, match="a worker process died: run the same command again to resume"):
        run([(-1, 1), (1, 1)], results.append, jobs=1, offset=0)
