"""Reference strategy of the search benchmark: mutation of good architectures without a model."""

import numpy as np

from nas_recalib.search.samplers.base import (
    Indices,
    SearchState,
    Strategy,
    extrapolated_observations,
    mutants,
    tuples,
)

_ATTEMPTS = 16


def mutation(start: int = 10, leaders: int = 16) -> Strategy:
    """Return a strategy that mutates one of the best architectures, drawn uniformly.

    Args:
        start: Number of uniform draws before the first mutation.
        leaders: Number of best architectures to draw from.
    """

    def propose(state: SearchState) -> Indices | None:
        observations = extrapolated_observations(state)
        if len(observations) < start:
            return None
        best = sorted(observations, key=lambda one: one.values, reverse=True)[:leaders]
        for _ in range(_ATTEMPTS):
            parent = best[state.random.integers(len(best))]
            (child,) = tuples(mutants(state.space, np.array([parent.indices]), state.random))
            if child not in state.excluded and state.feasible.allows(child):
                return child
        return None

    return propose
