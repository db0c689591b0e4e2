"""The architectures within a budget: how many there are, any of them, and the one next to a proposal."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.budget import Budget, format_cost, format_latency, format_memory, format_quantity
from nas_recalib.costs.grid import Fronts, Grid
from nas_recalib.costs.table import CostTable, Integers
from nas_recalib.errors import InputError

_FEW = 10_000
_DIRECTIONS = 8
_PATIENCE = 20_000


@dataclass(frozen=True)
class _Listed:
    """Architectures one by one, (n, positions), in the place of a grid."""

    indices: Integers
    slack: Integers

    def count(self) -> int:
        return len(self.indices)

    def draw(self, count: int, random: np.random.Generator) -> Integers:
        return self.indices[random.integers(len(self.indices), size=count)]


class Feasible:
    """The architectures of a table that are within a budget.

    `allows` and `nearest` are exact. `count` and `sample` are so where few architectures fit, or where costs
    are multiples of something coarse (ResNet-50's MACs are of 256). Else costs are rounded up: to a millionth
    of the room there is for one limit, about a 1,400th for two and a 130th for three. That leaves out what is
    very close to a limit: see `slack`. Nothing over a limit ever passes.

    Several limits that next to nothing meets at once may be refused although something does. Where they leave
    little and costs trade off closely, `enumerate` may end early or repeat some; `count` and `sample` then
    know no more than it found, or the first ten thousand.

    Attributes:
        table: What every choice costs.
        budget: The limits.
    """

    def __init__(self, table: CostTable, budget: Budget) -> None:
        """Looks whether there is any.

        Raises:
            InputError: If there is none, naming the least cost, or if a limited cost is not in the table.
        """
        self.table = table
        self.budget = budget
        limits = _binding_limits(table, budget)
        self._choices = _choices_within(table, limits.pop("memory", None))
        self._limits = tuple(limits)
        columns = [table.names.index(name) for name in limits]
        entries = [
            rows[choices][:, columns] for rows, choices in zip(table.entries, self._choices, strict=True)
        ]
        least = [rows.min(axis=0) for rows in entries]
        room = np.array(list(limits.values()), dtype=np.int64) - sum(least, table.constant[columns])
        rows = [rows - low for rows, low in zip(entries, least, strict=True)]
        if not limits:  # one that nothing costs anything of
            rows, room = (
                [np.zeros((len(one), 1), dtype=np.int64) for one in rows],
                np.zeros(1, dtype=np.int64),
            )
        self._rows, self._room = rows, room
        self._fronts = Fronts(rows, room)
        self._anchors = self._some()

    def allows(self, indices: Sequence[int]) -> bool:
        """Whether the architecture of these picks is within the budget."""
        return self.budget.allows(self.table.cost(indices))

    def allows_many(self, indices: Integers) -> NDArray[np.bool_]:
        """As `allows`, (n, positions) to (n,)."""
        limits = self.budget.limits()
        columns = [self.table.names.index(name) for name in limits]
        allowed = self.table.costs(indices)[:, columns] <= np.array([*limits.values()], dtype=np.int64)
        return np.asarray(allowed.all(axis=1))

    def count(self) -> int:
        """How many there are: exact up to 2**53 but for the slack, 15 digits beyond."""
        if not self._limits:
            return math.prod(map(len, self._choices))
        return self._drawn.count()

    @property
    def slack(self) -> dict[str, int]:
        """For each limit how far below it is far enough to be counted and drawn; 0 if nothing is missed."""
        return dict(zip(self._limits, map(int, self._drawn.slack), strict=False))

    def sample(self, random: np.random.Generator) -> tuple[int, ...]:
        """An architecture within the budget, each as likely as any other."""
        return tuple(map(int, self.sample_many(1, random)[0]))

    def sample_many(self, count: int, random: np.random.Generator) -> Integers:
        """Independent draws, (count, positions)."""
        return self._told(self._drawn.draw(count, random))

    def nearest(self, indices: Sequence[int], random: np.random.Generator) -> tuple[int, ...]:
        """An architecture within the budget that keeps what it can of the picks, position by position.

        Args:
            indices: A choice for each position, within the budget or not; returned as they are if within.
            random: Decides in which order positions are looked at, and what replaces a pick.
        """
        if self.allows(indices):
            return tuple(indices)
        left = self._room - sum(
            rows[chosen] for rows, chosen in zip(self._rows, self._anchors.T, strict=True)
        )
        order = random.permutation(len(indices))
        nearest: dict[int, int] = {}
        for keep in (True, False):
            for position in (int(one) for one in order if one not in nearest):
                rows = self._rows[position]
                moved = left + rows[self._anchors[:, position]] - rows[:, None]  # (choices, anchors, limits)
                possible = (moved >= 0).all(axis=2).any(axis=1)
                if keep:
                    possible &= self._choices[position] == indices[position]
                if possible.any():
                    nearest[position] = int(random.choice(np.flatnonzero(possible)))
                    left = moved[nearest[position]]
        return tuple(int(choices[nearest[position]]) for position, choices in enumerate(self._choices))

    def enumerate(self, random: np.random.Generator) -> Iterator[tuple[int, ...]]:
        """Every architecture within the budget, in an order that `random` decides; when not is said above."""
        return (tuple(map(int, self._told(np.array([indices]))[0])) for indices in self._every(random))

    def _every(self, random: np.random.Generator) -> Iterator[tuple[int, ...]]:
        """Depth first; where too many ways that may finish do not, it gives up, and the anchors must do."""
        credit = _PATIENCE

        def finish(indices: tuple[int, ...], left: Integers) -> Iterator[tuple[int, ...]]:
            nonlocal credit
            step = len(indices)
            if step == len(self._rows):
                credit += 2 * step
                yield indices
                return
            credit -= 1
            if credit < 0:
                return
            after = left - self._rows[step]
            for choice in random.permutation(np.flatnonzero(self._fronts.may_finish(step + 1, after))):
                yield from finish((*indices, int(choice)), after[choice])

        yield from finish((), self._room)
        if credit < 0:
            yield from self._anchors_within()

    def _anchors_within(self) -> Iterator[tuple[int, ...]]:
        columns = zip(self._rows, self._anchors.T, strict=True)
        within = (sum(rows[chosen] for rows, chosen in columns) <= self._room).all(axis=1)
        return (tuple(map(int, indices)) for indices in self._anchors[within])

    def _told(self, indices: Integers) -> Integers:
        """Picks by the numbers of the table's choices, some of which are not within the memory."""
        columns = [choices[chosen] for choices, chosen in zip(self._choices, indices.T, strict=True)]
        return np.stack(columns, axis=1)

    def _some(self) -> Integers:
        """Architectures from which `nearest` starts, (n, positions): one within the limits, and cheap ones.

        Raises:
            InputError: If there is none within.
        """
        first = np.array([self._first()])
        weights = [
            w for w in product(range(_DIRECTIONS + 1), repeat=len(self._room)) if sum(w) == _DIRECTIONS
        ]
        directions = np.array(weights).T / np.maximum(self._room, 1)[:, None]
        cheap = np.stack([(rows @ directions).argmin(axis=0) for rows in self._rows], axis=1)
        anchors: Integers = np.unique(np.concatenate([first, cheap]), axis=0)
        return anchors

    def _first(self) -> list[int]:
        if not self._fronts.can_finish(0, self._room[None]).all():
            possible = self._fronts.may_finish(0, self._room[None]).all()
            if possible and self._grid.count():
                return list(map(int, self._grid.draw(1, np.random.default_rng(0))[0]))
            least = ", ".join(format_cost(name, cost) for name, cost in self.table.least().items())
            raise InputError(
                f"budget: no architecture is within {self.budget} at once; the least of each alone is {least}"
            )
        indices: list[int] = []
        left = self._room
        for step, rows in enumerate(self._rows):
            after = left - rows
            indices.append(int(self._fronts.can_finish(step + 1, after).argmax()))
            left = after[indices[-1]]
        return indices

    @cached_property
    def _grid(self) -> Grid:
        return Grid(self._rows, self._room)

    @cached_property
    def _drawn(self) -> Grid | _Listed:
        """What is counted and drawn from: the grid, or a list where that is too coarse for the few there are.

        Where the grid has none at all, and the list would be long, its beginning stands for the rest.
        """
        grid = self._grid
        if not grid.slack.any() or grid.count() > _FEW:
            return grid
        listed = list(dict.fromkeys(islice(self._every(np.random.default_rng(0)), _FEW + 1)))
        if len(listed) <= _FEW:
            return _Listed(np.array(listed), np.zeros_like(grid.slack))
        return grid if grid.count() else _Listed(np.array(listed), grid.slack)


def _binding_limits(table: CostTable, budget: Budget) -> dict[str, int]:
    """Limits that something of the table is above; refuses one that everything is above."""
    least, greatest = table.least(), table.greatest()
    for name, limit in budget.limits().items():
        if name not in table.names:
            raise InputError(f"budget: {name} is not known here, only {', '.join(table.names)}")
        if limit < least[name]:
            raise InputError(
                f"budget: {format_cost(name, limit)} is below the least possible{_least(name, least[name])}"
            )
    return {name: limit for name, limit in budget.limits().items() if limit < greatest[name]}


def _least(name: str, cost: int) -> str:
    if name == "latency":
        return f", {format_latency(cost)}"
    if name == "memory":
        return f", {format_memory(cost)}"
    return f" cost, {format_quantity(cost)} ({cost:,})"


def _choices_within(table: CostTable, memory: int | None) -> list[Integers]:
    """For each position the choices that alone are not above the limit on the peak."""
    if memory is None:
        return [np.arange(len(rows)) for rows in table.entries]
    column = table.names.index("memory")
    return [np.flatnonzero(rows[:, column] <= memory) for rows in table.entries]
