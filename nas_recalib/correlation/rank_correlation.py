"""Kendall's tau and Spearman's rho with bootstrap intervals, and the ceiling that seed noise sets to both."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_TAILS = (0.025, 0.975)  # of a 95% interval


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval; all three are NaN where the estimate is undefined.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __format__(self, sign: str) -> str:
        """Return text such as `0.52 (0.40 to 0.63)`, `-` for NaN; the format "+" writes every sign."""
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
    def contains_zero(self) -> bool:
        """Whether 0 is within the interval."""
        return self.low <= 0 <= self.high


NO_INTERVAL = Interval(nan, nan, nan)


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of two orders of the same architectures: 1 is the same order, 0 none, -1 the reverse.

    Attributes:
        tau: Kendall's tau-b: the share of pairs in the same order minus the share in the opposite order.
        rho: Spearman's rank correlation.
    """

    tau: Interval
    rho: Interval


@dataclass(frozen=True)
class NoiseCeiling:
    """Upper bound that seed noise sets to the tau of any signal; NaN where there are fewer than two seeds.

    Attributes:
        between_seeds: Kendall's tau between the accuracies of two seeds, averaged over all pairs of seeds.
        expected: Tau that the true mean accuracies would reach against the measured means of all seeds; its
            interval holds 95% of simulated draws of as many architectures.
        seed_std: Standard deviation of one seed's accuracy, within architectures.
        architecture_std: Standard deviation of the true mean accuracy between architectures.
    """

    between_seeds: Interval
    expected: Interval
    seed_std: float
    architecture_std: float


def rank_correlation(
    values: Sequence[float], reference: Sequence[float], *, seed: int, resamples: int = 2000
) -> RankCorrelation:
    """Return tau and rho of a signal with the reference, with percentile bootstrap intervals.

    Args:
        values: Value of the signal for each architecture; NaN and minus infinity share the lowest rank.
        reference: Reference value for each architecture, ranked in the same way.
        seed: Seed of the bootstrap over architectures.
        resamples: Number of bootstrap resamples.

    Returns:
        Both correlations; NaN if the signal or the reference is the same for all architectures.

    Raises:
        ValueError: If the lengths differ, or there are no resamples.
    """
    signs = _both_signs(values, reference)
    weights = _bootstrap_weights(len(values), seed, resamples)
    return RankCorrelation(_interval(_taus(weights, *signs)), _interval(_rhos(weights, *signs)))


def tau_difference(
    a: Sequence[float], b: Sequence[float], reference: Sequence[float], *, seed: int, resamples: int = 2000
) -> Interval:
    """Return the tau of signal `a` with the reference minus that of `b`, both on the same resamples.

    Raises:
        ValueError: If the lengths differ, or there are no resamples.
    """
    weights = _bootstrap_weights(len(reference), seed, resamples)
    first, second = (_taus(weights, *_both_signs(values, reference)) for values in (a, b))
    return _interval(first - second)


def noise_ceiling(runs: ArrayLike, *, seed: int, resamples: int = 2000) -> NoiseCeiling:
    """Return how far seed noise lets any signal correlate with the reference.

    The variances between architectures and between seeds are those of a one-way random-effects model, from
    the mean squares; architectures with a diverged run do not enter them.

    Args:
        runs: Accuracies of shape (architectures, seeds).
        seed: Seed of the bootstrap and of the simulation.
        resamples: Number of bootstrap resamples and of simulated draws.

    Raises:
        ValueError: If `runs` does not have two dimensions, or there are no resamples.
    """
    table = np.asarray(runs, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"runs: expected (architectures, seeds), got {table.shape}")
    weights = _bootstrap_weights(len(table), seed, resamples)
    signs = [_signs(column) for column in table.T]
    pairs = [_taus(weights, *pair) for pair in combinations(signs, 2)]
    between = _interval(np.mean(pairs, axis=0)) if pairs else NO_INTERVAL

    complete = table[np.isfinite(table).all(axis=1)]
    count, seeds = complete.shape
    if count < 2 or seeds < 2:
        return NoiseCeiling(between, NO_INTERVAL, nan, nan)
    within = float(complete.var(axis=1, ddof=1).mean())
    of_means = float(complete.mean(axis=1).var(ddof=1))
    among = max(0.0, of_means - within / seeds)
    reliability = among / (among + within / seeds) if among + within > 0 else nan
    expected = _simulated_tau(reliability, count, seed, resamples)
    return NoiseCeiling(between, expected, within**0.5, among**0.5)


