"""Optuna's own samplers as strategies."""

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler

from nas_recalib.search.samplers.situation import Picks, Situation, Strategy
from nas_recalib.space import SearchSpace


def from_optuna(make: Callable[[int], BaseSampler], attempts: int = 16) -> Strategy:
    """Asks a sampler that is made anew for every trial, so that it remembers what the study does and no more.

    Args:
        make: A sampler from a seed.
        attempts: How often it is asked while it proposes what has been tried.
    """

    def propose(situation: Situation) -> Picks | None:
        sampler = make(int(situation.random.integers(2**31)))
        space = distributions(situation.space)
        picks = None
        for _ in range(attempts):
            parameters = sampler.sample_relative(situation.study, situation.trial, space)
            if not parameters:
                return None
            picks = _picks(situation.space, parameters, situation.random)
            if picks not in situation.tried:
                break
        return picks

    return propose


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Of the parameters that an architecture has in the study."""
    return {name: CategoricalDistribution(allowed) for name, allowed in space.options().items()}


def _picks(space: SearchSpace, parameters: dict[str, Any], random: np.random.Generator) -> Picks:
    """What a sampler leaves out (NSGA-II does so with what it mutates) is drawn uniformly."""
    drawn = {name: allowed[random.integers(len(allowed))] for name, allowed in space.options().items()}
    return space.picks(space.decode({**drawn, **parameters}))
