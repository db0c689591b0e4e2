"""The cost table of a search space: a constant and, for every position, one row a choice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
COLUMNS = ("macs", "params", "latency", "memory")


@dataclass(frozen=True, eq=False)
class CostTable:
    """Costs as arrays of int64.

    All columns are sums over the positions, except memory: a network's peak is that of its worst block.

    Attributes:
        names: Of the columns, some of `COLUMNS`: macs, params, latency (ns), memory (bytes).
        constant: What no choice changes, (columns,).
        entries: For each position of the space its choices' costs, (choices, columns).
    """

    names: tuple[str, ...]
    constant: Integers
    entries: tuple[Integers, ...]

    def with_column(self, name: str, constant: int, entries: Sequence[Integers]) -> "CostTable":
        """A table with one column more.

        Args:
            name: One of `COLUMNS` that the table has not.
            constant: What no choice changes.
            entries: For each position its choices' costs, (choices,).

        Raises:
            ValueError: If there is no such column, it is there already, or a position's choices do not match.
        """
        if name not in COLUMNS or name in self.names:
            raise ValueError(f"name: {name!r} is not a new column; allowed: {', '.join(COLUMNS)}")
        told, expected = [np.shape(column) for column in entries], [rows.shape[:1] for rows in self.entries]
        if told != expected:
            raise ValueError(f"entries: {name} has the shapes {told}, expected {expected}")
        return CostTable(
            (*self.names, name),
            np.append(self.constant, np.int64(constant)),
            tuple(
                np.column_stack([rows, np.asarray(column, dtype=np.int64)])
                for rows, column in zip(self.entries, entries, strict=True)
            ),
        )

    def costs(self, indices: Integers) -> Integers:
        """Costs of many architectures at once.

        Args:
            indices: For each architecture the choice at every position, (n, positions).

        Returns:
            (n, columns).

        Raises:
            ValueError: If there is not one pick for each position.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 2 or indices.shape[1] != len(self.entries):
            raise ValueError(f"picks: expected (n, {len(self.entries)}), got {indices.shape}")
        constant = np.broadcast_to(self.constant, (len(indices), len(self.names)))
        return self._total(
            constant, (rows[chosen] for rows, chosen in zip(self.entries, indices.T, strict=True))
        )

    def cost(self, indices: Sequence[int]) -> dict[str, int]:
        """Cost of the architecture that takes choice picks[i] at position i, by the columns' names."""
        return self._named(self.costs(np.asarray(indices, dtype=np.int64)[None])[0])

    def least(self) -> dict[str, int]:
        """Least of each cost; no one architecture need reach all."""
        return self._named(self._total(self.constant, (rows.min(axis=0) for rows in self.entries)))

    def greatest(self) -> dict[str, int]:
        """Greatest of each cost; no one architecture need reach all."""
        return self._named(self._total(self.constant, (rows.max(axis=0) for rows in self.entries)))

    def _total(self, constant: Integers, parts: Iterable[Integers]) -> Integers:
        peaks = np.array(self.names) == "memory"
        total = constant
        for part in parts:
            total = np.where(peaks, np.maximum(total, part), total + part)
        return total

    def _named(self, costs: Integers) -> dict[str, int]:
        return dict(zip(self.names, map(int, costs), strict=True))
