"""Architectures of nearly equal cost, so that size explains nothing."""

import numpy as np

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, Feasible
from nas_recalib.errors import InputError
from nas_recalib.space import SearchSpace

_AT_ONCE = 10_000
_ROUNDS = 50


def slice_of(space: SearchSpace, budget: Budget, within: float, seed: int) -> Budget:
    """The upper ends of a slice: of MACs and parameters, and of what else is limited.

    Args:
        space: Which.
        budget: Upper ends where given; the others put the median architecture in the middle.
        within: Width of the slice, as a share of its upper ends.
        seed: Of the draws that the median is taken of.

    Raises:
        InputError: If nothing is within the budget.
    """
    picks = Feasible(space.table, budget).sample_many(_AT_ONCE, np.random.default_rng(seed))
    medians = np.median(space.table.costs(picks), axis=0)
    upper = {
        name: round(value * (1 + within / 2)) for name, value in zip(space.table.names, medians, strict=True)
    }
    return Budget(**{**upper, **budget.limits()})


def draw(space: SearchSpace, upper: Budget, within: float, count: int, seed: int) -> list[Architecture]:
    """Different architectures, each drawn uniformly from those in a slice of costs.

    Args:
        space: Which.
        upper: Greatest costs; every one of them bounds the slice from above.
        within: How far below, as a share, a cost may be.
        count: How many.
        seed: Of the draws; more are drawn after the same first ones.

    Raises:
        InputError: If so many cannot be found.
    """
    feasible = Feasible(space.table, upper)
    random = np.random.default_rng(seed)
    limits = upper.limits()
    least = np.array([(1 - within) * limits[name] for name in space.table.names])
    found: dict[tuple[int, ...], None] = {}
    for _ in range(_ROUNDS):
        picks = feasible.sample_many(_AT_ONCE, random)
        for one in picks[(space.table.costs(picks) >= least).all(axis=1)].tolist():
            found.setdefault(tuple(one))
            if len(found) == count:
                return [space.at(picks) for picks in found]
    raise InputError(
        f"within: of {_AT_ONCE * _ROUNDS:,} architectures within {upper}, {len(found)} different ones are "
        f"less than {within:.0%} below it; {count} were asked for"
    )
