"""Counting, sampling and repair within a budget, compared with an enumeration of all architectures."""

import math
from collections import Counter
from itertools import islice, product

import numpy as np
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from nas_recalib.costs import COLUMNS, Budget, CostTable, Feasible
from nas_recalib.costs.knapsack import CompletionCounts, ParetoFronts, histogram, pareto_front
from nas_recalib.errors import InputError

costs = st.integers(0, 20)


def table_of(columns):
    row = st.tuples(*[costs] * columns)
    entries = st.lists(st.lists(row, min_size=1, max_size=4), min_size=1, max_size=4)
    return st.builds(
        lambda constant, rows: CostTable(COLUMNS[:columns], np.array(constant), tuple(map(np.array, rows))),
        row,
        entries,
    )


tables = st.integers(2, 4).flatmap(table_of)
limits = st.none() | st.integers(1, 90)


@st.composite
def tables_and_budgets(draw):
    table = draw(tables)
    return table, Budget(**{name: draw(limits) for name in table.names})


def everything(table):
    return list(product(*(range(len(entry)) for entry in table.entries)))


def within(table, budget):
    return [indices for indices in everything(table) if budget.allows(table.cost(indices))]


@examples(250)
@given(tables_and_budgets(), st.integers(0, 2**32))
def test_is_what_an_enumeration_finds(table_and_budget, seed):
    """Raises if and only if nothing fits; what fits is counted, enumerated, drawn, and kept by repair."""
    table, budget = table_and_budget
    fitting = within(table, budget)
    if not fitting:
        with pytest.raises(InputError, match=r"^budget: "):
            Feasible(table, budget)
        return
    feasible, random = Feasible(table, budget), np.random.default_rng(seed)
    assert feasible.count() == len(fitting)
    assert set(feasible.slack.values()) <= {0}
    listed = list(feasible.enumerate(random))
    assert len(listed) == len(fitting)
    assert set(listed) == set(fitting)
    assert {tuple(indices) for indices in feasible.sample_many(20, random).tolist()} <= set(fitting)
    assert feasible.sample(random) in fitting
    for indices in everything(table)[:40]:
        near = feasible.repair(indices, random)
        assert feasible.allows(indices) == (indices in fitting)
        assert near == indices if indices in fitting else near in fitting


@examples(100)
@given(tables, st.integers(0, 300), st.integers(0, 2**32))
def test_a_budget_that_one_architecture_alone_meets_gives_that_one(table, index, seed):
    """The budget is the cost of an architecture that no other one matches in every column."""
    architectures = everything(table)
    chosen = architectures[index % len(architectures)]
    budget = Budget(**{name: max(cost, 1) for name, cost in table.cost(chosen).items()})
    assume(within(table, budget) == [chosen])
    feasible, random = Feasible(table, budget), np.random.default_rng(seed)
    assert {feasible.sample(random) for _ in range(5)} == {chosen}
    assert {feasible.repair(indices, random) for indices in architectures[:40]} == {chosen}


def above(table, columns):
    """Return the costs above each position's least."""
    return [entry[:, :columns] - entry[:, :columns].min(axis=0) for entry in table.entries]


@examples(150)
@given(tables, st.integers(1, 3), st.integers(1, 40), st.integers(8, 60))
def test_a_coarse_grid_leaves_out_nothing_that_is_under_by_its_slack(table, columns, room, most):
    rows = above(table, min(columns, len(table.names)))
    room = np.full(rows[0].shape[1], room)
    grid = CompletionCounts(rows, room, most)
    under = [
        room - sum(row[index] for row, index in zip(rows, indices, strict=True))
        for indices in everything(table)
    ]
    fitting = sum((left >= 0).all() for left in under)
    surely = sum((left >= grid.slack).all() for left in under)
    assert surely <= grid.count() <= fitting
    if not grid.slack.any():
        assert grid.count() == fitting
    if grid.count():
        drawn = grid.draw(50, np.random.default_rng(0))
        spent = sum(row[indices] for row, indices in zip(rows, drawn.T, strict=True))
        assert (spent <= room).all()


def skewed(columns):
    """Six positions of three choices whose costs have no divisor in common."""
    random = np.random.default_rng(5)
    entries = tuple(random.integers(0, 10**6, size=(3, columns)) for _ in range(6))
    return CostTable(COLUMNS[:columns], np.zeros(columns, dtype=np.int64), entries)


def assert_uniform(drawn, expected):
    seen = Counter(map(tuple, drawn.tolist()))
    assert set(seen) <= set(expected)
    assert chisquare([seen[indices] for indices in expected]).pvalue > 0.001


