"""Architectures of a slice: in it, all different, and each as likely as any other."""

from collections import Counter

import numpy as np
import pytest

from nas_recalib.correlation.setup import draw, slice_of
from nas_recalib.costs import Budget, Feasible
from nas_recalib.errors import InputError
from nas_recalib.space import SearchSpace

SMALL = """
name: small
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv, psconv]
recalibration: [none, ab, ab-plus]
"""


@pytest.fixture(scope="module")
def space():
    return SearchSpace.parse(SMALL, "small")


@pytest.mark.parametrize("within", [0.02, 0.05, 0.2])
def test_all_costs_are_within_the_slice(space, within):
    upper = slice_of(space, Budget(), within, seed=3)
    drawn = draw(space, upper, within, 20, seed=3)
    assert len(set(drawn)) == len(drawn) == 20
    for architecture in drawn:
        cost = architecture.cost()
        assert (1 - within) * upper.macs <= cost.macs <= upper.macs
        assert (1 - within) * upper.params <= cost.params <= upper.params


def test_the_median_is_in_the_middle_where_nothing_else_is_asked(space):
    upper = slice_of(space, Budget(), 0.1, seed=0)
    random = np.random.default_rng(5)
    costs = space.table.costs(space.feasible().sample_many(5000, random))
    for name, middle in zip(("macs", "params"), np.median(costs, axis=0), strict=True):
        assert upper.limits()[name] == pytest.approx(middle * 1.05, rel=0.005)
    assert slice_of(space, Budget(macs=39_000_000), 0.1, seed=0).macs == 39_000_000


def test_more_are_drawn_after_the_same_first_ones(space):
    upper = slice_of(space, Budget(), 0.05, seed=1)
    assert draw(space, upper, 0.05, 30, seed=1)[:10] == draw(space, upper, 0.05, 10, seed=1)
    assert draw(space, upper, 0.05, 10, seed=2) != draw(space, upper, 0.05, 10, seed=1)


def test_each_of_the_slice_is_as_likely_as_any_other(space, monkeypatch):
    upper = slice_of(space, Budget(), 0.01, seed=0)
    prepared_once = Feasible(space.table, upper)
    monkeypatch.setattr("nas_recalib.correlation.setup.Feasible", lambda *_: prepared_once)
    monkeypatch.setattr("nas_recalib.correlation.setup._AT_ONCE", 500)
    limits = np.array([upper.macs, upper.params])
    every = np.stack(np.meshgrid(*[np.arange(9)] * 3), axis=-1).reshape(-1, 3)
    costs = space.table.costs(every)
    inside = {
        space.from_indices(tuple(indices))
        for indices in every[((costs >= 0.99 * limits) & (costs <= limits)).all(1)]
    }
    rounds = 400
    seen = Counter(draw(space, upper, 0.01, 1, seed=seed)[0] for seed in range(rounds))
    assert set(seen) <= inside
    expected = rounds / len(inside)
    chi_square = sum((seen[one] - expected) ** 2 / expected for one in inside)
    freedom = len(inside) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


def test_a_slice_without_enough_is_refused(space):
    with pytest.raises(InputError, match=r"within: .* different ones .* 700 were asked for"):
        draw(space, slice_of(space, Budget(), 0.01, seed=0), 0.01, 700, seed=0)
    with pytest.raises(InputError, match="budget"):
        slice_of(space, Budget(macs=1000), 0.05, seed=0)
