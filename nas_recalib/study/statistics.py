"""Statistics of results: intervals and paired comparisons over seeds, Pareto front, hypervolume."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import optuna

CONFIDENCE = 0.95
MIN_VALUES = 3  # values of an interval; Student's quantile is 12.7 for two, 4.3 for three


def half_width(values: Sequence[float], resolution: float = 0.0) -> float | None:
    """Return half the width of Student's 95% confidence interval of the mean.

    Args:
        values: Independent values.
        resolution: Smallest step between values, such as 1 / images for accuracies. The standard deviation
            is taken to be at least that of rounding to such steps, so that equal values give no interval of
            width 0.

    Returns:
        Half the width; None for fewer than three values, as two would give 12.7 standard errors.
    """
    from scipy.special import stdtrit  # here, as the import takes long

    if len(values) < MIN_VALUES:
        return None
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * _deviation(values, resolution / math.sqrt(12)) / math.sqrt(len(values))


def distinguishable_pairs(
    values: Mapping[int, Mapping[int, float]], resolution: float = 0.0
) -> frozenset[frozenset[int]]:
    """Return the pairs whose means differ significantly, by Holm's step-down procedure at 95%.

    Each pair is compared by a t-test of its differences with equal seeds, since a seed draws the same batches
    for both. All pairs are corrected for, not only those with the best, since the best is selected by the
    same values.

    Args:
        values: Values by seed, by number of the competitor.
        resolution: Smallest step between values; see `half_width`.
    """
    p_values = {
        frozenset(pair): _p_value(values[pair[0]], values[pair[1]], resolution)
        for pair in combinations(values, 2)
    }
    distinguishable: set[frozenset[int]] = set()
    for pair, p_value in sorted(p_values.items(), key=lambda item: item[1]):
        if p_value * (len(p_values) - len(distinguishable)) > 1 - CONFIDENCE:
            break
        distinguishable.add(pair)
    return frozenset(distinguishable)


def _p_value(first: Mapping[int, float], second: Mapping[int, float], resolution: float) -> float:
    """Return the two-sided p-value of a paired t-test; 1 for fewer than three common seeds."""
    from scipy.special import stdtr

    differences = [first[seed] - second[seed] for seed in first if seed in second]
    if len(differences) < MIN_VALUES:
        return 1.0
    mean = abs(statistics.fmean(differences))
    error = _deviation(differences, resolution / math.sqrt(6)) / math.sqrt(len(differences))
    if error == 0:
        return float(mean == 0)
    return float(2 * stdtr(len(differences) - 1, -mean / error))


def _deviation(values: Sequence[float], least: float) -> float:
    return max(statistics.stdev(values), least)


Point = tuple[float, ...]  # every coordinate is maximised


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that no other point dominates; of equal points the first."""
    return [
        index
        for index, point in enumerate(points)
        if not any(
            _covers(other, point) and (other != point or other_index < index)
            for other_index, other in enumerate(points)
        )
    ]


def hypervolume(points: Sequence[Point]) -> float:
    """Return the volume that points dominate above the origin; negative coordinates count as 0."""
    clipped = [tuple(max(0.0, value) for value in point) for point in points]
    return _volume(clipped) if clipped else 0.0


def hypervolumes(points: Sequence[Point]) -> list[float]:
    """Return the hypervolumes of the first point, of the first two, and so on."""
    volumes: list[float] = []
    front: list[Point] = []
    for point in points:
        if any(_covers(other, point) for other in front):
            volumes.append(volumes[-1])
            continue
        front = [other for other in front if not _covers(point, other)] + [point]
        volumes.append(hypervolume(front))
    return volumes


def _covers(point: Point, other: Point) -> bool:
    """Return whether a point dominates another or equals it."""
    return all(a >= b for a, b in zip(point, other, strict=True))


def _volume(points: Sequence[Point]) -> float:
    """Return the dominated volume as a sum of slices along the last coordinate."""
    if len(points[0]) == 1:
        return max(point[0] for point in points)
    ordered = sorted(points, key=lambda point: -point[-1])
    lower_bounds = [point[-1] for point in ordered[1:]] + [0.0]
    return sum(
        (point[-1] - lower) * _volume([other[:-1] for other in ordered[: index + 1]])
        for index, (point, lower) in enumerate(zip(ordered, lower_bounds, strict=True))
        if point[-1] > lower
    )


PREFIX = "confirmed "  # of the user attributes that hold confirmations


@dataclass(frozen=True)
class Confirmation:
    """Results of training a trial's architecture again with new seeds.

    The accuracy in the search is not among them: leaders were selected by it, so it is biased upwards.

    Attributes:
        mean: Mean of the accuracies; None if there are none.
        half_width: Half the width of the mean's 95% interval over seeds, on the same validation images; None
            for fewer than three accuracies.
        accuracies: Accuracies by seed.
        diverged: Seeds with which the training diverged.
    """

    mean: float | None
    half_width: float | None
    accuracies: dict[int, float]
    diverged: tuple[int, ...]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the mean's 95% interval, cut to the range from 0 to 1."""
        if self.mean is None or self.half_width is None:
            return None
        return max(0.0, self.mean - self.half_width), min(1.0, self.mean + self.half_width)

    @classmethod
    def of(cls, results: Mapping[int, Mapping[str, Any]], images: int) -> "Confirmation":
        """Return the confirmation that stored results amount to.

        Args:
            results: `{"accuracy": ...}` or `{"failure": "diverged"}` by seed.
            images: Number of validation images.
        """
        accuracies = {seed: result["accuracy"] for seed, result in results.items() if "accuracy" in result}
        values = list(accuracies.values())
        return cls(
            mean=statistics.fmean(values) if values else None,
            half_width=half_width(values, 1 / images),
            accuracies=accuracies,
            diverged=tuple(seed for seed, result in results.items() if "failure" in result),
        )


def write_confirmation(study: optuna.Study, number: int, seed: int, result: Mapping[str, Any]) -> None:
    """Store the result of one training in its own user attribute, which no other process overwrites."""
    study.set_user_attr(f"{PREFIX}{number}/{seed}", dict(result))


def read_confirmations(study: optuna.Study, images: int) -> dict[int, Confirmation]:
    """Return the confirmations of a study by number of the trial.

    Args:
        study: Study of the search.
        images: Number of validation images.
    """
    results: dict[int, dict[int, Any]] = {}
    for key, result in study.user_attrs.items():
        if key.startswith(PREFIX):
            number, seed = map(int, key.removeprefix(PREFIX).split("/"))
            results.setdefault(number, {})[seed] = result
    return {
        number: Confirmation.of(dict(sorted(by_seed.items())), images) for number, by_seed in results.items()
    }
