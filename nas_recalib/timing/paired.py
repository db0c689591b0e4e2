"""Alternating timing of callables, so that whatever slows the machine down slows all of them equally."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from nas_recalib.errors import InputError

Call = Callable[[], object]

MIN_ROUNDS = 5
_MIN_SAMPLE = 0.02  # seconds; the clock and waiting for a GPU cost a thousandth of it
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Ratio:
    """Ratio of one callable's time to another's, over the rounds.

    Attributes:
        median: Median of the rounds' ratios.
        lower: Lower quartile of the rounds' ratios.
        upper: Upper quartile of the rounds' ratios.
    """

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Times:
    """Times of callables that were timed alternately.

    Attributes:
        rounds: Seconds of one call of each callable, in the order they were given, for each round.
        iterations: Number of calls in a round that each of these is the mean of.
    """

    rounds: tuple[tuple[float, ...], ...]
    iterations: int

    @property
    def medians(self) -> tuple[float, ...]:
        """Median seconds of a call of each callable."""
        return tuple(statistics.median(samples) for samples in zip(*self.rounds, strict=True))

    def ratio(self, index: int = 1) -> Ratio:
        """Return the ratio of a callable's time to that of the first, from the ratios of each round."""
        ratios = [samples[index] / samples[0] for samples in self.rounds]
        lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return Ratio(median, lower, upper)


def time_alternately(
    calls: Sequence[Call],
    *,
    seconds: float,
    min_rounds: int = MIN_ROUNDS,
    warmup: int = 2,
    synchronize: Call = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time callables in rounds, in an order that reverses every round (A B, B A, A B, ...).

    Short calls are repeated within a round until each lasts 20 ms, all of them equally often.

    Args:
        calls: Callables to time.
        seconds: Time after which no further round starts, once there are `min_rounds`; without warm-up.
        min_rounds: Smallest number of rounds.
        warmup: Number of untimed calls of each callable at the start.
        synchronize: Function that waits for pending work, such as `torch.cuda.synchronize`.
        clock: Function that returns the time in seconds.
    """

    def sample(call: Call, iterations: int) -> float:
        synchronize()
        start = clock()
        for _ in range(iterations):
            call()
        synchronize()
        return (clock() - start) / iterations

    iterations = 1
    least = min(_MIN_SAMPLE, seconds / (min_rounds * len(calls)))
    for call in calls:
        sample(call, warmup)
        while sample(call, iterations) * iterations < least:
            iterations *= 2

    rounds: list[tuple[float, ...]] = []
    start = clock()
    while len(rounds) < min_rounds or clock() - start < seconds:
        order = range(len(calls)) if len(rounds) % 2 == 0 else reversed(range(len(calls)))
        samples = {index: sample(calls[index], iterations) for index in order}
        rounds.append(tuple(samples[index] for index in range(len(calls))))
    return Times(tuple(rounds), iterations)


def synchronizer(device: torch.device) -> Call:
    """Return a function that waits for the pending work of a device."""
    return partial(torch.get_device_module(device).synchronize, device)


@contextmanager
def cudnn_benchmark(name: object) -> Iterator[None]:
    """Let cuDNN try its convolutions and keep the fastest, as full-size training does.

    Args:
        name: Name of what is timed, for the error message.

    Raises:
        InputError: If memory runs out inside.
    """
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            yield
    except RuntimeError as error:
        if not any(text in str(error) for text in _OUT_OF_MEMORY):
            raise
        raise InputError(f"batch-size: {name}: does not fit into memory; use a smaller batch") from error
