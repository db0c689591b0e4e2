"""Base of all search strategies: the search state, moves between architectures, the Optuna sampler."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
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
from nas_recalib.study.regression import TINY
from nas_recalib.study.trials import CACHED_FROM, FINISHED, curve_of

Indices = tuple[int, ...]


@dataclass(frozen=True)
class Observation:
    """An architecture with the result of its training, complete or pruned.

    Attributes:
        number: Number of the trial.
        indices: Index of the choice at every position.
        values: One value per objective after the last trained epoch, signed so that greater is better.
        curve: Accuracies after each epoch.
    """

    number: int
    indices: Indices
    values: tuple[float, ...]
    curve: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class SearchState:
    """Everything that a strategy may use to propose the next architecture.

    Attributes:
        space: Search space.
        feasible: Architectures within the budget.
        completed: Observations trained to the last epoch, in the order in which they finished.
        pruned: Observations that were pruned or are paused at a rung, in the order in which they finished.
        running: Architectures that other workers are training.
        excluded: Architectures that must not be proposed: observed, running, or failed for good.
        random: Generator seeded with the seed of the search and the number of the trial.
        directions: Directions of the study's objectives.
        trials: All other trials of the study.
        study_attrs: Function that reads the study's user attributes.
        system_attrs: System attributes to store with the proposed trial, filled in by the strategy.
    """

    space: SearchSpace
    feasible: Feasible
    completed: Sequence[Observation]
    pruned: Sequence[Observation]
    running: Sequence[Indices]
    excluded: Set[Indices]
    random: np.random.Generator
    directions: Sequence[StudyDirection]
    trials: Sequence[FrozenTrial]
    study_attrs: Callable[[], Mapping[str, Any]] = dict
    system_attrs: dict[str, Any] = field(default_factory=dict)


Strategy = Callable[[SearchState], Indices | None]
"""Function that proposes an architecture, within the budget or not; for None one is drawn uniformly."""


def uniform(state: SearchState) -> None:
    """Leave every proposal to a uniform draw from the architectures within the budget."""


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return the distributions of the parameters that encode an architecture in an Optuna study."""
    return {name: CategoricalDistribution(allowed) for name, allowed in space.options().items()}


def tuples(indices: Integers) -> list[Indices]:
    """Convert the rows of an array, (n, positions), to tuples."""
    return [tuple(row) for row in indices.tolist()]


def operator_indices(space: SearchSpace, indices: Integers) -> Integers:
    """Split indices of choices, (n, positions), into convolutions, then recalibrations, (n, 2 positions)."""
    recalibrations = np.array([len(position.recalibrations) for position in space.positions])
    return np.concatenate(np.divmod(indices, recalibrations), axis=1)


def neighbours(space: SearchSpace, indices: Indices) -> Integers:
    """Return every architecture that differs in one convolution or one recalibration, (n, positions)."""
    rows = []
    for column, (position, index) in enumerate(zip(space.positions, indices, strict=True)):
        convolutions, recalibrations = len(position.convolutions), len(position.recalibrations)
        convolution, recalibration = divmod(index, recalibrations)
        others = [
            *(c * recalibrations + recalibration for c in range(convolutions) if c != convolution),
            *(convolution * recalibrations + r for r in range(recalibrations) if r != recalibration),
        ]
        changed = np.tile(np.array(indices, dtype=np.int64), (len(others), 1))
        changed[:, column] = others
        rows.append(changed)
    return np.concatenate(rows)


def mutants(space: SearchSpace, parents: Integers, random: np.random.Generator) -> Integers:
    """Change the convolution, the recalibration or both at one position of every parent, (n, positions)."""
    sizes = np.array([(len(p.convolutions), len(p.recalibrations)) for p in space.positions])
    children = parents.copy()
    rows = np.arange(len(parents))
    position = random.integers(len(sizes), size=len(parents))
    options = sizes[position]  # (n, 2)
    operators = np.stack(np.divmod(children[rows, position], options[:, 1]), axis=1)
    changed = np.array([(1, 0), (0, 1), (1, 1)])[random.integers(3, size=len(parents))]
    shifts = 1 + (random.random(operators.shape) * (options - 1)).astype(np.int64)
    operators = np.where(changed, operators + shifts, operators) % options
    children[rows, position] = operators[:, 0] * options[:, 1] + operators[:, 1]
    return children


_SLOPE, _SLOPE_WEIGHT = 0.5, 4.0  # prior of the regression of final on early accuracy, and its weight


def extrapolated_observations(state: SearchState) -> list[Observation]:
    """Return all observations by trial number, the pruned ones with the value expected at the last epoch."""
    extrapolated = [
        replace(pruned, values=(_expected_value(pruned, state.completed),)) for pruned in state.pruned
    ]
    return sorted([*state.completed, *extrapolated], key=lambda observation: observation.number)


def _expected_value(pruned: Observation, completed: Sequence[Observation]) -> float:
    """Return the final accuracy expected of a pruned training, by linear regression on completed ones.

    The slope is shrunk towards `_SLOPE`, since a few completed trainings determine it badly.
    """
    epoch = len(pruned.curve)
    longer = [other for other in completed if len(other.curve) > epoch]
    pairs = np.array([(other.curve[epoch - 1], other.values[0]) for other in longer])
    if not len(pairs):
        return pruned.values[0]
    (early, final), variance = pairs.mean(axis=0), pairs.var(axis=0)[0]
    covariance = float(((pairs[:, 0] - early) * (pairs[:, 1] - final)).sum())
    weight = variance * (len(pairs) + _SLOPE_WEIGHT)
    slope = (covariance + _SLOPE_WEIGHT * variance * _SLOPE) / weight if weight > TINY else _SLOPE
    return float(final + slope * (pruned.values[0] - early))


