"""Dynamic programming under a budget: counts, uniform draws, Pareto fronts of partial sums."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.table import CostTable, Integers

_MOST = 2**13


class Fronts:
    """For every step the sums over the positions from there on that no other beats in all of 1 to 3 columns.

    Fronts of several columns can grow beyond use. Of rows that lie close together all but one are then left
    out, and `blur` says by how much a sum that was left out can be below one that was kept.

    Attributes:
        exact: Whether nothing was left out.
    """

    def __init__(self, rows: Sequence[Integers], room: Integers, most: int = _MOST) -> None:
        """Builds them from the last position to the first.

        Args:
            rows: For each position its choices' costs, (choices, columns), none below zero.
            room: Sums above it are of no use, (columns,).
            most: Rows of a front.
        """
        self._fronts = [np.zeros((1, len(room)), dtype=np.int64)]
        self._blurs = [np.zeros(len(room), dtype=np.int64)]
        for row in reversed(rows):
            blur = self._blurs[-1]
            sums = (self._fronts[-1][:, None] + undominated(row)[None]).reshape(-1, len(room))
            front = undominated(sums[(sums - blur <= room).all(axis=1)])
            cell = np.ones(len(room), dtype=np.int64)
            thinned = front
            while len(thinned) > most:
                cell = 2 * cell + room // 4096
                thinned = front[np.sort(np.unique(front // cell, axis=0, return_index=True)[1])]
            self._fronts.append(thinned)
            self._blurs.append(blur + cell - 1)
        self._fronts.reverse()
        self._blurs.reverse()
        self.exact = not self._blurs[0].any()

    def can_finish(self, step: int, left: Integers) -> NDArray[np.bool_]:
        """Whether something over the positions from `step` on fits into what is left, (n, columns) to (n,).

        True is certain; False too where the fronts are exact.
        """
        return self._reaches(step, left)

    def may_finish(self, step: int, left: Integers) -> NDArray[np.bool_]:
        """As `can_finish`; here False is certain."""
        return self._reaches(step, left + self._blurs[step])

    def _reaches(self, step: int, left: Integers) -> NDArray[np.bool_]:
        front = self._fronts[step]
        if len(front) == 0:
            return np.zeros(len(left), dtype=np.bool_)
        ends = np.searchsorted(front[:, 0], left[:, 0], side="right")
        if left.shape[1] == 3:
            return np.array(
                [(front[:end] <= one).all(axis=1).any() for end, one in zip(ends, left, strict=True)]
            )
        best = front[
            np.maximum(ends - 1, 0)
        ]  # of rows with less in one column the last has least in the other
        return np.asarray((best <= left).all(axis=1))


def undominated(costs: Integers) -> Integers:
    """Rows, in order, that no other row beats or equals in every column; one to three columns."""
    ordered = costs[np.lexsort(costs.T[::-1])]
    if costs.shape[1] == 1:
        return ordered[:1]
    distinct = np.ones(len(ordered), dtype=np.bool_)
    distinct[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    ordered = ordered[distinct]
    if costs.shape[1] == 3:
        return ordered[~_beaten(ordered[:, 1], ordered[:, 2])]
    keep = np.ones(len(ordered), dtype=np.bool_)
    keep[1:] = ordered[1:, 1] < np.minimum.accumulate(ordered[:, 1])[:-1]
    return ordered[keep]


def _beaten(second: Integers, third: Integers) -> NDArray[np.bool_]:
    """Whether an earlier row is at most as large in both columns.

    Blocks of 1, 2, 4, ... rows: each row of a right one is held against all of the left one beside it at
    once, through the least third column so far in the order of the second.
    """
    count = len(second)
    rank = np.unique(third, return_inverse=True)[1]
    by_second = np.argsort(second, kind="stable")
    beaten = np.zeros(count, dtype=np.bool_)
    width = 1
    while width < count:
        order = by_second[np.argsort(by_second // (2 * width), kind="stable")]
        right = (order // width) % 2 == 1
        offset = order // (2 * width) * (count + 1)  # so that no block sees the minimum of one before it
        least = np.minimum.accumulate(np.where(right, count, rank[order]) - offset) + offset
        beaten[order] |= right & (least <= rank[order])
        width *= 2
    return beaten


Floats = NDArray[np.float64]
_CELLS_OF_ONE = 2**20
_CELLS_OF_SEVERAL = 2**22
_CELLS_OF_ALL_POSITIONS = 2**25  # 256 MiB
_CELLS_OF_HISTOGRAM = 2**14


class Grid:
    """Ways to choose within limits, where costs are rounded up to cells.

    A choice costs a whole number of cells, upwards, so that nothing over a limit is ever counted or drawn,
    and little under it left out. Numbers of ways are float64: exact up to 2**53, 15 digits beyond.

    Attributes:
        slack: An architecture that is under every limit by at least this is not left out, (columns,); 0 where
            nothing is left out for this limit.
    """

    def __init__(self, rows: Sequence[Integers], room: Integers, most: int | None = None) -> None:
        """Counts the ways to finish from every position and cell.

        Args:
            rows: For each position its choices' costs above the position's least, (choices, columns).
            room: The limits above the sum of what is least, (columns,), none below zero.
            most: Cells (default: about a million for one column, four for several, less at many positions).
        """
        usable = [(row <= room).all(axis=1, keepdims=True) for row in rows]
        preferred = _CELLS_OF_ONE if len(room) == 1 else _CELLS_OF_SEVERAL
        most = most or min(preferred, _CELLS_OF_ALL_POSITIONS // len(rows))
        cell = _cell([row * keep for row, keep in zip(rows, usable, strict=True)], room, most)
        self._cells = [-(-row // cell) for row in rows]
        self._room = room // cell
        wasted = np.zeros_like(room)
        for row, cells, keep in zip(rows, self._cells, usable, strict=True):
            wasted += ((cells * cell - row) * keep).max(axis=0)
        self.slack: Integers = np.maximum(0, wasted + room + 1 - (self._room + 1) * cell)
        self._ways, self._doublings = _ways(self._cells, self._room)

    def count(self) -> int:
        """Number of architectures within the limits."""
        return int(Fraction(float(self._ways[0].flat[-1])) * 2**self._doublings)

    def draw(self, count: int, random: np.random.Generator) -> Integers:
        """Architectures, all equally likely, (count, positions); there must be one."""
        left = np.broadcast_to(self._room, (count, len(self._room)))
        indices = np.empty((count, len(self._cells)), dtype=np.int64)
        strides = np.cumprod([1, *(self._room[:0:-1] + 1)])[::-1]
        for position, (cells, ways) in enumerate(zip(self._cells, self._ways[1:], strict=True)):
            after = left[:, None] - cells  # (count, choices, columns)
            fits = (after >= 0).all(axis=2)
            weights = np.where(fits, ways.ravel()[np.where(fits, after @ strides, 0)], 0.0)
            indices[:, position] = _choose(weights, random)
            left = after[np.arange(count), indices[:, position]]
        return indices


def histogram(table: CostTable, name: str = "macs", bins: int = 20) -> tuple[list[int], list[int]]:
    """How many architectures of a whole space cost how much.

    Every choice's cost is rounded to a fraction of a bin, so that a few architectures stand beside their bin.

    Args:
        table: Of the space.
        name: Of a column that is a sum.
        bins: Of equal width from the least to the greatest.

    Returns:
        The bins' edges, one more than bins, and the architectures in each.
    """
    column = table.names.index(name)
    least, greatest = table.least()[name], table.greatest()[name]
    cell = max(1, -(-(greatest - least) // _CELLS_OF_HISTOGRAM))
    above = [rows[:, [column]] - rows[:, column].min() for rows in table.entries]
    cells = [(row + cell // 2) // cell for row in above]
    room = np.array([sum(int(row.max()) for row in cells)])
    edges = [least + (greatest - least) * index // bins for index in range(bins + 1)]
    inner = [min(int(room[0]), (edge - least) // cell) for edge in edges[1:-1]]
    ways, doublings = _ways(cells, room)
    below = [0, *(int(Fraction(one) * 2**doublings) for one in ways[0][[*inner, -1]].tolist())]
    return edges, [after - before for before, after in pairwise(below)]


def _cell(rows: Sequence[Integers], room: Integers, most: int) -> Integers:
    """Sides of a cell: what divides a column's costs if that makes few enough, else a share of the room."""
    divisors = np.maximum(1, np.gcd.reduce(np.concatenate(rows), axis=0))
    exact = [int(one) for one in room // divisors + 1]
    cell: Integers = divisors.copy()
    for done, column in enumerate(sorted(range(len(room)), key=exact.__getitem__)):
        share = round(most ** (1 / (len(room) - done)))
        if exact[column] > share:
            cell[column] = -(-(int(room[column]) + 1) // share)
        most //= min(exact[column], share)
    return cell


def _ways(cells: Sequence[Integers], room: Integers) -> tuple[list[Floats], int]:
    """For each step and each room left the ways to finish, and how often to double those of the first.

    Each step's are scaled to be below one, for there can be more than a float holds.
    """
    ways = [np.ones(tuple(room + 1))]
    doublings = 0
    for row in reversed(cells):
        total = np.zeros_like(ways[-1])
        shifts, counts = np.unique(row[(row <= room).all(axis=1)], axis=0, return_counts=True)
        for count in np.unique(counts):
            each = ways[-1] * count
            for shift in shifts[counts == count]:
                to = tuple(slice(int(by), None) for by in shift)
                source = tuple(slice(size - int(by)) for size, by in zip(total.shape, shift, strict=True))
                total[to] += each[source]
        exponent = math.frexp(total.flat[-1])[1]  # of the greatest
        total *= 2.0**-exponent
        doublings += exponent
        ways.append(total)
    return ways[::-1], doublings


def _choose(weights: Floats, random: np.random.Generator) -> Integers:
    """An index for each row, drawn by its weights, (n, choices) to (n,); one of weight zero never."""
    sums = np.cumsum(weights, axis=1)
    whole = sums[:, -1]
    point = np.minimum(random.random(len(weights)) * whole, np.nextafter(whole, 0))
    return np.asarray((sums <= point[:, None]).sum(axis=1))
