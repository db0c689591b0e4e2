"""Timing of callables side by side, so that whatever slows the machine down slows all alike."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from nas_recalib.errors import InputError

Call = Callable[[], object]

LEAST_ROUNDS = 5
_LEAST_SAMPLE = 0.02  # seconds; the clock and waiting for a GPU cost a thousandth of it
_WARM_UP = 2


@dataclass(frozen=True)
class Ratio:
    """Of one callable's time to another's, over the rounds.

    Attributes:
        median: Of the rounds' ratios.
        lower: Their lower quartile.
        upper: Their upper quartile.
    """

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Times:
    """What callables took, timed side by side.

    Attributes:
        rounds: For each round the seconds of one call of each callable, in the order they were given.
        repeats: Calls that each of these is the mean of.
    """

    rounds: tuple[tuple[float, ...], ...]
    repeats: int

    @property
    def medians(self) -> tuple[float, ...]:
        """Median seconds of one call of each callable."""
        return tuple(statistics.median(samples) for samples in zip(*self.rounds, strict=True))

    def ratio(self, index: int = 1) -> Ratio:
        """Time of a callable in terms of the first, round by round."""
        ratios = [samples[index] / samples[0] for samples in self.rounds]
        lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return Ratio(median, lower, upper)


def time_side_by_side(
    calls: Sequence[Call],
    *,
    seconds: float,
    least_rounds: int = LEAST_ROUNDS,
    warm_up: int = _WARM_UP,
    synchronize: Call = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Calls each once a round, in an order that turns round every time (A B, B A, A B, ...).

    Short calls are repeated within a sample until it lasts 20 ms, all of them equally often.

    Args:
        calls: What to time; the others are compared with the first.
        seconds: No round is begun after this long, once there are enough; warming up comes on top.
        least_rounds: How many are enough.
        warm_up: Calls of each that are not timed, before those that find out how long it takes.
        synchronize: Waits for what a call has left running, as `torch.cuda.synchronize` does.
        clock: Tells the seconds.
    """

    def sample(call: Call, repeats: int) -> float:
        synchronize()
        start = clock()
        for _ in range(repeats):
            call()
        synchronize()
        return (clock() - start) / repeats

    repeats = 1
    least = min(_LEAST_SAMPLE, seconds / (least_rounds * len(calls)))
    for call in calls:
        sample(call, warm_up)
        while sample(call, repeats) * repeats < least:
            repeats *= 2

    rounds: list[tuple[float, ...]] = []
    start = clock()
    while len(rounds) < least_rounds or clock() - start < seconds:
        order = range(len(calls)) if len(rounds) % 2 == 0 else reversed(range(len(calls)))
        samples = {index: sample(calls[index], repeats) for index in order}
        rounds.append(tuple(samples[index] for index in range(len(calls))))
    return Times(tuple(rounds), repeats)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


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