def _simulated_tau(reliability: float, count: int, seed: int, draws: int) -> Interval:
    """Return the tau between normal true means and noisy ones.

    Args:
        reliability: Share of the noisy means' variance that the true means make up.
        count: Number of architectures.
        seed: Seed of the simulation.
        draws: Number of simulated sets of architectures.
    """
    if np.isnan(reliability):
        return NO_INTERVAL
    generator = np.random.default_rng((seed, 1))
    true, noise = generator.standard_normal((2, draws, count))
    true.sort(axis=1)
    noisy = np.sqrt(reliability) * true + np.sqrt(1 - reliability) * noise
    concordant = sum(np.sum(noisy[:, lag:] > noisy[:, :-lag], axis=1) for lag in range(1, count))
    taus = 4 * concordant / (count * (count - 1)) - 1
    return Interval(float(np.mean(taus)), *map(float, np.quantile(taus, _TAILS)))


def _signs(values: ArrayLike) -> Floats:
    """Return for each pair of values whether the first is greater (1), equal (0) or smaller (-1)."""
    array = np.asarray(values, dtype=np.float64)
    ranks = np.unique(np.where(np.isnan(array), -np.inf, array), return_inverse=True)[1]
    return np.sign(np.subtract.outer(ranks, ranks)).astype(np.float64)


def _both_signs(values: Sequence[float], reference: Sequence[float]) -> tuple[Floats, Floats]:
    if len(values) != len(reference):
        raise ValueError(f"values: {len(values)} for {len(reference)} reference values")
    return _signs(values), _signs(reference)


def _bootstrap_weights(count: int, seed: int, resamples: int) -> Floats:
    """Return how often each resample holds each architecture, of shape (1 + resamples, count).

    The first row is the original sample: each architecture once.
    """
    if resamples < 1:
        raise ValueError(f"resamples: {resamples} is not at least 1")
    if count == 0:
        return np.ones((1 + resamples, 0))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.vstack([np.ones((1, count)), drawn])


def _taus(weights: Floats, x: Floats, y: Floats) -> Floats:
    """Return tau-b of every resample; pairs of an architecture with itself tie in both, and drop out."""

    def over_pairs(of_pair: Floats) -> Floats:
        return np.asarray(np.sum((weights @ of_pair) * weights, axis=1))

    with np.errstate(invalid="ignore"):
        return np.asarray(over_pairs(x * y) / np.sqrt(over_pairs(x * x) * over_pairs(y * y)))


def _rhos(weights: Floats, x: Floats, y: Floats) -> Floats:
    """Return rho of every resample: the sum of a value's signs is twice its mid-rank minus the mean rank."""
    ranks_x, ranks_y = weights @ x.T, weights @ y.T

    def over_values(of_value: Floats) -> Floats:
        return np.asarray(np.sum(weights * of_value, axis=1))

    spread = np.sqrt(over_values(ranks_x**2) * over_values(ranks_y**2))
    with np.errstate(invalid="ignore"):
        return np.asarray(over_values(ranks_x * ranks_y) / spread)


def _interval(estimates: Floats) -> Interval:
    """Return the first estimate with percentiles of the others that are defined."""
    value, resampled = float(estimates[0]), estimates[1:][~np.isnan(estimates[1:])]
    if np.isnan(value) or not len(resampled):
        return NO_INTERVAL
    return Interval(value, *map(float, np.quantile(resampled, _TAILS)))