@pytest.mark.parametrize(
    ("table", "budget"),
    [
        (CostTable(("macs",), np.array([0]), tuple([np.array([[0], [1], [1], [3]])] * 4)), Budget(macs=5)),
        (skewed(1), Budget(macs=2_500_000)),
        (skewed(2), Budget(2_900_000, 2_700_000)),
        (skewed(3), Budget(3_100_000, 2_900_000, 3_000_000)),
        (skewed(2), Budget(params=10**9)),
    ],
    ids=["exact", "one limit", "two limits", "three limits", "no limit"],
)
def test_every_architecture_within_is_drawn_equally_often(table, budget):
    fitting = within(table, budget)
    feasible = Feasible(table, budget)
    assert feasible.count() == len(fitting) > 50
    assert_uniform(feasible.sample_many(20_000, np.random.default_rng(1)), fitting)


@pytest.mark.parametrize(("columns", "room"), [(1, 1_900_000), (2, 2_300_000), (3, 2_500_000)])
def test_every_architecture_that_a_coarse_grid_counts_is_drawn_equally_often(columns, room):
    """They are the architectures whose costs, rounded up to cells, are within."""
    rows = above(skewed(columns), columns)
    room = np.full(columns, room)
    grid = CompletionCounts(rows, room, 40**columns)
    assert (grid.slack > 0).all()
    cell = -(-(room + 1) // 40)
    expected = [
        indices
        for indices in product(range(3), repeat=6)
        if (sum(-(-row[p] // cell) for row, p in zip(rows, indices, strict=True)) <= room // cell).all()
    ]
    assert grid.count() == len(expected) > 50
    assert_uniform(grid.draw(20_000, np.random.default_rng(1)), expected)


def test_large_counts():
    """Of 24**50 half, by symmetry, cost at most the mean; 24**300 is more than a float can hold."""
    row = np.arange(24)[:, None]
    table = CostTable(("macs",), np.array([0]), (row,) * 50)
    feasible = Feasible(table, Budget(macs=23 * 25))
    middle = Feasible(table, Budget(macs=23 * 25 - 1)).count()
    assert feasible.count() + middle == pytest.approx(24**50, rel=1e-12)
    assert Feasible(CostTable(("macs",), np.array([0]), (row,) * 300), Budget(macs=7)).count() == math.comb(
        307, 7
    )


class Highest:
    """Generator of the largest number below one."""

    def random(self, size):
        return np.full(size, np.nextafter(1.0, 0.0))


class Lowest:
    """Generator of zeros."""

    def random(self, size):
        return np.zeros(size)


@pytest.mark.parametrize("draws", [Highest(), Lowest()])
def test_a_choice_without_completion_is_never_drawn(draws):
    rows = np.array([[9], [0], [9], [3], [9]])
    drawn = CompletionCounts([rows] * 60, np.array([4])).draw(3, draws)
    assert (drawn % 2 == 1).all()
    assert ((drawn == 3).sum(axis=1) <= 1).all()


def test_memory_takes_choices_away():
    table = SMALL.with_column("memory", 7, ([1, 9, 3], [8, 4], [2, 5, 8]))
    budget = Budget(macs=17, memory=8)
    feasible, random = Feasible(table, budget), np.random.default_rng(0)
    assert feasible.count() == len(within(table, budget))
    assert {tuple(indices) for indices in feasible.sample_many(300, random).tolist()} == set(
        within(table, budget)
    )
    assert all(feasible.repair((1, index, 2), random) in within(table, budget) for index in (0, 1))


SMALL = CostTable(
    ("macs", "params"),
    np.array([5, 5]),
    (np.array([[0, 3], [2, 2], [4, 0]]), np.array([[1, 1], [6, 0]]), np.array([[0, 5], [3, 3], [5, 1]])),
)


@pytest.mark.parametrize("budget", [Budget(), Budget(12), Budget(params=9), Budget(13, 11), Budget(17, 8)])
def test_every_architecture_within_can_be_drawn(budget):
    feasible, random = Feasible(SMALL, budget), np.random.default_rng(0)
    drawn = Counter(feasible.sample(random) for _ in range(500))
    assert set(drawn) == set(within(SMALL, budget))


def test_draws_follow_from_the_generator():
    feasible = Feasible(SMALL, Budget(13, 11))
    first, again, *others = (feasible.sample(np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3))
    assert first == again
    assert {*others} != {first}
    orders = [list(feasible.enumerate(np.random.default_rng(seed))) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("budget", [Budget(11), Budget(11, 10)])
def test_repair_keeps_every_choice_that_fits(seed, budget):
    """One position alone is over budget: all others stay."""
    rows = (np.array([[1, 1], [100, 1]]), *[np.array([[2, 2], [1, 1]])] * 5)
    table = CostTable(("macs", "params"), np.array([0, -1]), rows)
    near = Feasible(table, budget).repair((1, 0, 0, 0, 0, 0), np.random.default_rng(seed))
    assert near == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(5), r"^budget: 5 MACs is below the least possible cost, 6 MACs \(6\)$"),
        (Budget(None, 5), r"^budget: 5 params is below the least possible cost, 6 params \(6\)$"),
        (
            Budget(6, 6),
            "^budget: no architecture is within 6 MACs and 6 params at once; the least of each alone is "
            "6 MACs, 6 params, 12.345 ms latency, 8.0 MB memory$",
        ),
        (
            Budget(latency=5_000_000),
            r"^budget: 5\.000 ms latency is below the least possible cost, 12\.345 ms latency$",
        ),
        (Budget(memory=10**6), r"^budget: 1\.0 MB memory is below the least possible cost, 8\.0 MB memory$"),
        (Budget(8, memory=8 * 10**6), "^budget: no architecture is within 8 MACs and 8.0 MB memory at once"),
    ],
)
def test_says_what_would_have_been_possible(budget, message):
    latency = ([0, 0, 0], [345_000, 10**6], [0, 0, 0])
    memory = ([0, 0, 0], [9 * 10**6, 8 * 10**6], [0, 0, 0])
    table = SMALL.with_column("latency", 12_000_000, latency).with_column("memory", 0, memory)
    with pytest.raises(InputError, match=message):
        Feasible(table, budget)


@pytest.mark.parametrize(
    ("name", "budget"), [("latency", Budget(9, latency=5)), ("memory", Budget(memory=5))]
)
def test_refuses_a_limit_on_what_the_table_does_not_know(name, budget):
    with pytest.raises(InputError, match=f"^budget: {name} is not known here, only macs, params$"):
        Feasible(SMALL, budget)


def undominated_by_hand(rows):
    distinct = sorted(set(map(tuple, rows)))
    return [a for a in distinct if not any(b != a and all(map(int.__le__, b, a)) for b in distinct)]


@examples(150)
@given(
    st.integers(1, 3).flatmap(
        lambda k: st.lists(st.tuples(*[st.integers(0, 9)] * k), min_size=1, max_size=40)
    )
)
def test_undominated_rows_are_those_that_none_beats(rows):
    assert list(map(tuple, pareto_front(np.array(rows)).tolist())) == undominated_by_hand(rows)


@examples(150)
@given(table_of(3), st.integers(2, 3), st.integers(1, 40), st.integers(1, 6))
def test_thinned_fronts_bound_the_exact_answer(table, columns, room, most):
    rows, room = above(table, columns), np.full(columns, room)
    fronts = ParetoFronts(rows, room, most)
    for step in range(len(rows)):
        sums = {tuple(sum(parts)) for parts in product(*rows[step:])}
        for left in (room, room // 2, room // 3 + 1):
            possible = any((np.array(one) <= left).all() for one in sums)
            can, may = (bool(ask(step, left[None])[0]) for ask in (fronts.fits, fronts.may_fit))
            assert can <= possible <= may
            assert can == may or not fronts.exact


def test_a_histogram_of_few_architectures():
    table = CostTable(("macs",), np.array([10]), (np.array([[0], [1]]), np.array([[0], [2]])))
    assert histogram(table, bins=3) == ([10, 11, 12, 13], [2, 1, 1])
    assert histogram(CostTable(("macs",), np.array([4]), (np.array([[0], [0]]),)), bins=2) == (
        [4, 4, 4],
        [2, 0],
    )


def test_limits_that_costs_trade_off_against_closely_do_not_stall():
    """Hardly any of 24**16 fits, and no front is short enough to tell which."""
    random = np.random.default_rng(3)
    entries = tuple(
        (10**8 * random.dirichlet(np.ones(2), size=24)).astype(np.int64) + random.integers(0, 10**4, (24, 2))
        for _ in range(16)
    )
    table = CostTable(("macs", "params"), np.zeros(2, np.int64), entries)
    efficient = tuple(int(rows.sum(1).argmin()) for rows in entries)
    budget = Budget(*(cost + 3 * 10**4 for cost in table.cost(efficient).values()))
    feasible = Feasible(table, budget)
    found = list(islice(feasible.enumerate(random), 50))
    assert found
    assert all(map(feasible.allows, found))
    assert feasible.count() >= 1
    assert all(feasible.allows(tuple(indices)) for indices in feasible.sample_many(20, random).tolist())
    assert feasible.allows(feasible.repair((0,) * 16, random))
