"""Cost table of a search space: a constant, and a row for every choice at every position."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
COLUMNS = ("macs", "params", "latency", "memory")


@dataclass(frozen=True, eq=False)
class CostTable:
    """Costs of a search space as arrays of int64.

    All columns are sums over the positions, except memory: a network's peak is that of its worst block.

    Attributes:
        names: Names of the columns, from `COLUMNS`: macs, params, latency (ns), memory (bytes).
        constant: Cost of all that no choice changes, (columns,).
        entries: Costs of the choices at each position, (choices, columns).
    """

    names: tuple[str, ...]
    constant: Integers
    entries: tuple[Integers, ...]

    def with_column(self, name: str, constant: int, entries: Sequence[Integers]) -> "CostTable":
        """Return the table with another column.

        Args:
            name: Name of the column, one of `COLUMNS` that the table does not have.
            constant: Cost of all that no choice changes.
            entries: Costs of the choices at each position, (choices,).

        Raises:
            ValueError: If the name is no new column, or a position has another number of choices.
        """
        if name not in COLUMNS or name in self.names:
            raise ValueError(f"name: {name!r} is not a new column; allowed: {', '.join(COLUMNS)}")
        shapes, expected = [np.shape(column) for column in entries], [rows.shape[:1] for rows in self.entries]
        if shapes != expected:
            raise ValueError(f"entries: {name} has the shapes {shapes}, expected {expected}")
        return CostTable(
            (*self.names, name),
            np.append(self.constant, np.int64(constant)),
            tuple(
                np.column_stack([rows, np.asarray(column, dtype=np.int64)])
                for rows, column in zip(self.entries, entries, strict=True)
            ),
        )

    def costs(self, indices: Integers) -> Integers:
        """Return the costs of many architectures, (n, columns).

        Args:
            indices: Index of the choice at every position, (n, positions).

        Raises:
            ValueError: If there is not one index for each position.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 2 or indices.shape[1] != len(self.entries):
            raise ValueError(f"indices: expected (n, {len(self.entries)}), got {indices.shape}")
        constant = np.broadcast_to(self.constant, (len(indices), len(self.names)))
        return self._total(
            constant, (rows[chosen] for rows, chosen in zip(self.entries, indices.T, strict=True))
        )

    def cost(self, indices: Sequence[int]) -> dict[str, int]:
        """Return the cost of the architecture with choice indices[i] at position i, by column name."""
        return self._named(self.costs(np.asarray(indices, dtype=np.int64)[None])[0])

    def least(self) -> dict[str, int]:
        """Return the least of each cost, which a single architecture may not reach together."""
        return self._named(self._total(self.constant, (rows.min(axis=0) for rows in self.entries)))

    def greatest(self) -> dict[str, int]:
        """Return the greatest of each cost, which a single architecture may not reach together."""
        return self._named(self._total(self.constant, (rows.max(axis=0) for rows in self.entries)))

    def _total(self, constant: Integers, parts: Iterable[Integers]) -> Integers:
        peaks = np.array(self.names) == "memory"
        total = constant
        for part in parts:
            total = np.where(peaks, np.maximum(total, part), total + part)
        return total

    def _named(self, costs: Integers) -> dict[str, int]:
        return dict(zip(self.names, map(int, costs), strict=True))
