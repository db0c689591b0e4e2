"""What others are held against besides uniform draws: mutation without anything that guides it."""

import numpy as np

from nas_recalib.search.samplers import Indices, SearchState, Strategy
from nas_recalib.search.samplers.base import ended, mutants, tuples

_ATTEMPTS = 16


def mutation(start: int = 10, leaders: int = 16) -> Strategy:
    """Mutates one of the best, any of them as likely as another.

    Args:
        start: Uniform draws before the first.
        leaders: How many may be mutated.
    """

    def propose(situation: SearchState) -> Indices | None:
        observations = ended(situation)
        if len(observations) < start:
            return None
        best = sorted(observations, key=lambda one: one.values, reverse=True)[:leaders]
        for _ in range(_ATTEMPTS):
            parent = best[situation.random.integers(len(best))]
            (child,) = tuples(mutants(situation.space, np.array([parent.indices]), situation.random))
            if child not in situation.tried and situation.feasible.allows(child):
                return child
        return None

    return propose
