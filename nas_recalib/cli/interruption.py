"""What ends a command early."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, by which clusters take machines away, do what Ctrl-C does, once.

    Nothing disturbs the clean-up that a signal has begun: not a second SIGTERM, nor under torchrun, which may
    send on what its processes have received already, a second SIGINT; nor torch's handler of SIGCHLD, which
    raises an error where the same signal has ended a process that decodes images.
    """
    if threading.current_thread() is not threading.main_thread():  # the others cannot handle signals
        yield
        return
    launched = "LOCAL_RANK" in os.environ
    handled = [signal.SIGTERM]
    if launched and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handled.append(signal.SIGINT)
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        for number in handled:
            signal.signal(number, _ignore)
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        if not (launched and interrupted):
            for number, handler in before.items():
                if handler is not None:  # not set by Python, and so not to be set by it
                    signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; Python complains of a signal that has arrived when SIG_IGN is set."""
