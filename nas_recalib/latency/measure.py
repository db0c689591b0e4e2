"""Measures given architectures for real, in turns, against drift."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas_recalib.architecture import Architecture
from nas_recalib.latency.workbench import Sample, Timer, Workbench
from nas_recalib.timing import Settings


@dataclass(frozen=True)
class Measured:
    """What one architecture took.

    Attributes:
        median_ms: Median over its forward passes, in milliseconds, without drift.
        lower: Their lower quartile.
        upper: Their upper quartile.
    """

    median_ms: float
    lower: float
    upper: float


def measure_architectures(
    architectures: Sequence[Architecture],
    settings: Settings,
    batch: int,
    reference: Architecture,
    *,
    reference_ms: float | None = None,
    passes: int = 2,
    progress: Callable[[int, int], None] = lambda *_: None,
    timer: Timer | None = None,
) -> list[Measured]:
    """Times each architecture beside a reference, all of them in turn and then all again.

    The times of a visit are scaled so that the reference takes equally long in all visits.

    Args:
        architectures: What to measure.
        settings: Where and how; `seconds` are those of one visit, beside warming up.
        batch: Images at once.
        reference: What stands beside each.
        reference_ms: What the reference is to take after scaling, such as `LatencyTable.reference_ms`, so
            that what comes out can be compared with the table (default: its median here).
        passes: How often each is visited.
        progress: Is told after each visit how many are done, and of how many.
        timer: In the place of a `Workbench`.

    Returns:
        What each took, in the order given.

    Raises:
        InputError: If one does not fit into the memory there is.
    """
    timer = timer or Workbench(reference, settings, batch).time
    visits: list[list[Sample]] = [[] for _ in architectures]
    for turn in range(passes):
        for index, architecture in enumerate(architectures):
            visits[index].append(timer(architecture))
            progress(turn * len(architectures) + index + 1, passes * len(architectures))
    usual = statistics.median(_beside(sample) for samples in visits for sample in samples)
    wanted = usual if reference_ms is None else reference_ms / 1e3
    return [_measured(samples, wanted) for samples in visits]


def _beside(sample: Sample) -> float:
    return statistics.median(sample.reference)


def _measured(samples: Sequence[Sample], reference: float) -> Measured:
    scaled = [seconds * reference / _beside(sample) * 1e3 for sample in samples for seconds in sample.network]
    lower, median, upper = map(float, np.quantile(scaled, (0.25, 0.5, 0.75)))
    return Measured(median, lower, upper)
