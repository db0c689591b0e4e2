"""Base of all search strategies: the search state, moves between architectures, the Optuna sampler."""

from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, combinations
from operator import mul
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.costs import Feasible
from nas_recalib.costs.table import Integers
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import CACHED_FROM, FINISHED, curve_of

Indices = tuple[int, ...]


@dataclass(frozen=True)
class Observation:
    """An architecture that has been trained, to the end or until it was given up.

    Attributes:
        number: Of its trial.
        indices: Its choice at every position.
        values: One an objective, all to be maximised; of the last epoch trained.
        curve: Accuracies after each epoch.
    """

    number: int
    indices: Indices
    values: tuple[float, ...]
    curve: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class SearchState:
    """Where a search stands when it asks for an architecture.

    Attributes:
        space: What may be chosen.
        feasible: What is within the budget.
        known: What was trained to the end, in the order in which that was.
        pruned: What was given up, or is left at a rung, in the order in which that was.
        running: What other workers are training.
        tried: Everything that need not be proposed: known, pruned, failed or running.
        random: Follows from the seed and the trial's number.
        directions: Of the study's objectives.
        trials: All of the study, for what else a strategy may look at.
        kept: System attributes that the strategy wants kept with the trial that it proposes.
    """

    space: SearchSpace
    feasible: Feasible
    known: Sequence[Observation]
    pruned: Sequence[Observation]
    running: Sequence[Indices]
    tried: Set[Indices]
    random: np.random.Generator
    directions: Sequence[StudyDirection]
    trials: Sequence[FrozenTrial]
    kept: dict[str, Any] = field(default_factory=dict)


