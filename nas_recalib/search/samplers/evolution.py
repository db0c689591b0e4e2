"""Strategies that change one block at a time: regularised evolution and local search."""

from collections.abc import Sequence

import numpy as np

from nas_recalib.search.samplers.base import (
    Indices,
    Observation,
    SearchState,
    Strategy,
    ended,
    neighbours,
    parts,
    tuples,
)

_PATIENCE = 16


def evolution(population: int = 32, sample: int = 8) -> Strategy:
    """Mutates the best of a few drawn from the youngest.

    Algorithm 1 of Real et al., AAAI 2019: the population is what was tried last, so that the oldest dies
    however good it is. A mutation changes one convolution or one recalibration, and where that is over the
    budget what else it takes to be within.

    Args:
        population: Architectures that are alive; so many are drawn uniformly at first.
        sample: Of them that a parent is the best of.

    Raises:
        ValueError: If the sample is not from 1 to the population.
    """
    if not 1 <= sample <= population:
        raise ValueError(f"sample: {sample} is not from 1 to the population of {population}")

    def propose(state: SearchState) -> Indices | None:
        observations = ended(state)
        if len(observations) < population:
            return None
        parent = _tournament(observations[-population:], sample, state.random)
        return _child(parent.indices, state)

    return propose


def _tournament(alive: Sequence[Observation], sample: int, random: np.random.Generator) -> Observation:
    drawn: list[int] = random.choice(len(alive), size=sample, replace=False).tolist()
    return max((alive[index] for index in drawn), key=lambda one: one.values)


def _child(parent: Indices, state: SearchState) -> Indices | None:
    """A mutation that has not been tried, if a few attempts find one."""
    around = neighbours(state.space, parent)
    for _ in range(_PATIENCE if len(around) else 0):
        mutation = around[state.random.integers(len(around))].tolist()
        child = state.feasible.repair(mutation, state.random)
        if child not in state.tried:
            return child
    return None


def local(start: int = 10) -> Strategy:
    """Visits the neighbours of the best until one is better; goes on elsewhere when none is.

    A neighbour differs in one convolution or one recalibration. The climb moves on to the first neighbour
    that is better, which takes fewer trainings than looking at all of them. Where all have been visited the
    next climb starts from the best of what is not on the slope of something better, or from a uniform draw
    if there is no such.

    Args:
        start: Uniform draws before the first climb.

    Raises:
        ValueError: If there is none.
    """
    if start < 1:
        raise ValueError(f"start: {start} is not positive")

    def propose(state: SearchState) -> Indices | None:
        observations = ended(state)
        if len(observations) < start:
            return None
        ranked = sorted(observations, key=lambda one: one.values, reverse=True)
        ways = parts(state.space, np.array([one.indices for one in ranked]))
        for rank, one in enumerate(ranked):
            if ((ways[:rank] != ways[rank]).sum(axis=1) == 1).any():
                continue  # on the slope of something better
            around = neighbours(state.space, one.indices)
            within = tuples(around[state.feasible.allows_many(around)])
            untried = [neighbour for neighbour in within if neighbour not in state.tried]
            if untried:
                return untried[state.random.integers(len(untried))]
        return None

    return propose
