"""The sampler that a study sees: any strategy, kept within the budget and away from what has been tried."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from operator import mul
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.costs import Feasible
from nas_recalib.search.samplers.from_optuna import distributions
from nas_recalib.search.samplers.situation import Known, Picks, Situation, Strategy
from nas_recalib.space import SearchSpace

_PATIENCE = 16


@dataclass(frozen=True)
class _Ended:
    when: datetime
    trial: FrozenTrial
    picks: Picks


class UntriedSampler(BaseSampler):
    """Passes on what a strategy proposes, moved into the budget, and never twice the same.

    A proposal over budget is moved to an architecture within it that keeps most of its choices. In the place
    of one that has been tried comes an untried neighbour, then any untried architecture. A trial's draws
    follow from the seed, its number and what the study holds, not from how often the search was started.

    Attributes:
        distributions: Of a trial's parameters.
        proposed: For each trial that takes something else the picks that the strategy proposed.
    """

    def __init__(
        self,
        strategy: Strategy,
        space: SearchSpace,
        feasible: Feasible,
        tried: Collection[Picks],
        seed: int,
    ) -> None:
        self._strategy = strategy
        self._space = space
        self._feasible = feasible
        self._tried = tried
        self._seed = seed
        self._ended: dict[int, _Ended] = {}
        self.proposed: dict[int, Picks] = {}
        self.distributions = distributions(space)

    def exhausted(self) -> bool:
        """Whether everything within the budget has been tried."""
        if len(self._tried) < self._feasible.count():  # which is never more than there are
            return False
        everything = self._feasible.enumerate(np.random.default_rng(self._seed))
        return all(picks in self._tried for picks in everything)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        random = np.random.default_rng((self._seed, trial.number))
        situation = self._situation(study, trial, random)
        proposed = self._strategy(situation)
        picks = self._feasible.nearest(proposed or self._feasible.sample(random), random)
        if picks in situation.tried:
            picks = _untried_neighbour(situation, picks) or _any_untried(situation) or picks
        if proposed is not None and picks != proposed:
            self.proposed[trial.number] = proposed
        return self._space.encode(self._space.at(picks))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{param_name} is not a parameter of the space {self._space.name}")

    def _situation(self, study: optuna.Study, trial: FrozenTrial, random: np.random.Generator) -> Situation:
        signs = [1.0 if one == StudyDirection.MAXIMIZE else -1.0 for one in study.directions]
        running = self._look_around(study, trial)
        ended = sorted(self._ended.values(), key=lambda one: (one.when, one.trial.number))
        return Situation(
            space=self._space,
            feasible=self._feasible,
            known=[
                Known(one.trial.number, one.picks, tuple(map(mul, signs, one.trial.values)))
                for one in ended
                if one.trial.state == TrialState.COMPLETE
            ],
            pruned=[one.picks for one in ended if one.trial.state == TrialState.PRUNED],
            running=running,
            tried={*self._tried, *running},
            random=random,
            study=study,
            trial=trial,
        )

    def _look_around(self, study: optuna.Study, trial: FrozenTrial) -> list[Picks]:
        """Learns what has ended, and returns what is running."""
        running = []
        for other in study.get_trials(deepcopy=False):
            if other.number in self._ended or other.params.keys() != self.distributions.keys():
                continue
            if other.datetime_complete is not None and "replayed_from" not in other.user_attrs:
                self._ended[other.number] = _Ended(other.datetime_complete, other, self._picks(other))
            elif other.state == TrialState.RUNNING and other.number != trial.number:
                running.append(self._picks(other))
        return running

    def _picks(self, trial: FrozenTrial) -> Picks:
        return self._space.picks(self._space.decode(trial.params))


def _untried_neighbour(situation: Situation, picks: Picks) -> Picks | None:
    """A walk away from the picks, one changed position at a time."""
    random, positions = situation.random, situation.space.positions
    for _ in range(_PATIENCE):
        position = int(random.integers(len(picks)))
        choice = int(random.integers(len(positions[position].choices)))
        moved = (*picks[:position], choice, *picks[position + 1 :])
        picks = situation.feasible.nearest(moved, random)
        if picks not in situation.tried:
            return picks
    return None


def _any_untried(situation: Situation) -> Picks | None:
    everything = situation.feasible.enumerate(situation.random)
    return next((picks for picks in everything if picks not in situation.tried), None)
