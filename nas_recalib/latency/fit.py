"""Latency model: random networks of a calibration, an entry for each choice, the fit of whole networks."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from nas_recalib.costs.macs import fixed_cost
from nas_recalib.files import StrictModel
from nas_recalib.latency.measure import Timer
from nas_recalib.networks import get_backbone
from nas_recalib.space import SearchSpace

Floats = NDArray[np.float64]
Nanoseconds = Annotated[int, Field(gt=0, le=10**15)]

INDICES_KEY = "picks"  # in files of tables
_OUTLIER = 3.0  # robust standard deviations
_SLOPES = (0.5, 2.0)  # allowed slopes


class Round(StrictModel):
    """One round of a calibration: a random network and the reference, timed alternately.

    Attributes:
        indices: Index of the network's choice at each position of the space.
        reference_ns: Median of the reference's forward passes, in nanoseconds.
        network_ns: Median of the network's forward passes, in nanoseconds.
        blocks_ns: Median of each of the network's blocks in nanoseconds, in the order of the backbone.
    """

    model_config = ConfigDict(populate_by_name=True)

    indices: list[int] = Field(validation_alias=INDICES_KEY, serialization_alias=INDICES_KEY)
    reference_ns: Nanoseconds
    network_ns: Nanoseconds
    blocks_ns: list[Nanoseconds]


def max_choices(space: SearchSpace) -> int:
    """Return the largest number of choices of a position: the fewest rounds that contain every choice."""
    return max(len(position.choices) for position in space.positions)


def round_indices(space: SearchSpace, seed: int, number: int) -> tuple[int, ...]:
    """Return the network of a round, as the index of its choice at each position.

    At every position the choices follow each other in a random order, which is drawn again each time all of
    them have been used. Over as many rounds as there are choices each is timed once, with other neighbours.
    """
    indices = []
    for index, position in enumerate(space.positions):
        cycle, step = divmod(number, len(position.choices))
        order = np.random.default_rng((seed, index, cycle)).permutation(len(position.choices))
        indices.append(int(order[step]))
    return tuple(indices)


def run_rounds(space: SearchSpace, seed: int, numbers: range, timer: Timer) -> Iterator[Round]:
    """Measure the rounds of these numbers, one after another."""
    for number in numbers:
        indices = round_indices(space, seed, number)
        sample = timer(space.from_indices(indices))
        yield Round(
            indices=list(indices),
            reference_ns=round(statistics.median(sample.reference) * 1e9),
            network_ns=round(statistics.median(sample.network) * 1e9),
            blocks_ns=[round(seconds * 1e9) for seconds in sample.blocks],
        )


@dataclass(frozen=True)
class Entry:
    """Latency of a choice at a position, measured inside whole networks.

    Where a position has several blocks, each value is the sum over the blocks, which bounds the quartiles.

    Attributes:
        median: Median of the samples, in seconds.
        lower: Lower quartile of the samples, in seconds.
        upper: Upper quartile of the samples, in seconds.
        samples: Number of samples, of the block with fewest.
    """

    median: float
    lower: float
    upper: float
    samples: int


@dataclass(frozen=True)
class Fit:
    """Linear fit of a network's latency in seconds: intercept + slope * (sum of its entries).

    Attributes:
        intercept: Seconds of everything outside the blocks.
        slope: Slope near 1; exactly 1 where the rounds' networks are too similar to fit one.
        typical_error: Median relative error of the fit over the rounds.
        large_error: 90th percentile of the relative error.
    """

    intercept: float
    slope: float
    typical_error: float
    large_error: float


def reference_seconds(rounds: Sequence[Round]) -> float:
    """Return the median latency of the reference over all rounds, in seconds."""
    return statistics.median(measured.reference_ns for measured in rounds) / 1e9


def drift_corrections(rounds: Sequence[Round]) -> Floats:
    """Return the factor for the times of each round that makes the reference equally fast in all rounds."""
    return reference_seconds(rounds) / (np.array([measured.reference_ns for measured in rounds]) / 1e9)


def make_entries(space: SearchSpace, rounds: Sequence[Round]) -> tuple[tuple[Entry, ...], ...]:
    """Return the entry of each choice at each position; every choice must have been timed at every position.

    Blocks of equal specs whose inputs have equal shapes share their samples.
    """
    backbone = get_backbone(space.backbone)
    _, shapes = fixed_cost(backbone, space.input_size, space.num_classes, 3)
    groups = {name: (spec, shapes[name]) for name, spec in backbone.blocks().items()}
    order = {name: index for index, name in enumerate(groups)}
    samples: dict[tuple[object, ...], list[float]] = {}
    for measured, factor in zip(rounds, drift_corrections(rounds), strict=True):
        for position, index in zip(space.positions, measured.indices, strict=True):
            for name in position.blocks:
                key = (groups[name], position.choices[index])
                seconds = measured.blocks_ns[order[name]] / 1e9 * float(factor)
                samples.setdefault(key, []).append(seconds)
    quartiles = {key: np.quantile(values, (0.25, 0.5, 0.75)) for key, values in samples.items()}

    def entry(blocks: Sequence[str], choice: object) -> Entry:
        keys = [(groups[name], choice) for name in blocks]
        lower, median, upper = map(float, np.sum([quartiles[key] for key in keys], axis=0))
        return Entry(median, lower, upper, min(len(samples[key]) for key in keys))

    return tuple(
        tuple(entry(position.blocks, choice) for choice in position.choices) for position in space.positions
    )


def fit_networks(rounds: Sequence[Round], entries: Sequence[Sequence[Entry]]) -> Fit:
    """Fit the latency of the rounds' networks to the sums of their entries, without outliers."""
    sums = np.array(
        [
            sum(row[index].median for row, index in zip(entries, measured.indices, strict=True))
            for measured in rounds
        ]
    )
    seconds = np.array([measured.network_ns for measured in rounds]) / 1e9 * drift_corrections(rounds)
    intercept, slope = _robust_line(sums, seconds)
    if not _SLOPES[0] <= slope <= _SLOPES[1]:
        intercept, slope = float(np.median(seconds - sums)), 1.0
    errors = np.abs((intercept + slope * sums) / seconds - 1)
    typical, large = map(float, np.quantile(errors, (0.5, 0.9)))
    return Fit(intercept, slope, typical, large)


def _robust_line(x: Floats, y: Floats) -> tuple[float, float]:
    """Return intercept and slope by least squares without outliers; NaN where all x are the same.

    Outliers are far from the line whose slope is the median between the halves of x (Theil, 1950).
    """
    order = np.argsort(x)
    half = len(x) // 2
    lower, upper = order[:half], order[len(x) - half :]
    apart = x[upper] - x[lower] > 1e-9 * np.abs(x).max()
    if not apart.any():
        return float("nan"), float("nan")
    slopes = (y[upper] - y[lower])[apart] / (x[upper] - x[lower])[apart]
    residuals = y - np.median(slopes) * x
    distances = np.abs(residuals - np.median(residuals))
    limit = max(_OUTLIER * 1.4826 * float(np.median(distances)), 1e-6 * float(np.median(y)))
    usual = distances <= limit
    if np.ptp(x[usual]) == 0:
        return float("nan"), float("nan")
    slope, intercept = np.polyfit(x[usual], y[usual], 1)
    return float(intercept), float(slope)
