"""Work in processes of its own, of which little is needed: they start slowly."""

import multiprocessing
import os
import time

import pytest

from nas_recalib.errors import StopSearch
from nas_recalib.proxy.pool import spread

_given = None


def begin(given):
    global _given
    _given = given


def do(number, power):
    if number < 0:
        os._exit(1)
    time.sleep(0.05)
    return os.getpid(), _given + number**power


def test_each_task_is_told_of_once_from_processes_that_have_begun():
    tasks, told = [(number, 2) for number in range(8)], []
    spread(do, tasks, told.append, jobs=2, begin=begin, given=(100,))
    assert sorted(value for _, value in told) == [100 + number**2 for number in range(8)]
    assert os.getpid() not in {process for process, _ in told}
    # The executor's own thread may be the one to reap a process, whose handle here is then late to say so.
    deadline = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()
    spread(do, [], told.append, jobs=2, begin=begin, given=(100,))
    assert len(told) == 8


def test_what_is_raised_when_told_ends_the_work_and_so_does_a_dying_process():
    told = []

    def refuse(result):
        told.append(result)
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        spread(do, [(1, 1)] * 3, refuse, jobs=1, begin=begin, given=(0,))
    assert len(told) == 1
    with pytest.raises(StopSearch, match="a worker ended before its work did"):
        spread(do, [(-1, 1), (1, 1)], told.append, jobs=1, begin=begin, given=(0,))
