"""Strategies that ask Optuna's own samplers: TPE, Gaussian process, NSGA-II."""

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.search.samplers.base import Indices, SearchState, Strategy, distributions

_log = logging.getLogger(__name__)


class MirrorStudy:
    """Copy of a study in memory, for samplers that write to the storage while they propose.

    Args:
        directions: Directions of the study's objectives.
        default_attrs: System attributes given to trials that do not have them.
    """

    def __init__(self, directions: Sequence[StudyDirection], default_attrs: Mapping[str, Any]) -> None:
        self._storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(storage=self._storage, directions=list(directions))
        self._default_attrs = default_attrs
        self._copied: dict[int, tuple[int, TrialState]] = {}

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Copy the trials that are new or have changed."""
        for trial in trials:
            trial_id, state = self._copied.get(trial.number, (None, TrialState.WAITING))
            if trial.state == state or not trial.params:
                continue
            if trial_id is None:
                template = copy(trial)
                template.system_attrs = {**self._default_attrs, **trial.system_attrs}
                trial_id = self._storage.create_new_trial(self.study._study_id, template)
            else:
                for step, value in trial.intermediate_values.items():
                    self._storage.set_trial_intermediate_value(trial_id, step, value)
                self._storage.set_trial_state_values(trial_id, trial.state, trial.values)
            self._copied[trial.number] = (trial_id, trial.state)

    def ask(self) -> FrozenTrial:
        """Create a trial to propose for; discard it before the next one, so that samplers ignore it."""
        return self._storage.get_trial(self.study.ask()._trial_id)

    def discard(self, trial: FrozenTrial) -> dict[str, Any]:
        """Fail a trial and return the system attributes that a sampler gave it."""
        attrs = self._storage.get_trial(trial._trial_id).system_attrs
        self.study.tell(trial.number, state=TrialState.FAIL)
        return attrs


def from_optuna(
    make: Callable[[int], BaseSampler], attempts: int = 16, stored: str | None = None
) -> Strategy:
    """Return a strategy for one study that asks an Optuna sampler, a new one for every trial.

    A new sampler for every trial makes proposals depend on the study alone, not on the process.

    Args:
        make: Function that makes a sampler from a seed.
        attempts: Number of proposals to ask for until one is not excluded.
        stored: Key of a system attribute that the sampler needs in its own trials; all others get 0.
    """
    mirror: MirrorStudy | None = None

    def propose(state: SearchState) -> Indices | None:
        nonlocal mirror
        mirror = mirror or MirrorStudy(state.directions, {stored: 0} if stored else {})
        mirror.update(state.trials)
        sampler = make(int(state.random.integers(2**31)))
        trial = mirror.ask()
        indices = None
        for _ in range(attempts):
            params = sampler.sample_relative(mirror.study, trial, distributions(state.space))
            if not params:
                break
            options = state.space.options().items()
            drawn = {name: allowed[state.random.integers(len(allowed))] for name, allowed in options}
            indices = state.space.params_to_indices({**drawn, **params})  # NSGA-II leaves out what it mutates
            if indices not in state.excluded:
                break
        attrs = mirror.discard(trial)
        if stored in attrs:
            state.system_attrs[stored] = attrs[stored]
        return indices

    return propose


def tpe() -> Strategy:
    """Return a tree-structured Parzen estimator that models all parameters jointly, after 8 uniform draws."""
    return from_optuna(lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=8))


def gp(most: int = 300) -> Strategy:
    """Return a Gaussian process with expected improvement, replaced by `tpe` when fitting takes too long.

    With 32 categorical parameters a proposal takes about 2 s of one core from 300 trials and half a minute
    from 1,000.

    Args:
        most: Greatest number of completed trials to fit the process to.
    """
    gaussian_process = from_optuna(
        lambda seed: GPSampler(seed=seed, warn_independent_sampling=False), attempts=1
    )
    fallback = tpe()

    def propose(state: SearchState) -> Indices | None:
        count = len(state.completed)
        if count == most + 1:
            _log.warning("gp: fitting more than %d trials takes too long; tpe proposes from here on", most)
        return (gaussian_process if count <= most else fallback)(state)

    return propose


def nsga2(population: int = 24) -> Strategy:
    """Return NSGA-II, which crosses and mutates the Pareto front of the study's objectives.

    Baselines and trials of other strategies or studies belong to the first generation.

    Args:
        population: Number of architectures in a generation; the first is filled up with uniform draws.
    """
    generation = NSGAIISampler._get_generation_key()
    return from_optuna(lambda seed: NSGAIISampler(seed=seed, population_size=population), stored=generation)
