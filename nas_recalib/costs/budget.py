"""Budgets: hard upper limits on cost, and how to stay within them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.macs import Cost
from nas_recalib.costs.table import LIMITS, CostTable, Integers
from nas_recalib.errors import InputError

_QUANTITY = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)(e\+?(?P<exponent>\d{1,2}))?\s*(?P<unit>[kKmMgGtT]?)")
_UNITS = {"": 0, "k": 3, "m": 6, "g": 9, "t": 12}


def parse_quantity(text: str, name: str) -> int:
    """Reads 4G, 4.1e9, 500M or 26000000, rounded down.

    Raises:
        InputError: If it is nothing of the kind, zero, or beyond all counting.
    """
    match = _QUANTITY.fullmatch(text.strip())
    value = 0
    if match:
        power = int(match["exponent"] or 0) + _UNITS[match["unit"].lower()]
        value = int(Decimal(match["number"]).scaleb(power))
    if not 1 <= value < 2**62:
        raise InputError(f"{name}: {text!r} is not a quantity; write it like 4G, 4.1e9 or 500M")
    return value


def format_quantity(value: int) -> str:
    """Writes 4089184256 as 4.089G."""
    for unit, power in (("G", 9), ("M", 6), ("k", 3)):
        if value >= 10**power:
            return f"{value / 10**power:.3f}{unit}"
    return str(value)


@dataclass(frozen=True)
class Budget:
    """Upper limits; None is no limit.

    Attributes:
        macs: Multiply-accumulates for one image.
        params: Parameters.
    """

    macs: int | None = None
    params: int | None = None

    @classmethod
    def parse(cls, macs: str | None = None, params: str | None = None) -> "Budget":
        """Reads limits as the command line takes them.

        Raises:
            InputError: If one is not a quantity.
        """
        return cls(
            None if macs is None else parse_quantity(macs, "budget"),
            None if params is None else parse_quantity(params, "params"),
        )

    def allows(self, cost: Cost) -> bool:
        """Whether a cost is within every limit."""
        return all(limit is None or getattr(cost, name) <= limit for name, limit in self.limits().items())

    def limits(self) -> dict[str, int | None]:
        return {name: getattr(self, name) for name in LIMITS}

    def __str__(self) -> str:
        limits = [f"{format_quantity(v)} {k}" for k, v in self.limits().items() if v is not None]
        return " and ".join(limits) or "no limit"


class Feasible:
    """The architectures of a table that are within a budget.

    Raises:
        InputError: If there is none; the least cost is named.
    """

    def __init__(self, table: CostTable, budget: Budget) -> None:
        least = table.least()
        for name, limit in budget.limits().items():
            cost = getattr(least, name)
            if limit is not None and cost > limit:
                least_text = f"{format_quantity(cost)} ({cost:,})"
                raise InputError(
                    f"budget: {format_quantity(limit)} {name} is below the least possible cost, {least_text}"
                )
        limits = {name: limit for name, limit in budget.limits().items() if limit is not None}
        limits = limits or {LIMITS[0]: int(np.iinfo(np.int64).max)}
        self._columns = [LIMITS.index(name) for name in limits]
        self._limit = np.array(list(limits.values()), dtype=np.int64)
        self._constant = table.constant[self._columns]
        self._entries = [entry[:, self._columns] for entry in table.entries]
        if not self._within(self._cheapest_sums(range(len(self._entries)))[0] + self._constant).any():
            raise InputError(
                f"budget: no architecture is within {budget} at once; the least of each alone is "
                f"{format_quantity(least.macs)} macs, {format_quantity(least.params)} params"
            )

    def nearest(self, picks: Sequence[int], random: np.random.Generator) -> tuple[int, ...]:
        """An architecture within the budget that keeps what it can of the picks, position by position.

        Args:
            picks: A choice for each position, within the budget or not; returned as they are if within.
            random: Decides in which order positions are looked at, and what replaces a pick.
        """
        rows = [entry[pick] for entry, pick in zip(self._entries, picks, strict=True)]
        if self._within(sum(rows, self._constant)[None]).all():
            return tuple(picks)
        return self._walk(random, picks)

    def sample(self, random: np.random.Generator) -> tuple[int, ...]:
        """An architecture within the budget; every one of them can be drawn, not all equally often."""
        return self._walk(random, None)

    def enumerate(self, random: np.random.Generator) -> Iterator[tuple[int, ...]]:
        """Every architecture within the budget, once, in an order that `random` decides."""
        order = [int(position) for position in random.permutation(len(self._entries))]
        rests = self._cheapest_sums(order)[1:]

        def finish(step: int, spent: Integers, picks: dict[int, int]) -> Iterator[tuple[int, ...]]:
            if step == len(order):
                yield tuple(picks[position] for position in range(len(order)))
                return
            for choice in random.permutation(self._possible(order[step], spent, rests[step])):
                entry = self._entries[order[step]][choice]
                yield from finish(step + 1, spent + entry, {**picks, order[step]: int(choice)})

        return finish(0, self._constant, {})

    def _walk(self, random: np.random.Generator, wanted: Sequence[int] | None) -> tuple[int, ...]:
        """Takes positions in random order, at each only what leaves room for the cheapest way to finish."""
        order = [int(position) for position in random.permutation(len(self._entries))]
        rests = self._cheapest_sums(order)[1:]
        spent = self._constant
        picks = [0] * len(order)
        for position, rest in zip(order, rests, strict=True):
            possible = self._possible(position, spent, rest)
            keep = wanted is not None and wanted[position] in possible
            picks[position] = wanted[position] if wanted and keep else int(random.choice(possible))
            spent = spent + self._entries[position][picks[position]]
        return tuple(picks)

    def _possible(self, position: int, spent: Integers, rest: Integers) -> Integers:
        """Choices at a position after which some way to finish is within the budget."""
        finishes = spent + self._entries[position][:, None] + rest[None]  # (choices, ways to finish, limits)
        return np.flatnonzero(self._within(finishes).any(axis=1))

    def _within(self, costs: Integers) -> NDArray[np.bool_]:
        return np.asarray((costs <= self._limit).all(axis=-1))

    def _cheapest_sums(self, order: Sequence[int]) -> list[Integers]:
        """For each i the sums over order[i:] that no other sum beats in every limit, (sums, limits)."""
        sums = [np.zeros((1, len(self._columns)), dtype=np.int64)]
        for position in reversed(order):
            entry = _undominated(self._entries[position])
            sums.append(_undominated((sums[-1][:, None] + entry[None]).reshape(-1, len(self._columns))))
        return sums[::-1]


def _undominated(costs: Integers) -> Integers:
    """Rows that no other row beats or equals in every column; at most two columns."""
    ordered = costs[np.lexsort(costs.T[::-1])]
    best_so_far = np.minimum.accumulate(ordered[:, -1])
    keep = np.ones(len(ordered), dtype=bool)
    keep[1:] = ordered[1:, -1] < best_so_far[:-1]
    if costs.shape[1] == 1:
        keep[1:] = False
    return ordered[keep]
