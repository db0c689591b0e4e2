"""What a few seeds tell: how wide a mean's interval is, and which means are told apart."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations

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


def told_apart(values: Mapping[int, Mapping[int, float]], finest: float = 0.0) -> frozenset[frozenset[int]]:
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
