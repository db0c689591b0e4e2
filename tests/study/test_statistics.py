"""Confidence intervals and paired comparisons of a few seeds: SciPy's values, coverage and error rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas_recalib.study.statistics import distinguishable_pairs, half_width

PAIR = frozenset({1, 2})


def by_seed(values):
    return dict(enumerate(map(float, values), start=1))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=12).filter(lambda values: np.std(values) > 1e-6))
def test_the_interval_is_that_of_scipy(values):
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2, rel=1e-8)


def test_two_values_have_no_interval_and_equal_ones_none_of_width_0():
    assert half_width([0.5]) is None
    assert half_width([0.4, 0.8]) is None, "it would be 2.5 wide on either side"
    assert half_width([0.5] * 3, 1 / 400) > 0
    assert not distinguishable_pairs({1: {1: 0.7}, 2: {1: 0.1}}, 1 / 400)
    assert not distinguishable_pairs({1: by_seed([0.7, 0.7]), 2: by_seed([0.1, 0.1])}, 1 / 400)
    tight = {1: by_seed([0.5025] * 3), 2: by_seed([0.5] * 3)}
    assert distinguishable_pairs(tight, 1 / 400) == set(), "one image three times: rounding may do that"
    assert distinguishable_pairs(tight, 1 / 40_000) == {PAIR}


@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_interval_covers_the_mean_in_95_of_100_draws(count):
    draws = np.random.default_rng(count).normal(0.7, 0.01, (2000, count))
    held = [abs(row.mean() - 0.7) <= half_width(row.tolist(), 1 / 5000) for row in draws]
    assert np.mean(held) == pytest.approx(0.95, abs=0.016)


@given(st.integers(3, 8), st.floats(0, 0.05), st.integers(0, 10_000))
def test_two_are_distinguishable_if_the_paired_interval_excludes_zero(count, gap, seed):
    first, second = np.random.default_rng(seed).normal([[gap], [0]], 0.01, (2, count))
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    apart = interval.low > 0 or interval.high < 0
    assert distinguishable_pairs({1: by_seed(first), 2: by_seed(second)}) == ({PAIR} if apart else set())


@given(st.integers(3, 5), st.integers(3, 6), st.integers(0, 10_000))
def test_several_are_compared_by_holms_procedure(trials, count, seed):
    """A naive loop: the smallest p-value against 5% / m, the next against 5% / (m - 1), until one is not."""
    draw = np.random.default_rng(seed)
    table = draw.normal(0, 0.01, (trials, count)) + draw.normal(0, 0.05, (trials, 1))
    ps = sorted(
        (stats.ttest_rel(table[a], table[b]).pvalue, frozenset({a, b}))
        for a in range(trials)
        for b in range(a)
    )
    expected = set()
    for index, (p, pair) in enumerate(ps):
        if p > 0.05 / (len(ps) - index):
            break
        expected.add(pair)
    assert distinguishable_pairs({number: by_seed(row) for number, row in enumerate(table)}) == expected


def test_only_common_seeds_are_compared():
    first = {1: 0.71, 2: 0.72, 3: 0.70, 4: 0.1}
    second = {1: 0.61, 2: 0.621, 3: 0.60, 5: 0.99}
    assert distinguishable_pairs({1: first, 2: second}) == {PAIR}
    assert distinguishable_pairs({1: first, 2: {1: 0.61, 7: 0.6}}) == set(), "one common seed is not enough"


@pytest.mark.parametrize(("seeds", "images"), [(3, 100), (3, 5000), (5, 1000)])
def test_equal_leaders_are_distinguished_in_5_of_100_studies_at_most(seeds, images):
    """Accuracies are shares of a few images, so that equal differences are no rarity."""
    draws = np.random.default_rng(seeds).normal(0.7, 0.01, (1000, 4, seeds))
    draws += np.random.default_rng(images).normal(0, 0.01, (1000, 1, seeds))
    rounded = np.round(draws * images) / images
    wrong = [
        bool(distinguishable_pairs({number: by_seed(row) for number, row in enumerate(table)}, 1 / images))
        for table in rounded
    ]
    assert np.mean(wrong) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize(("seeds", "expected"), [(3, 0.29), (5, 0.85)])
def test_a_lead_of_three_deviations_is_significant_as_often_as_the_readme_says(seeds, expected):
    draws = np.random.default_rng(seeds).normal([[0.73], [0.7], [0.7], [0.7]], 0.01, (1000, 4, seeds))
    found = [
        distinguishable_pairs({n: by_seed(row) for n, row in enumerate(table)}, 1 / 5000) for table in draws
    ]
    share = np.mean([any(frozenset({0, n}) in pairs for n in (1, 2, 3)) for pairs in found])
    assert share == pytest.approx(expected, abs=0.04)
