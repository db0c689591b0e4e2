"""Strategies that change one block at a time: regularised evolution and local search."""

import numpy as np

from nas_recalib.search.samplers.base import (
    Indices,
    SearchState,
    Strategy,
    extrapolated_observations,
    neighbours,
    operator_indices,
    tuples,
)

_ATTEMPTS = 16  # mutations to try until one is not excluded


def evolution(population: int = 32, sample: int = 8) -> Strategy:
    """Return regularised evolution: mutate the best of a random sample of the youngest architectures.

    Algorithm 1 of Real et al., AAAI 2019: the oldest member leaves the population however good it is. A
    mutation changes one convolution or one recalibration, and is then moved into the budget.

    Args:
        population: Number of architectures in the population; as many are first drawn uniformly.
        sample: Number of members that compete to be the parent.

    Raises:
        ValueError: If the sample is not from 1 to the population.
    """
    if not 1 <= sample <= population:
        raise ValueError(f"sample: {sample} is not from 1 to the population of {population}")

    def propose(state: SearchState) -> Indices | None:
        observations = extrapolated_observations(state)
        if len(observations) < population:
            return None
        members = observations[-population:]
        drawn = state.random.choice(population, size=sample, replace=False).tolist()
        parent = max((members[index] for index in drawn), key=lambda member: member.values)
        mutations = neighbours(state.space, parent.indices)
        for _ in range(_ATTEMPTS if len(mutations) else 0):
            mutation = mutations[state.random.integers(len(mutations))].tolist()
            child = state.feasible.repair(mutation, state.random)
            if child not in state.excluded:
                return child
        return None

    return propose


def local(start: int = 10) -> Strategy:
    """Return local search: try the neighbours of the best architecture until one is better.

    A neighbour differs in one convolution or one recalibration. The search moves to the first neighbour that
    is better, which takes fewer trainings than comparing all of them. When all neighbours of a local optimum
    have been tried, it restarts from the best architecture that is not a neighbour of a better one, or from a
    uniform draw if there is none.

    Args:
        start: Number of uniform draws before the search starts.

    Raises:
        ValueError: If `start` is not positive.
    """
    if start < 1:
        raise ValueError(f"start: {start} is not positive")

    def propose(state: SearchState) -> Indices | None:
        observations = extrapolated_observations(state)
        if len(observations) < start:
            return None
        ranked = sorted(observations, key=lambda observation: observation.values, reverse=True)
        operators = operator_indices(state.space, np.array([observation.indices for observation in ranked]))
        for rank, observation in enumerate(ranked):
            if ((operators[:rank] != operators[rank]).sum(axis=1) == 1).any():
                continue  # a neighbour of something better
            around = neighbours(state.space, observation.indices)
            within = tuples(around[state.feasible.allows_many(around)])
            untried = [neighbour for neighbour in within if neighbour not in state.excluded]
            if untried:
                return untried[state.random.integers(len(untried))]
        return None

    return propose
