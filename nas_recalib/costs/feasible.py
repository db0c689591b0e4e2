"""Architectures within a budget: count, uniform sampling, enumeration, and repair of proposals over it."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.budget import Budget, format_cost
from nas_recalib.costs.knapsack import CompletionCounts, ParetoFronts
from nas_recalib.costs.optimum import optimum
from nas_recalib.costs.table import CostTable, Integers
from nas_recalib.errors import InputError

_FEW = 10_000
_DIRECTIONS = 8
_DEAD_ENDS = 20_000


@dataclass(frozen=True)
class _Enumerated:
    """List of architectures, (n, positions), in place of `CompletionCounts`."""

    indices: Integers
    slack: Integers

    def count(self) -> int:
        return len(self.indices)

    def draw(self, count: int, random: np.random.Generator) -> Integers:
        return self.indices[random.integers(len(self.indices), size=count)]


class Feasible:
    """Architectures of a cost table that are within a budget.

    This is a multiple-choice knapsack with up to three additive limits; see `costs.knapsack`. Memory, whose
    cost is that of the worst block, only removes choices.

    `allows` and `repair` are exact. `count` and `sample` are exact where few architectures fit, or where
    costs are multiples of a large number (ResNet-50's MACs are multiples of 256). Elsewhere costs are rounded
    up: to a millionth of the capacity for one limit, about a 1,400th for two and a 130th for three, which
    leaves out architectures very close to a limit: see `slack`. No architecture over a limit ever passes.

    Several limits that hardly any architecture meets at once may be refused although one does. Where they
    leave little and costs trade off closely, `enumerate` may end early or repeat some; `count` and `sample`
    then know only the architectures that it found, at most the first ten thousand.

    Attributes:
        table: Costs of every choice.
        budget: Limits.
    """

    def __init__(self, table: CostTable, budget: Budget) -> None:
        """Prepare a budget on a table.

        Raises:
            InputError: If no architecture is within the budget, naming the least cost, or if the table has no
                column for a limit.
        """
        self.table = table
        self.budget = budget
        limits = _binding_limits(table, budget)
        memory = limits.pop("memory", None)
        self._choices = [np.arange(len(rows)) for rows in table.entries]  # those within the limit on memory
        if memory is not None:
            peak = table.names.index("memory")
            self._choices = [np.flatnonzero(rows[:, peak] <= memory) for rows in table.entries]
        self._limits = tuple(limits)
        columns = [table.names.index(name) for name in limits]
        entries = [
            rows[choices][:, columns] for rows, choices in zip(table.entries, self._choices, strict=True)
        ]
        least = [rows.min(axis=0) for rows in entries]
        # Costs above each position's least, and what the limits leave above the sum of the leasts.
        self._costs = [rows - low for rows, low in zip(entries, least, strict=True)]
        self._capacity = np.array(list(limits.values()), dtype=np.int64) - sum(least, table.constant[columns])
        if not limits:  # a single column of zeros
            self._costs = [np.zeros((len(rows), 1), dtype=np.int64) for rows in entries]
            self._capacity = np.zeros(1, dtype=np.int64)
        self._fronts = ParetoFronts(self._costs, self._capacity)
        self._fallbacks = self._find_fallbacks()

    def allows(self, indices: Sequence[int]) -> bool:
        """Return whether an architecture, given by its choice at every position, is within the budget."""
        return self.budget.allows(self.table.cost(indices))

    def allows_many(self, indices: Integers) -> NDArray[np.bool_]:
        """Return which of many architectures, (n, positions), are within the budget, (n,)."""
        limits = self.budget.limits()
        columns = [self.table.names.index(name) for name in limits]
        allowed = self.table.costs(indices)[:, columns] <= np.array([*limits.values()], dtype=np.int64)
        return np.asarray(allowed.all(axis=1))

    def count(self) -> int:
        """Return the number of architectures within, but for the slack: exact up to 2**53, then 15 digits."""
        if not self._limits:
            return math.prod(map(len, self._choices))
        return self._counted.count()

    @property
    def slack(self) -> dict[str, int]:
        """Distance below each limit from which every architecture is counted and drawn; 0 if all are."""
        return dict(zip(self._limits, map(int, self._counted.slack), strict=False))

    def sample(self, random: np.random.Generator) -> tuple[int, ...]:
        """Return an architecture within the budget, drawn uniformly."""
        return tuple(map(int, self.sample_many(1, random)[0]))

    def sample_many(self, count: int, random: np.random.Generator) -> Integers:
        """Return independent uniform draws, (count, positions)."""
        return self._in_table(self._counted.draw(count, random))

    def best(
        self, values: Sequence[NDArray[np.float64]], excluded: Collection[tuple[int, ...]] = ()
    ) -> tuple[int, ...] | None:
        """Return the architecture within the budget with the greatest sum of values; exact, see `optimum`.

        Args:
            values: Value of every choice at each position, (choices,).
            excluded: Architectures that are not allowed.

        Returns:
            Its indices, or None if every architecture within the budget is excluded.
        """
        others = np.array(list(excluded), dtype=np.int64).reshape(-1, len(values))
        for position, choices in enumerate(self._choices):  # as indices among the choices within the limit
            local = np.full(len(values[position]), -1)
            local[choices] = np.arange(len(choices))
            others[:, position] = local[others[:, position]]
        others = others[(others >= 0).all(axis=1)]
        allowed = [row[choices] for row, choices in zip(values, self._choices, strict=True)]
        found = optimum(allowed, self._costs, self._capacity, others)
        return None if found is None else tuple(map(int, self._in_table(np.array([found]))[0]))

    def repair(self, indices: Sequence[int], random: np.random.Generator) -> tuple[int, ...]:
        """Return an architecture within the budget that keeps as many of the given choices as it can.

        Positions are fixed one by one in random order: first each whose given choice still fits, then the
        others at random. A choice fits if one of the fallbacks can fill the positions that are not yet fixed.

        Args:
            indices: Choice at every position, within the budget or not; returned unchanged if within.
            random: Generator of the order of positions and of the replacements.
        """
        if self.allows(indices):
            return tuple(indices)
        used = sum(rows[chosen] for rows, chosen in zip(self._costs, self._fallbacks.T, strict=True))
        remaining = self._capacity - used  # (fallbacks, limits)
        order = random.permutation(len(indices))
        fixed: dict[int, int] = {}
        for keep in (True, False):
            for position in (int(p) for p in order if p not in fixed):
                rows = self._costs[position]
                # (choices, fallbacks, limits)
                after = remaining + rows[self._fallbacks[:, position]] - rows[:, None]
                possible = (after >= 0).all(axis=2).any(axis=1)
                if keep:
                    possible &= self._choices[position] == indices[position]
                if possible.any():
                    fixed[position] = int(random.choice(np.flatnonzero(possible)))
                    remaining = after[fixed[position]]
        return tuple(int(choices[fixed[position]]) for position, choices in enumerate(self._choices))

    def enumerate(self, random: np.random.Generator) -> Iterator[tuple[int, ...]]:
        """Yield every architecture within the budget in random order, with the exceptions named above."""
        return (tuple(map(int, self._in_table(np.array([indices]))[0])) for indices in self._search(random))

    def _search(self, random: np.random.Generator) -> Iterator[tuple[int, ...]]:
        """Yield solutions depth first; after too many dead ends, end with the fallbacks that fit."""
        credit = _DEAD_ENDS

        def complete(indices: tuple[int, ...], remaining: Integers) -> Iterator[tuple[int, ...]]:
            nonlocal credit
            position = len(indices)
            if position == len(self._costs):
                credit += 2 * position
                yield indices
                return
            credit -= 1
            if credit < 0:
                return
            after = remaining - self._costs[position]
            for choice in random.permutation(np.flatnonzero(self._fronts.may_fit(position + 1, after))):
                yield from complete((*indices, int(choice)), after[choice])

        yield from complete((), self._capacity)
        if credit < 0:
            columns = zip(self._costs, self._fallbacks.T, strict=True)
            within = (sum(rows[chosen] for rows, chosen in columns) <= self._capacity).all(axis=1)
            yield from (tuple(map(int, indices)) for indices in self._fallbacks[within])

    def _in_table(self, indices: Integers) -> Integers:
        """Return indices among the choices within the memory limit as indices of the table's choices."""
        columns = [choices[chosen] for choices, chosen in zip(self._choices, indices.T, strict=True)]
        return np.stack(columns, axis=1)

    def _find_fallbacks(self) -> Integers:
        """Return architectures that fill open positions in `repair`, (n, positions).

        The first is within the limits; the others are the cheapest by different weightings of the limits.

        Raises:
            InputError: If none is within the limits.
        """
        first = np.array([self._find_one()])
        weights = [
            w for w in product(range(_DIRECTIONS + 1), repeat=len(self._capacity)) if sum(w) == _DIRECTIONS
        ]
        directions = np.array(weights).T / np.maximum(self._capacity, 1)[:, None]
        cheap = np.stack([(rows @ directions).argmin(axis=0) for rows in self._costs], axis=1)
        fallbacks: Integers = np.unique(np.concatenate([first, cheap]), axis=0)
        return fallbacks

    def _find_one(self) -> list[int]:
        if not self._fronts.fits(0, self._capacity[None]).all():
            possible = self._fronts.may_fit(0, self._capacity[None]).all()
            if possible and self._completions.count():
                return list(map(int, self._completions.draw(1, np.random.default_rng(0))[0]))
            least = ", ".join(format_cost(name, cost) for name, cost in self.table.least().items())
            raise InputError(
                f"budget: no architecture is within {self.budget} at once; the least of each alone is {least}"
            )
        indices: list[int] = []
        remaining = self._capacity
        for position, rows in enumerate(self._costs):
            after = remaining - rows
            indices.append(int(self._fronts.fits(position + 1, after).argmax()))
            remaining = after[indices[-1]]
        return indices

    @cached_property
    def _completions(self) -> CompletionCounts:
        return CompletionCounts(self._costs, self._capacity)

    @cached_property
    def _counted(self) -> CompletionCounts | _Enumerated:
        """Counts by dynamic programming, or a list where rounding is too coarse for few architectures.

        Where dynamic programming finds none and the list would be long, the list's beginning is used.
        """
        counts = self._completions
        if not counts.slack.any() or counts.count() > _FEW:
            return counts
        listed = list(dict.fromkeys(islice(self._search(np.random.default_rng(0)), _FEW + 1)))
        if len(listed) <= _FEW:
            return _Enumerated(np.array(listed), np.zeros_like(counts.slack))
        return counts if counts.count() else _Enumerated(np.array(listed), counts.slack)


def _binding_limits(table: CostTable, budget: Budget) -> dict[str, int]:
    """Return the limits that some architecture of the table exceeds.

    Raises:
        InputError: If every architecture exceeds a limit, or the table has no column for it.
    """
    least, greatest = table.least(), table.greatest()
    for name, limit in budget.limits().items():
        if name not in table.names:
            raise InputError(f"budget: {name} is not known here, only {', '.join(table.names)}")
        if limit < least[name]:
            possible = format_cost(name, least[name])
            exactly = f" ({least[name]:,})" if name in ("macs", "params") else ""
            raise InputError(
                f"budget: {format_cost(name, limit)} is below the least possible cost, {possible}{exactly}"
            )
    return {name: limit for name, limit in budget.limits().items() if limit < greatest[name]}
