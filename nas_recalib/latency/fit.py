"""Latency model: measured rounds, the entry of every block and choice, and predictions for networks."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nas_recalib.costs.macs import fixed_cost
from nas_recalib.files import StrictModel
from nas_recalib.latency.measure import Sample, Timer
from nas_recalib.networks import get_backbone
from nas_recalib.space import SearchSpace

Nanoseconds = Annotated[int, Field(gt=0, le=10**15)]


class Round(StrictModel):
    """What one round measured, in nanoseconds.

    Attributes:
        indices: The network: its choice at each position of the space.
        reference_ns: Median of the reference's forward passes.
        network_ns: Median of the network's forward passes.
        blocks_ns: Median of each of the network's blocks, in the order of the backbone.
    """

    indices: list[int]
    reference_ns: Nanoseconds
    network_ns: Nanoseconds
    blocks_ns: list[Nanoseconds]

    @classmethod
    def of(cls, indices: tuple[int, ...], sample: Sample) -> "Round":
        return cls(
            indices=list(indices),
            reference_ns=_nanoseconds(statistics.median(sample.reference)),
            network_ns=_nanoseconds(statistics.median(sample.network)),
            blocks_ns=[_nanoseconds(seconds) for seconds in sample.blocks],
        )


def most_choices(space: SearchSpace) -> int:
    """Choices of the position that has most of them: the least number of rounds that shows every one."""
    return max(len(position.choices) for position in space.positions)


def round_indices(space: SearchSpace, seed: int, number: int) -> tuple[int, ...]:
    """The network of a round.

    At every position the choices come in an order of its own, drawn anew each time all have been there, so
    that over as many rounds as there are choices each stands there once, among ever other neighbours.
    """
    indices = []
    for index, position in enumerate(space.positions):
        turn, step = divmod(number, len(position.choices))
        order = np.random.default_rng((seed, index, turn)).permutation(len(position.choices))
        indices.append(int(order[step]))
    return tuple(indices)


def run_rounds(space: SearchSpace, seed: int, numbers: range, timer: Timer) -> Iterator[Round]:
    """Measures the rounds of these numbers."""
    for number in numbers:
        indices = round_indices(space, seed, number)
        yield Round.of(indices, timer(space.from_indices(indices)))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


Floats = NDArray[np.float64]

_OUTSIDE = 3.0  # robust standard deviations
_SLOPES = (0.5, 2.0)


@dataclass(frozen=True)
class Entry:
    """What a choice takes at a position, inside whole networks.

    Attributes:
        median: Of the samples, in seconds.
        lower: Their lower quartile.
        upper: Their upper quartile.
        samples: How many there are.
    """

    median: float
    lower: float
    upper: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Entry":
        lower, median, upper = map(float, np.quantile(samples, (0.25, 0.5, 0.75)))
        return cls(median, lower, upper, len(samples))

    def __add__(self, other: "Entry") -> "Entry":
        """That of both together; quartiles add up to bounds."""
        return Entry(
            self.median + other.median,
            self.lower + other.lower,
            self.upper + other.upper,
            min(self.samples, other.samples),
        )


@dataclass(frozen=True)
class Fit:
    """A whole network's seconds: intercept + slope * (sum of its entries).

    Attributes:
        intercept: Seconds of what is no block.
        slope: Near 1; 1 exactly where the networks are too alike to tell it.
        typical_error: Median over the rounds of how far the fit is from what was measured, relative to it.
        large_error: The same, of nine tenths of the rounds at most.
    """

    intercept: float
    slope: float
    typical_error: float
    large_error: float


def reference_seconds(rounds: Sequence[Round]) -> float:
    """Median over the rounds of what the reference took."""
    return statistics.median(told.reference_ns for told in rounds) / 1e9


def without_drift(rounds: Sequence[Round]) -> Floats:
    """By what the times of each round are multiplied, so that the reference takes equally long in all."""
    return reference_seconds(rounds) / (np.array([told.reference_ns for told in rounds]) / 1e9)


def block_groups(space: SearchSpace) -> dict[str, tuple[object, ...]]:
    """What each block is known by: equal specs with inputs of equal shape share their samples."""
    backbone = get_backbone(space.backbone)
    _, shapes = fixed_cost(backbone, space.input_size, space.num_classes, 3)
    return {name: (spec, shapes[name]) for name, spec in backbone.blocks().items()}


def make_entries(space: SearchSpace, rounds: Sequence[Round]) -> tuple[tuple[Entry, ...], ...]:
    """For each position of the space an entry for each choice; every choice must have stood everywhere."""
    groups = block_groups(space)
    order = {name: index for index, name in enumerate(groups)}
    samples: dict[tuple[object, ...], list[float]] = {}
    for told, scale in zip(rounds, without_drift(rounds), strict=True):
        for position, pick in zip(space.positions, told.indices, strict=True):
            for name in position.blocks:
                key = (groups[name], position.choices[pick])
                samples.setdefault(key, []).append(told.blocks_ns[order[name]] / 1e9 * float(scale))
    pooled = {key: Entry.of(values) for key, values in samples.items()}
    entries = []
    for position in space.positions:
        rows = []
        for choice in position.choices:
            first, *rest = (pooled[groups[name], choice] for name in position.blocks)
            rows.append(sum(rest, first))
        entries.append(tuple(rows))
    return tuple(entries)


def fit_networks(rounds: Sequence[Round], entries: Sequence[Sequence[Entry]]) -> Fit:
    """A line through the rounds' networks, without rounds that stand out."""
    sums = np.array(
        [sum(row[pick].median for row, pick in zip(entries, told.indices, strict=True)) for told in rounds]
    )
    whole = np.array([told.network_ns for told in rounds]) / 1e9 * without_drift(rounds)
    intercept, slope = _robust_line(sums, whole)
    if not _SLOPES[0] <= slope <= _SLOPES[1]:
        intercept, slope = float(np.median(whole - sums)), 1.0
    errors = np.abs((intercept + slope * sums) / whole - 1)
    typical, large = map(float, np.quantile(errors, (0.5, 0.9)))
    return Fit(intercept, slope, typical, large)


def _robust_line(x: Floats, y: Floats) -> tuple[float, float]:
    """Intercept and slope by least squares without what stands out; not numbers where all x are the same.

    What stands out is told by the median slope between the lower and the upper half of x (Theil, 1950).
    """
    order = np.argsort(x)
    half = len(x) // 2
    lower, upper = order[:half], order[len(x) - half :]
    apart = x[upper] - x[lower] > 1e-9 * np.abs(x).max()
    if not apart.any():
        return float("nan"), float("nan")
    slopes = (y[upper] - y[lower])[apart] / (x[upper] - x[lower])[apart]
    rests = y - np.median(slopes) * x
    distances = np.abs(rests - np.median(rests))
    usual = distances <= max(_OUTSIDE * 1.4826 * float(np.median(distances)), 1e-6 * float(np.median(y)))
    if np.ptp(x[usual]) == 0:
        return float("nan"), float("nan")
    slope, intercept = np.polyfit(x[usual], y[usual], 1)
    return float(intercept), float(slope)
