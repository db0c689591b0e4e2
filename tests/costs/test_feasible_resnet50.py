"""Counting, sampling and repair in the space of ResNet-50, which is too large to enumerate."""

import math

import numpy as np
import pytest

from nas_recalib.costs import COLUMNS, Budget, CostTable, Feasible
from nas_recalib.costs.knapsack import histogram
from nas_recalib.errors import InputError
from nas_recalib.space import SearchSpace


@pytest.fixture(scope="module")
def resnet50():
    return SearchSpace.load("resnet50").table


def with_latency(table):
    """Nanoseconds that follow MACs, but not closely, and a peak of bytes."""
    random = np.random.default_rng(3)
    latency = [20_000 + rows[:, 0] // 500 + random.integers(0, 10**5, len(rows)) for rows in table.entries]
    memory = [random.integers(10**8, 3 * 10**8, len(rows)) for rows in table.entries]
    return table.with_column("latency", 10**6, latency).with_column("memory", 10**8, memory)


@pytest.mark.parametrize(
    ("texts", "exact"),
    [
        (("4G",), True),
        (("3.75G",), True),
        (("4.2G",), False),
        ((None, "26M"), True),
        (("4G", "30M"), False),
        (("3.9G", "30M", "11.5ms"), False),
        (("4G", None, None, "250MB"), True),
    ],
)
def test_no_draw_is_over_budget_in_resnet50(resnet50, texts, exact):
    table, budget = with_latency(resnet50), Budget.parse(*texts)
    feasible = Feasible(table, budget)
    costs = table.costs(feasible.sample_many(10_000, np.random.default_rng(0)))
    most = dict(zip(table.names, costs.max(axis=0).tolist(), strict=True))
    assert budget.allows(most)
    assert any(most[name] > 0.95 * limit for name, limit in budget.limits().items()), "and it is made use of"
    assert (not any(feasible.slack.values())) == exact
    random = np.random.default_rng(1)
    for indices in random.integers(24, size=(200, 16)).tolist():
        near = feasible.repair(indices, random)
        assert feasible.allows(near)
        assert near == tuple(indices) or not feasible.allows(indices)


def test_the_share_within_is_that_of_random_architectures(resnet50):
    """Against rejection: of 200,000 draws from the whole space, as many are within 4.1G as are counted."""
    random = np.random.default_rng(0)
    macs = resnet50.costs(random.integers(24, size=(200_000, 16)))[:, 0]
    for limit in (4_050_000_000, 4_100_000_000, 4_250_000_000):
        share = Feasible(resnet50, Budget(limit)).count() / 24**16
        assert abs((macs <= limit).mean() - share) < 4 * math.sqrt(share * (1 - share) / len(macs))


def test_limits_that_nothing_reaches_change_nothing(resnet50):
    most = resnet50.greatest()
    assert Feasible(resnet50, Budget()).count() == 24**16
    assert Feasible(resnet50, Budget(**most)).count() == 24**16
    assert Feasible(resnet50, Budget(most["macs"] - 1)).count() < 24**16
    alone, both = Budget(3_800_000_000), Budget(3_800_000_000, most["params"])
    assert Feasible(resnet50, alone).count() == Feasible(resnet50, both).count()


def test_at_the_least_cost_the_cheapest_are_left_and_below_it_none(resnet50):
    least = resnet50.least()["macs"]
    cheapest = [np.flatnonzero(rows[:, 0] == rows[:, 0].min()) for rows in resnet50.entries]
    feasible = Feasible(resnet50, Budget(least))
    assert feasible.count() == math.prod(map(len, cheapest))
    drawn = feasible.sample_many(200, np.random.default_rng(0))
    assert all(set(column) <= set(some) for column, some in zip(drawn.T, cheapest, strict=True))
    with pytest.raises(InputError, match=r"is below the least possible cost, 3\.732G MACs \(3,732,119,552\)"):
        Feasible(resnet50, Budget(least - 1))


@pytest.mark.parametrize("names", [("macs", "params"), ("macs", "params", "latency")])
def test_the_cost_of_one_architecture_of_resnet50_gives_that_one(resnet50, names):
    """The cheapest by weight, so that no other is as cheap in all; costs are spread, no two alike."""
    random = np.random.default_rng(7)
    table = CostTable(
        COLUMNS[:3],
        np.append(resnet50.constant, 0),
        tuple(
            np.column_stack([rows, rows[:, 0] // 100]) + random.integers(0, 1000, size=(len(rows), 3))
            for rows in resnet50.entries
        ),
    )
    weights = np.where(np.isin(table.names, names), (1.0, 40.0, 90.0), 0.0)
    indices = tuple(int((rows @ weights).argmin()) for rows in table.entries)
    cost = table.cost(indices)
    feasible, random = (
        Feasible(table, Budget(**{name: cost[name] for name in names})),
        np.random.default_rng(0),
    )
    assert feasible.count() == 1
    assert set(feasible.slack.values()) == {0}
    assert feasible.sample(random) == indices
    assert list(feasible.enumerate(random)) == [indices]
    assert feasible.repair((0,) * 16, random) == indices


def test_a_histogram_counts_every_architecture_where_it_costs(resnet50):
    edges, counts = histogram(resnet50, bins=20)
    assert (edges[0], edges[-1]) == (resnet50.least()["macs"], resnet50.greatest()["macs"])
    assert sum(counts) == pytest.approx(24**16)
    random = np.random.default_rng(0)
    macs = resnet50.costs(random.integers(24, size=(100_000, 16)))[:, 0]
    seen = np.histogram(macs, edges)[0] / len(macs)
    assert np.abs(seen - np.array(counts) / 24**16).max() < 0.006
