"""Budgets against an enumeration of every architecture."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nas_recalib.costs import Budget, Cost, CostTable, Feasible, format_quantity, parse_quantity
from nas_recalib.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4G", 4 * 10**9),
        ("4g", 4 * 10**9),
        (" 4 G ", 4 * 10**9),
        ("4.1e9", 4_100_000_000),
        ("4.089184256G", 4_089_184_256),
        ("500M", 500_000_000),
        (".5k", 500),
        ("1.T", 10**12),
        ("2e+3M", 2 * 10**9),
        ("26000000", 26_000_000),
        ("0.0019M", 1900),
        ("1.9999", 1),
        ("1", 1),
    ],
)
def test_reads_a_quantity(text, value):
    assert parse_quantity(text, "budget") == value


@pytest.mark.parametrize(
    "text",
    ["", "G", "0", "0.9", "0G", "-4G", "+4G", "4GB", "4 G G", "4,1G", "1e-3", "1e1.5", "nan", "inf", "."],
)
def test_refuses_what_is_not_a_quantity(text):
    with pytest.raises(InputError) as refusal:
        Budget.parse(params=text)
    assert str(refusal.value) == f"params: {text!r} is not a quantity; write it like 4G, 4.1e9 or 500M"


@pytest.mark.parametrize(
    ("value", "text"), [(4_089_184_256, "4.089G"), (25_557_032, "25.557M"), (1_500, "1.500k"), (999, "999")]
)
def test_writes_a_quantity(value, text):
    assert format_quantity(value) == text


def test_limits_are_inclusive_and_each_may_be_missing():
    cost = Cost(100, 10)
    assert all(b.allows(cost) for b in (Budget(), Budget(100), Budget(params=10), Budget(100, 10)))
    assert not any(b.allows(cost) for b in (Budget(99), Budget(params=9), Budget(99, 10), Budget(100, 9)))


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget.parse("4G", "26M"), "4.000G macs and 26.000M params"),
        (Budget.parse(params="26M"), "26.000M params"),
        (Budget.parse(), "no limit"),
    ],
)
def test_a_budget_reads_as_text(budget, text):
    assert str(budget) == text


costs = st.integers(0, 20)
rows = st.lists(st.tuples(costs, costs), min_size=1, max_size=4)
tables = st.builds(
    lambda constant, entries: CostTable(np.array(constant), tuple(map(np.array, entries))),
    st.tuples(costs, costs),
    st.lists(rows, min_size=1, max_size=4),
)
limits = st.none() | st.integers(1, 90)


def everything(table):
    return product(*(range(len(entry)) for entry in table.entries))


def within(table, budget):
    return [picks for picks in everything(table) if budget.allows(table.cost(picks))]


@settings(max_examples=150)
@given(tables, st.builds(Budget, limits, limits), st.integers(0, 2**32))
def test_never_leaves_the_budget(table, budget, seed):
    """Raises if and only if nothing fits; what it gives fits, and what fitted already is given back."""
    fitting = within(table, budget)
    if not fitting:
        with pytest.raises(InputError, match=r"^budget: "):
            Feasible(table, budget)
        return
    feasible, random = Feasible(table, budget), np.random.default_rng(seed)
    for _ in range(4):
        assert feasible.sample(random) in fitting
    for picks in everything(table):
        near = feasible.nearest(picks, random)
        assert near == picks if picks in fitting else near in fitting


@settings(max_examples=60)
@given(tables, st.integers(0, 300), st.integers(0, 2**32))
def test_a_budget_that_one_architecture_alone_meets_gives_that_one(table, index, seed):
    """Its own cost as the budget, where no other is as cheap in both."""
    architectures = list(everything(table))
    chosen = architectures[index % len(architectures)]
    cost = table.cost(chosen)
    budget = Budget(cost.macs, cost.params)
    assume(within(table, budget) == [chosen])
    feasible, random = Feasible(table, budget), np.random.default_rng(seed)
    assert {feasible.sample(random) for _ in range(5)} == {chosen}
    assert {feasible.nearest(picks, random) for picks in architectures} == {chosen}


TABLE = CostTable(
    np.array([5, 5]),
    (np.array([[0, 3], [2, 2], [4, 0]]), np.array([[1, 1], [6, 0]]), np.array([[0, 5], [3, 3], [5, 1]])),
)


@pytest.mark.parametrize("budget", [Budget(), Budget(12), Budget(params=9), Budget(13, 11), Budget(17, 8)])
def test_every_architecture_within_can_be_drawn(budget):
    feasible, random = Feasible(TABLE, budget), np.random.default_rng(0)
    drawn = Counter(feasible.sample(random) for _ in range(1000))
    assert set(drawn) == set(within(TABLE, budget))


def test_draws_follow_from_the_generator():
    feasible = Feasible(TABLE, Budget(13, 11))
    first, again, *others = (feasible.sample(np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3))
    assert first == again
    assert {*others} != {first}


@pytest.mark.parametrize("seed", range(8))
def test_nearest_keeps_every_pick_that_leaves_room(seed):
    """One position alone is over budget: all others stay."""
    table = CostTable(np.array([0, 0]), (np.array([[1, 1], [100, 1]]), *[np.array([[2, 2], [1, 1]])] * 5))
    near = Feasible(table, Budget(11)).nearest((1, 0, 0, 0, 0, 0), np.random.default_rng(seed))
    assert near == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(5), r"budget: 5 macs is below the least possible cost, 6 \(6\)"),
        (Budget(None, 5), r"budget: 5 params is below the least possible cost, 6 \(6\)"),
        (Budget(6, 6), "budget: no architecture is within 6 macs and 6 params at once; the least"),
    ],
)
def test_says_what_would_have_been_possible(budget, message):
    with pytest.raises(InputError, match=message):
        Feasible(TABLE, budget)


@pytest.mark.parametrize("budget", [Budget(12), Budget(13, 11), Budget(17, 8), Budget(30, 30)])
def test_enumerates_every_architecture_within_once(budget):
    feasible = Feasible(TABLE, budget)
    listed = list(feasible.enumerate(np.random.default_rng(0)))
    assert len(listed) == len(set(listed))
    assert set(listed) == set(within(TABLE, budget))
    assert listed == list(feasible.enumerate(np.random.default_rng(0)))