@dataclass(frozen=True)
class Proposal:
    """An architecture to train next.

    Attributes:
        indices: Index of the choice at every position.
        proposed: Architecture that the strategy proposed, if another one has to be trained instead because
            that one is over budget or excluded.
        system_attrs: System attributes to store with the trial.
    """

    indices: Indices
    proposed: Indices | None
    system_attrs: dict[str, Any]


@dataclass(eq=False)
class StrategySampler(BaseSampler):
    """Optuna sampler that makes any strategy respect the budget and propose nothing twice.

    A proposal over budget is moved to an architecture within the budget that keeps most of its choices. An
    excluded one is replaced by the nearest that is not excluded. Random draws depend on the seed, the number
    of the trial and the trials of the study, but not on how often the search was restarted.

    Attributes:
        strategy: Strategy, for one study.
        space: Search space.
        feasible: Architectures within the budget.
        excluded: Architectures that must not be proposed, as a live view.
        seed: Seed of all draws.
        salt: Further numbers for the seed, different for each worker.
        distributions: Distributions of a trial's parameters.
    """

    strategy: Strategy
    space: SearchSpace
    feasible: Feasible
    excluded: Collection[Indices]
    seed: int
    salt: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.distributions = distributions(self.space)
        self._seen: set[int] = set()
        self._observed: list[tuple[FrozenTrial, Observation]] = []

    def exhausted(self) -> bool:
        """Whether every architecture within the budget is excluded."""
        if len(self.excluded) < self.feasible.count():  # a lower bound
            return False
        everything = self.feasible.enumerate(np.random.default_rng((self.seed, *self.salt)))
        return all(indices in self.excluded for indices in everything)

    def propose(self, study: optuna.Study, number: int) -> Proposal:
        """Propose an architecture for the trial with a number, which need not exist yet."""
        random = np.random.default_rng((self.seed, *self.salt, number))
        state = self._search_state(study, number, random)
        proposed = self.strategy(state)
        indices = self.feasible.repair(proposed or self.feasible.sample(random), random)
        if indices in state.excluded:
            indices = _nearest_allowed(state, indices) or indices
        return Proposal(indices, None if proposed == indices else proposed, state.system_attrs)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposal = self.propose(study, trial.number)
        for key, value in proposal.system_attrs.items():
            study._storage.set_trial_system_attr(trial._trial_id, key, value)
        return self.space.indices_to_params(proposal.indices)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"{param_name} is not a parameter of the space {self.space.name}")

    def _search_state(self, study: optuna.Study, number: int, random: np.random.Generator) -> SearchState:
        trials = study.get_trials(deepcopy=False)
        signs = [1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in study.directions]
        running = []
        for trial in trials:
            if trial.number in self._seen or trial.params.keys() != self.distributions.keys():
                continue
            if trial.state.is_finished():
                self._seen.add(trial.number)
                if trial.state in FINISHED and CACHED_FROM not in trial.user_attrs:
                    indices, curve = self.space.params_to_indices(trial.params), tuple(curve_of(trial))
                    values = tuple(map(mul, signs, trial.values))
                    self._observed.append((trial, Observation(trial.number, indices, values, curve)))
            elif trial.state == TrialState.RUNNING and trial.number != number:
                running.append(self.space.params_to_indices(trial.params))
        self._observed.sort(key=lambda pair: (pair[0].datetime_complete, pair[0].number))
        latest: dict[Indices, tuple[FrozenTrial, Observation]] = {}
        for pair in reversed(self._observed):  # a resumed training replaces the one that it continues
            latest.setdefault(pair[1].indices, pair)
        completed, pruned = (
            [observation for trial, observation in reversed(latest.values()) if trial.state == state]
            for state in FINISHED
        )
        return SearchState(
            space=self.space,
            feasible=self.feasible,
            completed=completed,
            pruned=pruned,
            running=running,
            excluded={*self.excluded, *running},
            random=random,
            directions=study.directions,
            trials=[trial for trial in trials if trial.number != number],
            study_attrs=lambda: study.user_attrs,
        )


_MOST_CHANGES = 2  # positions that may be changed before all architectures are enumerated
_MOST_CANDIDATES = 4096  # candidates with the same number of changes


def _nearest_allowed(state: SearchState, indices: Indices) -> Indices | None:
    """Return an architecture that is not excluded and differs in as few positions as possible, if any."""
    candidates = chain(_by_distance(state, indices), state.feasible.enumerate(state.random))
    return next((candidate for candidate in candidates if candidate not in state.excluded), None)


def _by_distance(state: SearchState, indices: Indices) -> Iterator[Indices]:
    """Yield architectures within the budget with one changed position, then with two, in a random order."""
    sizes = np.array([len(position.choices) for position in state.space.positions])
    for count in range(1, min(_MOST_CHANGES, len(indices)) + 1):
        columns = combinations(range(len(indices)), count)
        changed = np.concatenate([_all_changes(indices, sizes, np.array(where)) for where in columns])
        changed = state.random.permutation(changed)[:_MOST_CANDIDATES]
        yield from tuples(changed[state.feasible.allows_many(changed)])


def _all_changes(indices: Indices, sizes: Integers, columns: Integers) -> Integers:
    """Return every architecture that differs in exactly these positions, (n, positions)."""
    shifts = np.indices((sizes[columns] - 1).tolist()).reshape(len(columns), -1) + 1
    rows = np.tile(np.array(indices, dtype=np.int64), (shifts.shape[1], 1))
    rows[:, columns] = (rows[:, columns] + shifts.T) % sizes[columns]
    return rows
