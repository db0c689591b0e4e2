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

    A second SIGTERM does not disturb the clean-up that the first has begun. Nor does a second SIGINT under
    torchrun, which sends its processes the signal that the terminal has sent to all of them already.
    """
    if threading.current_thread() is not threading.main_thread():  # the others cannot handle signals
        yield
        return
    launched = "LOCAL_RANK" in os.environ
    handled = [signal.SIGTERM]
    if launched and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handled.append(signal.SIGINT)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        interrupted = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        if not (launched and interrupted):
            for number, handler in before.items():
                signal.signal(number, handler)