Strategy = Callable[[SearchState], Indices | None]
"""Proposes an architecture, within the budget or not; None is drawn uniformly from within."""


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Of the parameters that an architecture has in the study."""
    return {name: CategoricalDistribution(allowed) for name, allowed in space.options().items()}


def neighbours(space: SearchSpace, indices: Indices) -> Integers:
    """Every architecture that differs in one convolution or one recalibration, (n, positions)."""
    moved = []
    for index, (position, pick) in enumerate(zip(space.positions, indices, strict=True)):
        convolutions, recalibrations = len(position.convolutions), len(position.recalibrations)
        convolution, recalibration = divmod(pick, recalibrations)
        others = [
            *(c * recalibrations + recalibration for c in range(convolutions) if c != convolution),
            *(convolution * recalibrations + r for r in range(recalibrations) if r != recalibration),
        ]
        rows = np.tile(np.array(indices, dtype=np.int64), (len(others), 1))
        rows[:, index] = others
        moved.append(rows)
    return np.concatenate(moved)


def mutants(space: SearchSpace, parents: Integers, random: np.random.Generator) -> Integers:
    """Every parent with another convolution, recalibration or both at one position, (n, positions)."""
    sizes = np.array([(len(one.convolutions), len(one.recalibrations)) for one in space.positions])
    children = parents.copy()
    rows = np.arange(len(parents))
    position = random.integers(len(sizes), size=len(parents))
    options = sizes[position]  # (n, 2)
    parts = np.stack(np.divmod(children[rows, position], options[:, 1]), axis=1)
    changed = np.array([(1, 0), (0, 1), (1, 1)])[random.integers(3, size=len(parents))]
    shifts = 1 + (random.random(parts.shape) * (options - 1)).astype(np.int64)
    parts = np.where(changed, parts + shifts, parts) % options
    children[rows, position] = parts[:, 0] * options[:, 1] + parts[:, 1]
    return children


def parts(space: SearchSpace, indices: Integers) -> Integers:
    """Convolutions, then recalibrations, by number, (n, 2 positions)."""
    options = np.array([len(position.recalibrations) for position in space.positions])
    return np.concatenate(np.divmod(indices, options), axis=1)


def tuples(indices: Integers) -> list[Indices]:
    """Architectures one by one."""
    return [tuple(one) for one in indices.tolist()]


_SLOPE, _WEIGHT = 0.5, 4.0  # of accuracy at the end on accuracy earlier: before any is seen, and its weight
_TINY = 1e-12


def ended(state: SearchState) -> list[Observation]:
    """Everything trained in the order of its trials, with the value expected of what is not at its end."""
    expected = [replace(one, values=(_end(one, state.known),)) for one in state.pruned]
    return sorted([*state.known, *expected], key=lambda one: one.number)


def _end(pruned: Observation, known: Sequence[Observation]) -> float:
    """By regression on those that went on from the same epoch.

    A few of them say little about the slope, which is held near `_SLOPE` then.
    """
    epoch = len(pruned.curve)
    went_on = np.array([(one.curve[epoch - 1], one.values[0]) for one in known if len(one.curve) > epoch])
    if not len(went_on):
        return pruned.values[0]
    (early, end), spread = went_on.mean(axis=0), went_on.var(axis=0)[0]
    together = float(((went_on[:, 0] - early) * (went_on[:, 1] - end)).sum())
    weight = spread * (len(went_on) + _WEIGHT)
    slope = (together + _WEIGHT * spread * _SLOPE) / weight if weight > _TINY else _SLOPE
    return float(end + slope * (pruned.values[0] - early))


def uniform(state: SearchState) -> None:
    """Never has an opinion: everything within the budget is equally likely."""


_FAR = 2  # positions changed, up to which the nearest untried architecture is looked for
_MANY = 4096  # architectures looked at of those that are as far


@dataclass(frozen=True)
class Proposal:
    """What is to be trained next.

    Attributes:
        indices: Its choice at every position.
        proposed: The strategy's own picks, where those are over budget or have been tried.
        kept: System attributes that belong to the trial.
    """

    indices: Indices
    proposed: Indices | None = None
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ended:
    when: datetime
    complete: bool
    known: Observation


class StrategySampler(BaseSampler):
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
        tried: Collection[Indices],
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
        return all(indices in self._tried for indices in everything)

    def propose(self, study: optuna.Study, number: int) -> Proposal:
        """An architecture for the trial of that number, which need not be there yet."""
        random = np.random.default_rng((*self._entropy, number))
        state = self._situation(study, number, random)
        proposed = self._strategy(state)
        indices = self._feasible.repair(proposed or self._feasible.sample(random), random)
        if indices in state.tried:
            indices = _nearest_untried(state, indices) or indices
        return Proposal(indices, None if proposed in (None, indices) else proposed, state.kept)

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
        return self._space.indices_to_params(proposal.indices)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{param_name} is not a parameter of the space {self._space.name}")

    def _situation(self, study: optuna.Study, number: int, random: np.random.Generator) -> SearchState:
        trials = study.get_trials(deepcopy=False)
        running = self._look_around(study, trials, number)
        last = {one.known.indices: one for one in sorted(self._ended, key=_age)}
        ended = sorted(last.values(), key=_age)  # what went on is as young as its end
        return SearchState(
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

    def _look_around(
        self, study: optuna.Study, trials: Collection[FrozenTrial], number: int
    ) -> list[Indices]:
        """Learns what has ended, and returns what is running."""
        running = []
        for other in trials:
            if other.number in self._seen or other.params.keys() != self.distributions.keys():
                continue
            if other.state.is_finished():
                self._seen.add(other.number)
                if other.state in FINISHED and CACHED_FROM not in other.user_attrs:
                    self._ended.append(self._end(other, study.directions))
            elif other.state == TrialState.RUNNING and other.number != number:
                running.append(self._indices(other))
        return running

    def _end(self, trial: FrozenTrial, directions: Sequence[StudyDirection]) -> _Ended:
        assert trial.datetime_complete is not None
        signs = [1.0 if one == StudyDirection.MAXIMIZE else -1.0 for one in directions]
        values = tuple(map(mul, signs, trial.values))
        known = Observation(trial.number, self._indices(trial), values, tuple(curve_of(trial)))
        return _Ended(trial.datetime_complete, trial.state == TrialState.COMPLETE, known)

    def _indices(self, trial: FrozenTrial) -> Indices:
        return self._space.params_to_indices(trial.params)


def _age(one: _Ended) -> tuple[datetime, int]:
    return one.when, one.known.number


def _nearest_untried(state: SearchState, indices: Indices) -> Indices | None:
    """One that differs in as few positions as possible, up to a few; then any."""
    for some in chain(_rings(state, indices), (state.feasible.enumerate(state.random),)):
        for one in some:
            if one not in state.tried:
                return one
    return None


def _rings(state: SearchState, indices: Indices) -> Iterator[list[Indices]]:
    """Within the budget what differs in one position, then what differs in two, in a random order."""
    sizes = np.array([len(position.choices) for position in state.space.positions])
    for changed in range(1, min(_FAR, len(indices)) + 1):
        around = np.concatenate(
            [_ring(indices, sizes, np.array(where)) for where in combinations(range(len(indices)), changed)]
        )
        around = state.random.permutation(around)[:_MANY]
        yield tuples(around[state.feasible.allows_many(around)])


def _ring(indices: Indices, sizes: Integers, where: Integers) -> Integers:
    """Everything that differs in just these positions, (n, positions)."""
    shifts = np.indices((sizes[where] - 1).tolist()).reshape(len(where), -1) + 1
    rows = np.tile(np.array(indices, dtype=np.int64), (shifts.shape[1], 1))
    rows[:, where] = (rows[:, where] + shifts.T) % sizes[where]
    return rows
