"""Statistics of a study's results: intervals over seeds, confirmations, Pareto front and hypervolume."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import optuna

SHARE = 0.95
FEWEST = 3  # values of an interval; Student's quantile is 12.7 for two, 4.3 for three
_HALVINGS = 60


def half_width(values: Sequence[float], finest: float = 0.0) -> float | None:
    """Half the width of Student's 95% interval around the mean; None for fewer than three values.

    Two values give an interval of 12.7 standard errors, wider than any difference worth telling.

    Args:
        values: Independent draws.
        finest: Step in which values come, as 1 / images is for a share of images. They are not taken to
            spread less than rounding to it does by itself, so that equal values are no certainty.
    """
    if len(values) < FEWEST:
        return None
    quantile = student_quantile(SHARE, len(values) - 1)
    return quantile * _deviation(values, finest / math.sqrt(12)) / math.sqrt(len(values))


def distinguishable(
    values: Mapping[int, Mapping[int, float]], finest: float = 0.0
) -> frozenset[frozenset[int]]:
    """The pairs whose means differ beyond what their seeds explain, by Holm's step-down procedure at 95%.

    Two are compared by a t-test of their differences with equal seeds, since a seed draws the same batches
    for both. All pairs are corrected for, not only those with the best: the best is picked by
    the same values, and any could have been it.

    Args:
        values: Of each competitor by seed.
        finest: See `half_width`.
    """
    chances = {
        frozenset(pair): _chance_of_equality(values[pair[0]], values[pair[1]], finest)
        for pair in combinations(values, 2)
    }
    apart: set[frozenset[int]] = set()
    for pair in sorted(chances, key=lambda pair: chances[pair]):
        if chances[pair] * (len(chances) - len(apart)) > 1 - SHARE:
            break
        apart.add(pair)
    return frozenset(apart)


def student_share(t: float, freedom: int) -> float:
    """How much of Student's distribution is within -t and t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    return _share_within(math.atan(t / math.sqrt(freedom)), freedom)


def student_quantile(share: float, freedom: int) -> float:
    """The t within whose -t and t that share of Student's distribution is."""
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, freedom) < share else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _share_within(angle: float, freedom: int) -> float:
    odd = freedom % 2
    term, total = math.cos(angle) ** odd, 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def _chance_of_equality(first: Mapping[int, float], second: Mapping[int, float], finest: float) -> float:
    """The two-sided p-value; 1 where fewer than three seeds are common, which tells nothing."""
    differences = [first[seed] - second[seed] for seed in first if seed in second]
    if len(differences) < FEWEST:
        return 1.0
    mean = abs(statistics.fmean(differences))
    error = _deviation(differences, finest / math.sqrt(6)) / math.sqrt(len(differences))
    if error == 0:
        return float(mean == 0)
    return 1 - student_share(mean / error, len(differences) - 1)


def _deviation(values: Sequence[float], least: float) -> float:
    return max(statistics.stdev(values), least)


Point = tuple[float, ...]  # all to be as great as possible


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other is at least as good as in everything; of equals the first."""
    return [
        index
        for index, point in enumerate(points)
        if not any(
            (other != point and _covers(other, point)) or (other == point and before < index)
            for before, other in enumerate(points)
        )
    ]


def hypervolume(points: Sequence[Point]) -> float:
    """Of everything between the origin and any of the points; what is below the origin counts as on it."""
    inside = [tuple(max(0.0, value) for value in point) for point in points]
    return _volume(inside) if inside else 0.0


def hypervolumes(points: Sequence[Point]) -> list[float]:
    """The hypervolume of the first point, of the first two, and so on."""
    volumes: list[float] = []
    leading: list[Point] = []
    for point in points:
        if any(_covers(other, point) for other in leading):
            volumes.append(volumes[-1])
            continue
        leading = [other for other in leading if not _covers(point, other)] + [point]
        volumes.append(hypervolume(leading))
    return volumes


def _covers(one: Point, other: Point) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))


def _volume(points: Sequence[Point]) -> float:
    """Slice by slice along the last coordinate, each with the volume of what reaches into it."""
    if len(points[0]) == 1:
        return max(point[0] for point in points)
    ordered = sorted(points, key=lambda point: -point[-1])
    lower = [point[-1] for point in ordered[1:]] + [0.0]
    return sum(
        (point[-1] - below) * _volume([one[:-1] for one in ordered[: index + 1]])
        for index, (point, below) in enumerate(zip(ordered, lower, strict=True))
        if point[-1] > below
    )


PREFIX = "confirmed "


@dataclass(frozen=True)
class Confirmation:
    """A trial trained again with seeds that had no part in making it a leader.

    The search's own value is not among them: a leader was picked by it, so luck is in it more than in others.

    Attributes:
        mean: Of the accuracies; None where there are none.
        half_width: Of the mean's 95% interval over seeds, on the same validation images; None for fewer than
            three accuracies.
        accuracies: By seed.
        diverged: Seeds with which it diverged.
    """

    mean: float | None
    half_width: float | None
    accuracies: dict[int, float]
    diverged: tuple[int, ...]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the mean's 95% interval, which an accuracy keeps within 0 and 1."""
        if self.mean is None or self.half_width is None:
            return None
        return max(0.0, self.mean - self.half_width), min(1.0, self.mean + self.half_width)

    @classmethod
    def of(cls, results: Mapping[int, Mapping[str, Any]], images: int) -> "Confirmation":
        """From what was kept of each seed.

        Args:
            results: `{"accuracy": ...}` or `{"failure": "diverged"}` by seed.
            images: How many validation images the accuracies are shares of.
        """
        accuracies = {seed: result["accuracy"] for seed, result in results.items() if "accuracy" in result}
        values = list(accuracies.values())
        return cls(
            mean=fmean(values) if values else None,
            half_width=half_width(values, 1 / images),
            accuracies=accuracies,
            diverged=tuple(seed for seed, result in results.items() if "failure" in result),
        )


def keep_confirmation(study: optuna.Study, number: int, seed: int, result: Mapping[str, Any]) -> None:
    """Keeps one training's result as an attribute of its own, which no other process writes over."""
    study.set_user_attr(f"{PREFIX}{number}/{seed}", dict(result))


def read_confirmations(study: optuna.Study, images: int) -> dict[int, Confirmation]:
    """Those of a study by their trials' numbers; `images` are those that validate."""
    results: dict[int, dict[int, Any]] = {}
    for key, result in study.user_attrs.items():
        if key.startswith(PREFIX):
            number, seed = map(int, key.removeprefix(PREFIX).split("/"))
            results.setdefault(number, {})[seed] = result
    return {
        number: Confirmation.of(dict(sorted(by_seed.items())), images) for number, by_seed in results.items()
    }
