"""Exact optimum of an additive value within a budget: a multiple-choice knapsack, solved by bounds.

The Lagrangian relaxation prices the limits and gives an upper bound on the value of every completion of a
prefix. All prefixes whose bound is within a tolerance of the best bound are extended position by position;
the tolerance grows until the best solution found is at least as good as all that was cut off.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_array

from nas_recalib.costs.knapsack import pareto_front
from nas_recalib.costs.table import Integers

Floats = NDArray[np.float64]

_MOST_PREFIXES = 100_000  # beyond which the result is the best found, not proved to be the optimum
_GROWTH = 8.0
_ROUNDING = 1e-9


def optimum(
    values: Sequence[Floats],
    costs: Sequence[Integers],
    capacity: Integers,
    excluded: Integers,
) -> tuple[int, ...] | None:
    """Return the indices with the greatest sum of values within the capacity.

    Args:
        values: Values of the choices at each position, (choices,), finite.
        costs: Costs of the choices at each position, (choices, columns), none negative.
        capacity: Greatest sum of costs, (columns,), none negative.
        excluded: Combinations that are not allowed, (m, positions).

    Returns:
        The index of the choice at every position, or None if no combination is allowed.
    """
    prices, bound = _relaxation(values, costs, capacity)
    spread = sum(float(np.ptp(row)) for row in values) + float(prices @ capacity)
    tolerance = max(spread / 1000, _ROUNDING)
    children = _children(excluded, values)
    while True:
        found, cut = _search(values, costs, capacity, prices, tolerance, spread * _ROUNDING, children)
        value = sum(row[index] for row, index in zip(values, found, strict=True)) if found else -np.inf
        if value >= bound - tolerance or not cut:
            return found
        tolerance *= _GROWTH


def _relaxation(
    values: Sequence[Floats], costs: Sequence[Integers], capacity: Integers
) -> tuple[Floats, float]:
    """Return prices of the limits that minimise the Lagrangian bound, and the bound.

    Any prices that are not negative give a bound; those of the linear relaxation give the least.
    """
    scale = np.maximum(capacity, 1).astype(np.float64)
    sizes = [len(row) for row in values]
    rows = np.repeat(np.arange(len(sizes)), sizes)
    one_each = csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))))
    solved = linprog(
        -np.concatenate(values),
        A_ub=(np.concatenate(costs) / scale).T,
        b_ub=capacity / scale,
        A_eq=one_each,
        b_eq=np.ones(len(sizes)),
        bounds=(0, None),
        method="highs",
    )
    prices = np.zeros(len(capacity))
    if solved.ineqlin.marginals is not None:
        prices = np.maximum(0.0, -np.asarray(solved.ineqlin.marginals)) / scale
    reduced = (float((v - c @ prices).max()) for v, c in zip(values, costs, strict=True))
    return prices, sum(reduced) + float(prices @ capacity)


def _children(excluded: Integers, values: Sequence[Floats]) -> list[Integers]:
    """Return a trie of the excluded combinations: the next node or -1, (nodes, choices) for each position."""
    nodes, children = np.zeros(len(excluded), dtype=np.int64), []
    for position, row in enumerate(values):
        following = np.unique(nodes * len(row) + excluded[:, position], return_inverse=True)[1]
        table = np.full((max(1, int(nodes.max(initial=0)) + 1), len(row)), -1, dtype=np.int64)
        table[nodes, excluded[:, position]] = following
        nodes = following
        children.append(table)
    return children


def _search(
    values: Sequence[Floats],
    costs: Sequence[Integers],
    capacity: Integers,
    prices: Floats,
    tolerance: float,
    rounding: float,
    children: Sequence[Integers],
) -> tuple[tuple[int, ...] | None, bool]:
    """Extend all prefixes whose bound is within a tolerance of the best bound.

    Returns:
        The best combination found, if any, and whether the tolerance cut anything off.
    """
    reduced = [v - c @ prices for v, c in zip(values, costs, strict=True)]
    losses = [row.max() - row for row in reduced]
    most = [c.max(axis=0) for c in costs]
    rest = np.flip(np.cumsum(np.flip([*most[1:], np.zeros_like(most[0])], axis=0), axis=0), axis=0)
    chosen = np.zeros((1, 0), dtype=np.int64)
    loss, value = np.zeros(1), np.zeros(1)
    used, node = np.zeros((1, len(capacity)), dtype=np.int64), np.zeros(1, dtype=np.int64)
    cut = False
    for position, table in enumerate(children):
        following = np.where(node[:, None] >= 0, table[node], -1)  # (prefixes, choices)
        spent = used[:, None] + costs[position]
        unspent = np.maximum(0, capacity - spent - rest[position]) @ prices
        total = loss[:, None] + losses[position]
        within = (spent <= capacity).all(axis=2)
        if position == len(children) - 1:
            within &= following < 0
        near = total + unspent <= tolerance + rounding
        cut |= bool((within & ~near).any())
        prefix, choice = np.nonzero(within & near)
        loss, used, node = total[prefix, choice], spent[prefix, choice], following[prefix, choice]
        value = value[prefix] + values[position][choice]
        kept = _undominated(value, used, node)
        if len(kept) > _MOST_PREFIXES:
            kept = kept[np.argsort(loss[kept], kind="stable")[:_MOST_PREFIXES]]
        chosen = np.concatenate([chosen[prefix[kept]], choice[kept, None]], axis=1)
        loss, value, used, node = loss[kept], value[kept], used[kept], node[kept]
        if not len(kept):
            return None, cut
    return tuple(map(int, chosen[value.argmax()])), cut


def _undominated(value: Floats, used: Integers, node: Integers) -> Integers:
    """Return the prefixes to extend: all but those that another one beats in value and in costs.

    A prefix of an excluded combination beats none, since its own completions may not be allowed, and is kept.
    With three limits none is left out.
    """
    if used.shape[1] > 2 or len(value) < 2:
        return np.arange(len(value))
    free = np.flatnonzero(node < 0)
    ranks = np.unique(-value[free], return_inverse=True)[1].reshape(-1)
    rows = np.column_stack([used[free], ranks])
    distinct, first = np.unique(rows, axis=0, return_index=True)
    front = pareto_front(distinct)
    where = np.searchsorted(_keys(distinct), _keys(front))
    return np.sort(np.concatenate([free[first[where]], np.flatnonzero(node >= 0)]))


def _keys(rows: Integers) -> NDArray[np.void]:
    """Return rows, not negative, as keys that sort in lexicographic order."""
    big_endian = np.ascontiguousarray(rows.astype(">i8"))
    return big_endian.view(np.dtype((np.void, big_endian.dtype.itemsize * rows.shape[1]))).reshape(-1)
