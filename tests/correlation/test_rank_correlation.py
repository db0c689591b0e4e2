"""Rank correlations: scipy's values, intervals with their coverage, noise ceilings of known noise."""

import time

import numpy as np
import pytest
from examples import soaked
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas_recalib.correlation.rank_correlation import (
    Interval,
    noise_ceiling,
    rank_correlation,
    tau_difference,
)


def pairs(element):
    return st.lists(st.tuples(element, element), min_size=2, max_size=25).map(
        lambda p: tuple(zip(*p, strict=True))
    )


def normals(seed, count, correlation):
    x, noise = np.random.default_rng(seed).standard_normal((2, count))
    return x, correlation * x + np.sqrt(1 - correlation**2) * noise


def undefined(interval):
    return all(np.isnan([interval.value, interval.low, interval.high]))


@given(pairs(st.integers(0, 4)) | pairs(st.floats(-1e300, 1e300)))
def test_the_values_are_scipys_with_ties_too(both):
    x, y = both
    found = rank_correlation(x, y, seed=0, resamples=50)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert undefined(found.tau)
        assert undefined(found.rho)
    else:
        assert found.tau.value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
        assert found.rho.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


def test_every_resample_is_scipys_on_the_architectures_drawn():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 6, 20), rng.standard_normal(20)
    drawn = np.random.default_rng(3).multinomial(20, np.full(20, 1 / 20), size=300)
    taken = [np.repeat(np.arange(20), row) for row in drawn]
    found = rank_correlation(x, y, seed=3, resamples=300)
    for name, scipys in (("tau", stats.kendalltau), ("rho", stats.spearmanr)):
        expected = np.quantile([scipys(x[i], y[i]).statistic for i in taken], (0.025, 0.975))
        interval = getattr(found, name)
        assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=1e-12)


def test_diverged_trainings_rank_lowest_and_together():
    lost = rank_correlation([float("nan"), 0.3, -np.inf, 0.5, 0.4], [0.1, 0.3, 0.2, 0.5, 0.4], seed=0)
    ranked = rank_correlation([0.0, 0.3, 0.0, 0.5, 0.4], [0.1, 0.3, 0.2, 0.5, 0.4], seed=0)
    assert lost == ranked
    assert lost.tau.value == pytest.approx(9 / np.sqrt(9 * 10))


@pytest.mark.parametrize(("values", "reference"), [([1, 1, 1], [1, 2, 3]), ([1], [2]), ([], [])])
def test_what_tells_nothing_apart_has_no_value(values, reference):
    found = rank_correlation(values, reference, seed=0)
    assert undefined(found.tau)
    assert undefined(found.rho)


def test_one_seed_gives_one_answer():
    x, y = normals(0, 30, 0.5)
    assert rank_correlation(x, y, seed=4) == rank_correlation(x, y, seed=4)
    assert rank_correlation(x, y, seed=4) != rank_correlation(x, y, seed=5)


@pytest.mark.parametrize("correlation", soaked([0.0, 0.6, 0.9], [0.6]))
def test_intervals_hold_the_truth_as_often_as_they_promise(correlation):
    tau, rho = 2 / np.pi * np.arcsin(correlation), 6 / np.pi * np.arcsin(correlation / 2)
    found = [rank_correlation(*normals(s, 50, correlation), seed=s, resamples=400) for s in range(200)]
    assert 0.88 <= np.mean([f.tau.low <= tau <= f.tau.high for f in found]) <= 0.99
    assert 0.88 <= np.mean([f.rho.low <= rho <= f.rho.high for f in found]) <= 0.99


def test_differences_are_of_the_same_architectures():
    truth = np.random.default_rng(0).standard_normal(60)
    good = truth + 0.3 * np.random.default_rng(1).standard_normal(60)
    poor = truth + 3 * np.random.default_rng(2).standard_normal(60)
    nearly = good + 0.01 * np.random.default_rng(3).standard_normal(60)
    assert tau_difference(good, poor, truth, seed=0).above_zero
    difference = tau_difference(nearly, good, truth, seed=0)
    assert difference.contains_zero
    alone = rank_correlation(good, truth, seed=0).tau
    assert difference.high - difference.low < (alone.high - alone.low) / 4, "common luck cancels"
    taus = [rank_correlation(values, truth, seed=0).tau.value for values in (good, poor)]
    assert tau_difference(good, poor, truth, seed=0).value == pytest.approx(taus[0] - taus[1])
    assert tau_difference(good, good, truth, seed=0) == Interval(0.0, 0.0, 0.0)
    assert undefined(tau_difference(np.ones(60), good, truth, seed=0))


