"""What a search trains on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nas_recalib.device import Described, describe, keep_freed_memory, pick_device
from nas_recalib.search.local import run_here
from nas_recalib.search.observer import Observer
from nas_recalib.search.search import Search
from nas_recalib.study.config import SearchConfig


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
