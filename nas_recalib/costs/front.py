"""Which sums over the last positions no other sum beats: what a partial architecture needs to be finished."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.table import Integers

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