def test_differences_hold_the_truth_as_often_as_they_promise():
    taus = [2 / np.pi * np.arcsin(c) for c in (0.8, 0.5)]
    held = []
    for seed in range(200):
        truth, first, second = np.random.default_rng(seed).standard_normal((3, 50))
        good, poor = (c * truth + np.sqrt(1 - c**2) * n for c, n in ((0.8, first), (0.5, second)))
        found = tau_difference(good, poor, truth, seed=seed, resamples=400)
        held.append(found.low <= taus[0] - taus[1] <= found.high)
    assert 0.88 <= np.mean(held) <= 0.99


def measured(seed, *, architectures=60, seeds=3, among=0.02, within=0.01):
    rng = np.random.default_rng(seed)
    return (
        0.5
        + among * rng.standard_normal((architectures, 1))
        + within * rng.standard_normal((architectures, seeds))
    )


def test_the_ceiling_finds_the_noise_that_was_put_in():
    found = [noise_ceiling(measured(seed), seed=seed, resamples=200) for seed in range(60)]
    assert np.mean([f.seed_std for f in found]) == pytest.approx(0.01, rel=0.03)
    assert np.mean([f.architecture_std for f in found]) == pytest.approx(0.02, rel=0.05)
    between = 2 / np.pi * np.arcsin(0.02**2 / (0.02**2 + 0.01**2))
    assert np.mean([f.between_seeds.value for f in found]) == pytest.approx(between, abs=0.02)
    against_means = 2 / np.pi * np.arcsin(np.sqrt(0.02**2 / (0.02**2 + 0.01**2 / 3)))
    assert np.mean([f.expected.value for f in found]) == pytest.approx(against_means, abs=0.02)


def test_the_truth_agrees_with_measured_means_as_the_ceiling_expects():
    expected = noise_ceiling(measured(0, architectures=2000), seed=0, resamples=10).expected.value
    reached = []
    for seed in range(100):
        rng = np.random.default_rng((seed, 9))
        truth = 0.02 * rng.standard_normal(60)
        means = truth + 0.01 * rng.standard_normal((3, 60)).mean(axis=0)
        reached.append(stats.kendalltau(truth, means).statistic)
    assert np.mean(reached) == pytest.approx(expected, abs=0.02)
    spread = noise_ceiling(measured(1), seed=0).expected
    assert np.mean([spread.low - 0.05 <= tau <= spread.high + 0.05 for tau in reached]) > 0.9


def test_noise_alone_and_no_noise_are_the_ends():
    noise = noise_ceiling(measured(0, among=0.0, architectures=400), seed=0, resamples=200)
    assert noise.architecture_std < 0.003
    assert abs(noise.between_seeds.value) < 0.1
    exact = noise_ceiling(np.repeat(np.arange(20.0)[:, None], 3, axis=1), seed=0)
    assert exact.expected == exact.between_seeds == Interval(1.0, 1.0, 1.0)
    assert exact.seed_std == 0.0
    below = noise_ceiling([[0.1, 0.5], [0.5, 0.1], [0.2, 0.4]], seed=0)
    assert below.architecture_std == 0.0, "the means are closer than their noise: not below 0"


def test_one_seed_says_nothing_of_noise():
    single = noise_ceiling(measured(0, seeds=1), seed=0)
    assert undefined(single.between_seeds)
    assert undefined(single.expected)
    assert np.isnan([single.seed_std, single.architecture_std]).all()
    same = noise_ceiling(np.ones((5, 2)), seed=0)
    assert undefined(same.expected)
    assert same.seed_std == 0.0


def test_a_diverged_run_does_not_spoil_the_noise_of_the_others():
    runs = measured(0)
    known = noise_ceiling(runs, seed=0)
    spoilt = noise_ceiling(np.vstack([runs, [0.5, np.nan, 0.5]]), seed=0)
    assert spoilt.seed_std == known.seed_std
    assert not undefined(spoilt.between_seeds)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="values: 2 for 3 reference values"):
        rank_correlation([1, 2], [1, 2, 3], seed=0)
    with pytest.raises(ValueError, match="resamples: 0 is not at least 1"):
        rank_correlation([1, 2], [1, 2], seed=0, resamples=0)
    with pytest.raises(ValueError, match=r"runs: expected \(architectures, seeds\), got \(3,\)"):
        noise_ceiling([1.0, 2.0, 3.0], seed=0)


def test_thirty_signals_of_sixty_architectures_take_seconds_at_most():
    start = time.perf_counter()
    for seed in range(30):
        rank_correlation(*normals(seed, 60, 0.5), seed=0)
    assert time.perf_counter() - start < 5
