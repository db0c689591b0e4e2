"""The exact optimum within a budget, compared with brute force."""

import numpy as np
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from test_feasible import everything, tables_and_budgets, within

from nas_recalib.costs import Budget, Feasible
from nas_recalib.space import SearchSpace


def best_of(values, candidates):
    return max((sum(row[i] for row, i in zip(values, one, strict=True)) for one in candidates), default=None)


@examples(400)
@given(tables_and_budgets(), st.integers(0, 2**32), st.sampled_from([1, 3, 1000]), st.floats(0, 1))
def test_it_is_what_brute_force_finds(table_and_budget, seed, levels, share):
    """With many ties or none, and with any share of the architectures excluded."""
    table, budget = table_and_budget
    fitting = within(table, budget)
    if not fitting:
        return
    random = np.random.default_rng(seed)
    values = [random.integers(levels, size=len(rows)) / levels for rows in table.entries]
    excluded = {one for one in everything(table) if random.random() < share}
    allowed = [one for one in fitting if one not in excluded]
    found = Feasible(table, budget).best(values, excluded)
    if not allowed:
        assert found is None
        return
    assert found in allowed
    assert np.isclose(best_of(values, [found]), best_of(values, allowed), rtol=0, atol=1e-12)


def test_the_best_ten_of_resnet50_come_in_order_and_within_the_budget():
    space = SearchSpace.load("resnet50")
    feasible = space.feasible(Budget(macs=4_000_000_000, params=25_600_000))
    random = np.random.default_rng(0)
    values = [random.standard_normal(len(position.choices)) for position in space.positions]
    found: list[tuple[int, ...]] = []
    for _ in range(10):
        best = feasible.best(values, found)
        assert best is not None
        found.append(best)
    sums = [best_of(values, [one]) for one in found]
    assert len(set(found)) == 10
    assert all(feasible.allows(one) for one in found)
    assert sums == sorted(sums, reverse=True)
    others = feasible.sample_many(20_000, random)
    columns = np.arange(len(values))
    table = np.array(values)  # every position of this space has as many choices
    assert table[columns, others].sum(axis=1).max() <= sums[-1] + 1e-9
