"""Regularised evolution: Real et al., Regularized Evolution for Image Classifier Architecture Search."""

from collections.abc import Sequence

import numpy as np

from nas_recalib.search.samplers.expectation import ended
from nas_recalib.search.samplers.moves import neighbours
from nas_recalib.search.samplers.situation import Known, Picks, Situation, Strategy

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

    def propose(situation: Situation) -> Picks | None:
        all_ended = ended(situation)
        if len(all_ended) < population:
            return None
        parent = _tournament(all_ended[-population:], sample, situation.random)
        return _child(parent.picks, situation)

    return propose


def _tournament(alive: Sequence[Known], sample: int, random: np.random.Generator) -> Known:
    drawn: list[int] = random.choice(len(alive), size=sample, replace=False).tolist()
    return max((alive[index] for index in drawn), key=lambda one: one.values)


def _child(parent: Picks, situation: Situation) -> Picks | None:
    """A mutation that has not been tried, if a few attempts find one."""
    around = neighbours(situation.space, parent)
    for _ in range(_PATIENCE if len(around) else 0):
        mutation = around[situation.random.integers(len(around))].tolist()
        child = situation.feasible.nearest(mutation, situation.random)
        if child not in situation.tried:
            return child
    return None
