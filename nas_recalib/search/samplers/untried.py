"""The sampler that a study sees: any strategy, kept within the budget and away from what has been tried."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, combinations
from operator import mul
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.costs import Feasible
from nas_recalib.costs.table import Integers
from nas_recalib.search.samplers.from_optuna import distributions
from nas_recalib.search.samplers.moves import tuples
from nas_recalib.search.samplers.situation import Known, Picks, Situation, Strategy
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import FINISHED, REPLAYED, curve_of

_FAR = 2  # positions changed, up to which the nearest untried architecture is looked for
_MANY = 4096  # architectures looked at of those that are as far


@dataclass(frozen=True)
class Proposal:
    """What is to be trained next.

    Attributes:
        picks: Its choice at every position.
        proposed: The strategy's own picks, where those are over budget or have been tried.
        kept: System attributes that belong to the trial.
    """

    picks: Picks
    proposed: Picks | None = None
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ended:
    when: datetime
    complete: bool
    known: Known


class UntriedSampler(BaseSampler):
    """Passes on what a strategy proposes, moved into the budget, and never twice the same.

    A proposal over budget is moved to an architecture within it that keeps most of its choices. In the place
    of one that has been tried comes the nearest that has not. A trial's draws follow from the seed, its
    number and what the study holds, not from how often the search was started.

    Attributes:
        distributions: Of a trial's parameters.
    """

    def __init__(
        self,
        strategy: Strategy,
        space: SearchSpace,
        feasible: Feasible,
        tried: Collection[Picks],
        seed: int,
        salt: Sequence[int] = (),
    ) -> None:
        self._strategy = strategy
        self._space = space
        self._feasible = feasible
        self._tried = tried
        self._entropy = (seed, *salt)
        self._seen: set[int] = set()
        self._ended: list[_Ended] = []
        self.distributions = distributions(space)

    def exhausted(self) -> bool:
        """Whether everything within the budget has been tried."""
        if len(self._tried) < self._feasible.count():  # which is never more than there are
            return False
        everything = self._feasible.enumerate(np.random.default_rng(self._entropy))
        return all(picks in self._tried for picks in everything)

    def propose(self, study: optuna.Study, number: int) -> Proposal:
        """An architecture for the trial of that number, which need not be there yet."""
        random = np.random.default_rng((*self._entropy, number))
        situation = self._situation(study, number, random)
        proposed = self._strategy(situation)
        picks = self._feasible.nearest(proposed or self._feasible.sample(random), random)
        if picks in situation.tried:
            picks = _nearest_untried(situation, picks) or picks
        return Proposal(picks, None if proposed in (None, picks) else proposed, situation.kept)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposal = self.propose(study, trial.number)
        for key, value in proposal.kept.items():
            study._storage.set_trial_system_attr(trial._trial_id, key, value)
        return self._space.parameters(proposal.picks)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{param_name} is not a parameter of the space {self._space.name}")

    def _situation(self, study: optuna.Study, number: int, random: np.random.Generator) -> Situation:
        trials = study.get_trials(deepcopy=False)
        running = self._look_around(study, trials, number)
        last = {one.known.picks: one for one in sorted(self._ended, key=_age)}
        ended = sorted(last.values(), key=_age)  # what went on is as young as its end
        return Situation(
            space=self._space,
            feasible=self._feasible,
            known=[one.known for one in ended if one.complete],
            pruned=[one.known for one in ended if not one.complete],
            running=running,
            tried={*self._tried, *running},
            random=random,
            directions=study.directions,
            trials=[trial for trial in trials if trial.number != number],
        )

    def _look_around(self, study: optuna.Study, trials: Collection[FrozenTrial], number: int) -> list[Picks]:
        """Learns what has ended, and returns what is running."""
        running = []
        for other in trials:
            if other.number in self._seen or other.params.keys() != self.distributions.keys():
                continue
            if other.state.is_finished():
                self._seen.add(other.number)
                if other.state in FINISHED and REPLAYED not in other.user_attrs:
                    self._ended.append(self._end(other, study.directions))
            elif other.state == TrialState.RUNNING and other.number != number:
                running.append(self._picks(other))
        return running

    def _end(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> _Ended:
        assert trial.datetime_complete is not None
        signs = [1.0 if one == StudyDirection.MAXIMIZE else -1.0 for one in directions]
        values = tuple(map(mul, signs, trial.values))
        known = Known(trial.number, self._picks(trial), values, tuple(curve_of(trial)))
        return _Ended(trial.datetime_complete, trial.state == TrialState.COMPLETE, known)

    def _picks(self, trial: FrozenTrial) -> Picks:
        return self._space.picks_of(trial.params)


def _age(one: _Ended) -> tuple[datetime, int]:
    return one.when, one.known.number


def _nearest_untried(situation: Situation, picks: Picks) -> Picks | None:
    """One that differs in as few positions as possible, up to a few; then any."""
    for some in chain(_rings(situation, picks), (situation.feasible.enumerate(situation.random),)):
        for one in some:
            if one not in situation.tried:
                return one
    return None


def _rings(situation: Situation, picks: Picks) -> Iterator[list[Picks]]:
    """Within the budget what differs in one position, then what differs in two, in a random order."""
    sizes = np.array([len(position.choices) for position in situation.space.positions])
    for changed in range(1, min(_FAR, len(picks)) + 1):
        around = np.concatenate(
            [_ring(picks, sizes, np.array(where)) for where in combinations(range(len(picks)), changed)]
        )
        around = situation.random.permutation(around)[:_MANY]
        yield tuples(around[situation.feasible.allows_many(around)])


def _ring(picks: Picks, sizes: Integers, where: Integers) -> Integers:
    """Everything that differs in just these positions, (n, positions)."""
    shifts = np.indices((sizes[where] - 1).tolist()).reshape(len(where), -1) + 1
    rows = np.tile(np.array(picks, dtype=np.int64), (shifts.shape[1], 1))
    rows[:, where] = (rows[:, where] + shifts.T) % sizes[where]
    return rows
