"""Local search: White, Nolen and Savani, Exploring the Loss Landscape in Neural Architecture Search, 2021."""

import numpy as np

from nas_recalib.search.samplers.expectation import ended
from nas_recalib.search.samplers.moves import neighbours, parts, tuples
from nas_recalib.search.samplers.situation import Picks, Situation, Strategy


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

    def propose(situation: Situation) -> Picks | None:
        all_ended = ended(situation)
        if len(all_ended) < start:
            return None
        ranked = sorted(all_ended, key=lambda one: one.values, reverse=True)
        ways = parts(situation.space, np.array([one.picks for one in ranked]))
        for rank, one in enumerate(ranked):
            if ((ways[:rank] != ways[rank]).sum(axis=1) == 1).any():
                continue  # on the slope of something better
            around = neighbours(situation.space, one.picks)
            within = tuples(around[situation.feasible.allows_many(around)])
            untried = [neighbour for neighbour in within if neighbour not in situation.tried]
            if untried:
                return untried[situation.random.integers(len(untried))]
        return None

    return propose
