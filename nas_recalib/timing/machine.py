"""The machine as timings need it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from nas_recalib.device import keep_freed_memory
from nas_recalib.errors import InputError
from nas_recalib.timing.calls import Settings
from nas_recalib.timing.paired import Call

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def set_up(settings: Settings) -> None:
    """Threads as the settings say and memory kept, from now on."""
    torch.set_num_threads(settings.threads)
    keep_freed_memory()


def synchronizer(device: torch.device) -> Call:
    """Waits for what has been left running on a device."""
    return partial(torch.get_device_module(device).synchronize, device)


@contextmanager
def fastest_convolutions(what: object) -> Iterator[None]:
    """Lets cuDNN try its convolutions and keep the fastest, as full-size training does.

    Raises:
        InputError: If memory runs out inside; what was timed is named.
    """
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _OUT_OF_MEMORY):
            raise
        raise InputError(f"batch-size: {what}: does not fit into the memory there is") from error
