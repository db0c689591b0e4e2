"""The cost table of a search space: a constant and, for every position, one row a choice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.macs import Cost

Integers = NDArray[np.int64]
LIMITS = ("macs", "params")


@dataclass(frozen=True, eq=False)
class CostTable:
    """Costs as arrays; the columns are those of `LIMITS`.

    Attributes:
        constant: What no choice changes, (2,).
        entries: For each position of the space its choices' costs, (choices, 2).
    """

    constant: Integers
    entries: tuple[Integers, ...]

    def cost(self, picks: Sequence[int]) -> Cost:
        """Cost of the architecture that takes choice picks[i] at position i."""
        total = self.constant + sum(entry[pick] for entry, pick in zip(self.entries, picks, strict=True))
        return Cost(*map(int, total))

    def least(self) -> Cost:
        """Least of each cost; no one architecture need reach both."""
        return Cost(*map(int, self.constant + sum(entry.min(axis=0) for entry in self.entries)))

    def greatest(self) -> Cost:
        """Greatest of each cost; no one architecture need reach both."""
        return Cost(*map(int, self.constant + sum(entry.max(axis=0) for entry in self.entries)))


def as_row(cost: Cost) -> Integers:
    """A cost in the order of `LIMITS`."""
    return np.array([cost.macs, cost.params], dtype=np.int64)
