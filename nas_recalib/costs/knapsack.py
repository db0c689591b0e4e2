"""Multiple-choice knapsack: counts, uniform draws and Pareto fronts of the choices within a capacity.

An item is chosen at each position. Costs are those above the position's least, the capacity is what the
limits leave above the sum of the leasts, and a completion is a choice at every position from a given one on.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.table import CostTable, Integers

Floats = NDArray[np.float64]
_LONGEST_FRONT = 2**13
_CELLS_OF_ONE_COLUMN = 2**20
_CELLS_OF_SEVERAL_COLUMNS = 2**22
_CELLS_OF_ALL_POSITIONS = 2**25  # 256 MiB
_CELLS_OF_HISTOGRAM = 2**14


class ParetoFronts:
    """For each position the Pareto front of the costs of all completions, in 1 to 3 columns.

    Fronts of several columns can become too long. Of rows that lie close together only one is then kept, and
    an error bound says by how much a removed row can be below one that was kept.

    Attributes:
        exact: Whether no row was removed.
    """

    def __init__(self, costs: Sequence[Integers], capacity: Integers, most: int = _LONGEST_FRONT) -> None:
        """Build the fronts from the last position to the first.

        Args:
            costs: Costs of the choices at each position, (choices, columns), none negative.
            capacity: Greatest sum of interest, (columns,).
            most: Greatest number of rows of a front.
        """
        self._fronts = [np.zeros((1, len(capacity)), dtype=np.int64)]
        self._errors = [np.zeros(len(capacity), dtype=np.int64)]
        for row in reversed(costs):
            error = self._errors[-1]
            sums = (self._fronts[-1][:, None] + pareto_front(row)[None]).reshape(-1, len(capacity))
            front = pareto_front(sums[(sums - error <= capacity).all(axis=1)])
            cell = np.ones(len(capacity), dtype=np.int64)
            thinned = front
            while len(thinned) > most:
                cell = 2 * cell + capacity // 4096
                thinned = front[np.sort(np.unique(front // cell, axis=0, return_index=True)[1])]
            self._fronts.append(thinned)
            self._errors.append(error + cell - 1)
        self._fronts.reverse()
        self._errors.reverse()
        self.exact = not self._errors[0].any()

    def fits(self, position: int, remaining: Integers) -> NDArray[np.bool_]:
        """Return whether a completion from a position on fits, for capacities (n, columns), as (n,).

        True is certain; False is certain if the fronts are exact.
        """
        front = self._fronts[position]
        if len(front) == 0:
            return np.zeros(len(remaining), dtype=np.bool_)
        ends = np.searchsorted(front[:, 0], remaining[:, 0], side="right")
        if remaining.shape[1] == 3:
            pairs = zip(ends, remaining, strict=True)
            return np.array([(front[:end] <= capacity).all(axis=1).any() for end, capacity in pairs])
        # Among the rows that fit in the first column, the last has the least second column.
        best = front[np.maximum(ends - 1, 0)]
        return np.asarray((best <= remaining).all(axis=1))

    def may_fit(self, position: int, remaining: Integers) -> NDArray[np.bool_]:
        """Return the same as `fits`, except that False is certain instead of True."""
        return self.fits(position, remaining + self._errors[position])


def pareto_front(costs: Integers) -> Integers:
    """Return the sorted rows that no other row is at most as large as in each of 1 to 3 columns."""
    ordered = costs[np.lexsort(costs.T[::-1])]
    if costs.shape[1] == 1:
        return ordered[:1]
    distinct = np.ones(len(ordered), dtype=np.bool_)
    distinct[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    ordered = ordered[distinct]
    if costs.shape[1] == 3:
        return ordered[~_dominated(ordered[:, 1], ordered[:, 2])]
    keep = np.ones(len(ordered), dtype=np.bool_)
    keep[1:] = ordered[1:, 1] < np.minimum.accumulate(ordered[:, 1])[:-1]
    return ordered[keep]


def _dominated(second: Integers, third: Integers) -> NDArray[np.bool_]:
    """Return for each row whether an earlier one is at most as large in both columns, (n,).

    Divide and conquer over blocks of 1, 2, 4, ... rows: each row of a right block is compared with all rows
    of the left block beside it at once, through the least third column so far in the order of the second.
    """
    count = len(second)
    rank = np.unique(third, return_inverse=True)[1]
    by_second = np.argsort(second, kind="stable")
    dominated = np.zeros(count, dtype=np.bool_)
    width = 1
    while width < count:
        order = by_second[np.argsort(by_second // (2 * width), kind="stable")]
        right = (order // width) % 2 == 1
        offset = order // (2 * width) * (count + 1)  # separates the minima of different pairs of blocks
        least = np.minimum.accumulate(np.where(right, count, rank[order]) - offset) + offset
        dominated[order] |= right & (least <= rank[order])
        width *= 2
    return dominated


class CompletionCounts:
    """Numbers of completions for each position and remaining capacity, with costs rounded up to cells.

    Rounding up never counts or draws a combination above the capacity, and leaves out few below it. Counts
    are float64: exact up to 2**53, to 15 digits beyond.

    Attributes:
        slack: Distance below the capacity from which no combination is left out, (columns,); 0 in a column
            that leaves out none.
    """

    def __init__(self, costs: Sequence[Integers], capacity: Integers, most: int | None = None) -> None:
        """Count the completions from every position and cell.

        Args:
            costs: Costs of the choices at each position, (choices, columns), none negative.
            capacity: Greatest sum allowed, (columns,), none negative.
            most: Number of cells (default: about a million for one column, four for several, fewer at many
                positions).
        """
        usable = [(row <= capacity).all(axis=1, keepdims=True) for row in costs]
        preferred = _CELLS_OF_ONE_COLUMN if len(capacity) == 1 else _CELLS_OF_SEVERAL_COLUMNS
        most = most or min(preferred, _CELLS_OF_ALL_POSITIONS // len(costs))
        cell = _cell_sides([row * keep for row, keep in zip(costs, usable, strict=True)], capacity, most)
        self._cells = [-(-row // cell) for row in costs]
        self._capacity = capacity // cell
        rounding = np.zeros_like(capacity)
        for row, cells, keep in zip(costs, self._cells, usable, strict=True):
            rounding += ((cells * cell - row) * keep).max(axis=0)
        self.slack: Integers = np.maximum(0, rounding + capacity + 1 - (self._capacity + 1) * cell)
        self._counts, self._exponent = _completions(self._cells, self._capacity)

    def count(self) -> int:
        """Return the number of combinations within the capacity."""
        return int(Fraction(float(self._counts[0].flat[-1])) * 2**self._exponent)

    def draw(self, count: int, random: np.random.Generator) -> Integers:
        """Return combinations drawn uniformly, (count, positions); there must be at least one."""
        remaining = np.broadcast_to(self._capacity, (count, len(self._capacity)))
        indices = np.empty((count, len(self._cells)), dtype=np.int64)
        strides = np.cumprod([1, *(self._capacity[:0:-1] + 1)])[::-1]
        for position, (cells, counts) in enumerate(zip(self._cells, self._counts[1:], strict=True)):
            after = remaining[:, None] - cells  # (count, choices, columns)
            fits = (after >= 0).all(axis=2)
            weights = np.where(fits, counts.ravel()[np.where(fits, after @ strides, 0)], 0.0)
            indices[:, position] = _draw_by_weight(weights, random)
            remaining = after[np.arange(count), indices[:, position]]
        return indices


def histogram(table: CostTable, name: str = "macs", bins: int = 20) -> tuple[list[int], list[int]]:
    """Return the histogram of a cost over all architectures of a space.

    Every choice's cost is rounded to a fraction of a bin, so that a few architectures count in a neighbour of
    their bin.

    Args:
        table: Cost table of the space.
        name: Name of a column that is a sum over positions.
        bins: Number of bins of equal width from the least to the greatest cost.

    Returns:
        The bins' edges, one more than bins, and the number of architectures in each bin.
    """
    column = table.names.index(name)
    least, greatest = table.least()[name], table.greatest()[name]
    cell = max(1, -(-(greatest - least) // _CELLS_OF_HISTOGRAM))
    above = [rows[:, [column]] - rows[:, column].min() for rows in table.entries]
    cells = [(row + cell // 2) // cell for row in above]
    capacity = np.array([sum(int(row.max()) for row in cells)])
    edges = [least + (greatest - least) * index // bins for index in range(bins + 1)]
    inner = [min(int(capacity[0]), (edge - least) // cell) for edge in edges[1:-1]]
    counts, exponent = _completions(cells, capacity)
    below = [0, *(int(Fraction(count) * 2**exponent) for count in counts[0][[*inner, -1]].tolist())]
    return edges, [after - before for before, after in pairwise(below)]


def _cell_sides(costs: Sequence[Integers], capacity: Integers, most: int) -> Integers:
    """Return the side of a cell in each column: the costs' common divisor if cells are few, else more."""
    divisors = np.maximum(1, np.gcd.reduce(np.concatenate(costs), axis=0))
    exact = [int(cells) for cells in capacity // divisors + 1]
    cell: Integers = divisors.copy()
    for done, column in enumerate(sorted(range(len(capacity)), key=exact.__getitem__)):
        share = round(most ** (1 / (len(capacity) - done)))
        if exact[column] > share:
            cell[column] = -(-(int(capacity[column]) + 1) // share)
        most //= min(exact[column], share)
    return cell


def _completions(cells: Sequence[Integers], capacity: Integers) -> tuple[list[Floats], int]:
    """Return for each position the number of completions by remaining capacity, and an exponent.

    Each array is scaled to be below one, since counts can exceed a float; those of the first position are in
    units of 2**exponent.
    """
    counts = [np.ones(tuple(capacity + 1))]
    exponent = 0
    for row in reversed(cells):
        total = np.zeros_like(counts[-1])
        shifts, multiplicities = np.unique(row[(row <= capacity).all(axis=1)], axis=0, return_counts=True)
        for multiplicity in np.unique(multiplicities):
            each = counts[-1] * multiplicity
            for shift in shifts[multiplicities == multiplicity]:
                target = tuple(slice(int(by), None) for by in shift)
                source = tuple(slice(size - int(by)) for size, by in zip(total.shape, shift, strict=True))
                total[target] += each[source]
        greatest = math.frexp(total.flat[-1])[1]
        total *= 2.0**-greatest
        exponent += greatest
        counts.append(total)
    return counts[::-1], exponent


def _draw_by_weight(weights: Floats, random: np.random.Generator) -> Integers:
    """Return an index for each row, drawn by its weights, (n, choices) to (n,), never one of weight zero."""
    sums = np.cumsum(weights, axis=1)
    total = sums[:, -1]
    point = np.minimum(random.random(len(weights)) * total, np.nextafter(total, 0))
    return np.asarray((sums <= point[:, None]).sum(axis=1))
