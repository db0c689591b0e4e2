"""Rank correlations with their uncertainty, and how far the noise of seeds lets any signal agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_SHARE = 0.95
_TAILS = ((1 - _SHARE) / 2, (1 + _SHARE) / 2)


@dataclass(frozen=True)
class Interval:
    """A value and the interval around it that holds 95%; not a number where there is none.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __format__(self, sign: str) -> str:
        """As in `0.52 (0.40 to 0.63)`; "+" shows every sign, and what is not a number is "-"."""
        if isnan(self.value):
            return "-"
        value, low, high = (f"{number:{sign}z.2f}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"

    def __str__(self) -> str:
        return format(self, "")

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    @property
    def holds_zero(self) -> bool:
        """Whether 0 is within the interval."""
        return self.low <= 0 <= self.high


NO_INTERVAL = Interval(nan, nan, nan)


@dataclass(frozen=True)
class Agreement:
    """How far two orders of the same architectures agree: 1 wholly, 0 not at all, -1 reversed.

    Attributes:
        tau: Kendall's tau-b: what share of the pairs stand in the same order, less what share do not.
        rho: Spearman's rank correlation.
    """

    tau: Interval
    rho: Interval


@dataclass(frozen=True)
class Ceiling:
    """How far the noise of seeds lets any signal agree with the reference; not numbers under two seeds.

    Attributes:
        between_seeds: Kendall's tau between one seed's accuracies and another's, averaged over their pairs.
        expected: The tau that the true means would reach against the measured means of all seeds; the
            interval is where 95% of the draws of so many architectures fall.
        seed_std: Standard deviation of one seed's accuracy, within architectures.
        architecture_std: Standard deviation between architectures without the noise of seeds.
    """

    between_seeds: Interval
    expected: Interval
    seed_std: float
    architecture_std: float


def agreement(
    values: Sequence[float], reference: Sequence[float], *, seed: int, rounds: int = 2000
) -> Agreement:
    """Rank correlations of a signal with the reference.

    Args:
        values: The signal's, one for each architecture. Not-a-number and minus infinity rank
            lowest, together.
        reference: What they are held against, likewise.
        seed: Of the bootstrap over architectures, whose percentiles the intervals are.
        rounds: Of the bootstrap.

    Returns:
        Not numbers if either is the same for all architectures.

    Raises:
        ValueError: If there are not as many values as reference values, or no rounds.
    """
    signs = _both_signs(values, reference)
    weights = _resamples(len(values), seed, rounds)
    return Agreement(_interval(_taus(weights, *signs)), _interval(_rhos(weights, *signs)))


def beats(
    a: Sequence[float], b: Sequence[float], reference: Sequence[float], *, seed: int, rounds: int = 2000
) -> Interval:
    """Tau of one signal with the reference less that of another, both on the same resamples.

    Raises:
        ValueError: If there are not as many values as reference values, or no rounds.
    """
    weights = _resamples(len(reference), seed, rounds)
    first, second = (_taus(weights, *_both_signs(values, reference)) for values in (a, b))
    return _interval(first - second)


def ceiling(runs: ArrayLike, *, seed: int, rounds: int = 2000) -> Ceiling:
    """What the seeds' disagreement says of the reference.

    Variance between architectures and between seeds is that of one-way random effects, from the mean squares.
    For it architectures with a diverged run are left out.

    Args:
        runs: Accuracies (architectures, seeds).
        seed: Of the bootstrap and of the simulation.
        rounds: Of either.

    Raises:
        ValueError: If the runs are no table, or there are no rounds.
    """
    table = np.asarray(runs, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"runs: expected (architectures, seeds), got {table.shape}")
    weights = _resamples(len(table), seed, rounds)
    signs = [_signs(column) for column in table.T]
    pairs = [_taus(weights, *pair) for pair in combinations(signs, 2)]
    between = _interval(np.mean(pairs, axis=0)) if pairs else NO_INTERVAL

    whole = table[np.isfinite(table).all(axis=1)]
    count, seeds = whole.shape
    if count < 2 or seeds < 2:
        return Ceiling(between, NO_INTERVAL, nan, nan)
    within = float(whole.var(axis=1, ddof=1).mean())
    of_means = float(whole.mean(axis=1).var(ddof=1))
    among = max(0.0, of_means - within / seeds)
    reliability = among / (among + within / seeds) if among + within > 0 else nan
    expected = _expected(reliability, count, seed, rounds)
    return Ceiling(between, expected, within**0.5, among**0.5)


def _expected(reliability: float, count: int, seed: int, rounds: int) -> Interval:
    """Tau between normal true means and noisy ones, of whose variance the true means make that share."""
    if np.isnan(reliability):
        return NO_INTERVAL
    generator = np.random.default_rng((seed, 1))
    true, noise = generator.standard_normal((2, rounds, count))
    true.sort(axis=1)
    noisy = np.sqrt(reliability) * true + np.sqrt(1 - reliability) * noise
    alike = sum(np.sum(noisy[:, lag:] > noisy[:, :-lag], axis=1) for lag in range(1, count))
    taus = 4 * alike / (count * (count - 1)) - 1
    return Interval(float(np.mean(taus)), *map(float, np.quantile(taus, _TAILS)))


def _signs(values: ArrayLike) -> Floats:
    """For each pair of values, whether the first is greater (1), equal (0) or smaller (-1)."""
    given = np.asarray(values, dtype=np.float64)
    ranks = np.unique(np.where(np.isnan(given), -np.inf, given), return_inverse=True)[1]
    return np.sign(np.subtract.outer(ranks, ranks)).astype(np.float64)


def _both_signs(values: Sequence[float], reference: Sequence[float]) -> tuple[Floats, Floats]:
    if len(values) != len(reference):
        raise ValueError(f"values: {len(values)} for {len(reference)} reference values")
    return _signs(values), _signs(reference)


def _resamples(count: int, seed: int, rounds: int) -> Floats:
    """How often each architecture is taken (1 + rounds, count); the first row takes each once."""
    if rounds < 1:
        raise ValueError(f"rounds: {rounds} is not at least 1")
    if count == 0:
        return np.ones((1 + rounds, 0))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=rounds)
    return np.vstack([np.ones((1, count)), drawn])


def _taus(weights: Floats, x: Floats, y: Floats) -> Floats:
    """Tau-b of every resample; the pairs of an architecture with itself are ties in both, and drop out."""

    def over_pairs(of_pair: Floats) -> Floats:
        return np.asarray(np.sum((weights @ of_pair) * weights, axis=1))

    with np.errstate(invalid="ignore"):
        return np.asarray(over_pairs(x * y) / np.sqrt(over_pairs(x * x) * over_pairs(y * y)))


def _rhos(weights: Floats, x: Floats, y: Floats) -> Floats:
    """Spearman's rho of every resample: the sum of a value's signs is twice its mid-rank less the mean."""
    ranks_x, ranks_y = weights @ x.T, weights @ y.T

    def over_values(of_value: Floats) -> Floats:
        return np.asarray(np.sum(weights * of_value, axis=1))

    spread = np.sqrt(over_values(ranks_x**2) * over_values(ranks_y**2))
    with np.errstate(invalid="ignore"):
        return np.asarray(over_values(ranks_x * ranks_y) / spread)


def _interval(estimates: Floats) -> Interval:
    """The first estimate, and percentiles of the resamples' that are defined."""
    value, resampled = float(estimates[0]), estimates[1:][~np.isnan(estimates[1:])]
    if np.isnan(value) or not len(resampled):
        return NO_INTERVAL
    return Interval(value, *map(float, np.quantile(resampled, _TAILS)))
