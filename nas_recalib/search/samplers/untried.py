"""Any Optuna sampler, kept within the budget and away from what has been tried."""

from collections.abc import Callable, Container
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Feasible
from nas_recalib.space import SearchSpace

_PATIENCE = 16


class UntriedSampler(BaseSampler):
    """Passes on what another sampler proposes, moved into the budget, and never twice the same.

    A proposal over budget is moved to an architecture within it that keeps most of its choices. One that was
    tried already is asked for again; when the sampler keeps repeating itself, untried neighbours of its last
    proposal follow, then any untried architecture. A trial's draws follow from the seed, its number and
    what the study holds, not from how often the search was started.

    Attributes:
        distributions: Of a trial's parameters.
        proposed: For each trial that takes something else the picks that the strategy proposed.
    """

    def __init__(
        self,
        strategy: Callable[[int], BaseSampler],
        space: SearchSpace,
        feasible: Feasible,
        tried: Container[Architecture],
        seed: int,
    ) -> None:
        self._strategy = strategy
        self._space = space
        self._feasible = feasible
        self._tried = tried
        self._seed = seed
        self.proposed: dict[int, tuple[int, ...]] = {}
        self.distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(allowed) for name, allowed in space.options().items()
        }

    def exhausted(self) -> bool:
        """Whether everything within the budget has been tried."""
        return self._any_untried(np.random.default_rng(self._seed)) is None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        random = np.random.default_rng((self._seed, trial.number))
        inner = self._strategy(int(random.integers(2**31)))
        for _ in range(_PATIENCE):
            proposed = self._propose(inner, study, trial, random)
            picks = self._feasible.nearest(proposed, random)
            if self._space.at(picks) not in self._tried:
                break
        else:
            picks = self._untried_neighbour(picks, random) or self._any_untried(random) or picks
        if picks != proposed:
            self.proposed[trial.number] = proposed
        return self._space.encode(self._space.at(picks))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{param_name} is not a parameter of the space {self._space.name}")

    def _propose(
        self, inner: BaseSampler, study: optuna.Study, trial: FrozenTrial, random: np.random.Generator
    ) -> tuple[int, ...]:
        parameters = inner.sample_relative(study, trial, self.distributions)
        if parameters.keys() != self.distributions.keys():  # too early for the strategy to have an opinion
            return self._feasible.sample(random)
        return self._space.picks(self._space.decode(parameters))

    def _untried_neighbour(
        self, picks: tuple[int, ...], random: np.random.Generator
    ) -> tuple[int, ...] | None:
        """A walk away from the picks, one changed position at a time."""
        for _ in range(_PATIENCE):
            position = int(random.integers(len(picks)))
            choice = int(random.integers(len(self._space.positions[position].choices)))
            moved = (*picks[:position], choice, *picks[position + 1 :])
            picks = self._feasible.nearest(moved, random)
            if self._space.at(picks) not in self._tried:
                return picks
        return None

    def _any_untried(self, random: np.random.Generator) -> tuple[int, ...] | None:
        everything = self._feasible.enumerate(random)
        return next((picks for picks in everything if self._space.at(picks) not in self._tried), None)
