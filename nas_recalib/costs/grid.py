"""Counting and drawing under limits by dynamic programming over a grid of what is left of them."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.table import CostTable, Integers

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
        picks = np.empty((count, len(self._cells)), dtype=np.int64)
        strides = np.cumprod([1, *(self._room[:0:-1] + 1)])[::-1]
        for position, (cells, ways) in enumerate(zip(self._cells, self._ways[1:], strict=True)):
            after = left[:, None] - cells  # (count, choices, columns)
            fits = (after >= 0).all(axis=2)
            weights = np.where(fits, ways.ravel()[np.where(fits, after @ strides, 0)], 0.0)
            picks[:, position] = _choose(weights, random)
            left = after[np.arange(count), picks[:, position]]
        return picks


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
