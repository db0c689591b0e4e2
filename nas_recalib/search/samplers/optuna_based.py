"""Strategies that ask Optuna's own samplers: TPE, Gaussian process, NSGA-II."""

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.search.samplers.base import Indices, SearchState, Strategy, distributions
from nas_recalib.space import SearchSpace


class Mirror:
    """A study in memory that follows a real one, for samplers that write to theirs while they propose.

    Args:
        directions: Of the study's objectives.
        strangers: System attributes of trials that the sampler did not propose.
    """

    def __init__(self, directions: Sequence[StudyDirection], strangers: Mapping[str, Any]) -> None:
        storage = optuna.storages.InMemoryStorage()
        self.study = optuna.create_study(storage=storage, directions=list(directions))
        self._storage = storage
        self._strangers = strangers
        self._shown: dict[int, tuple[int, TrialState]] = {}

    def follow(self, trials: Sequence[FrozenTrial]) -> None:
        """Takes over what has changed."""
        for trial in trials:
            identity, state = self._shown.get(trial.number, (None, TrialState.WAITING))
            if trial.state == state or not trial.params:
                continue
            if identity is None:
                template = copy(trial)
                template.system_attrs = {**self._strangers, **trial.system_attrs}
                identity = self._storage.create_new_trial(self.study._study_id, template)
            else:
                for step, value in trial.intermediate_values.items():
                    self._storage.set_trial_intermediate_value(identity, step, value)
                self._storage.set_trial_state_values(identity, trial.state, trial.values)
            self._shown[trial.number] = (identity, trial.state)

    def draft(self) -> FrozenTrial:
        """A trial to propose for; it fails before another is asked for, so that samplers forget it."""
        return self._storage.get_trial(self.study.ask()._trial_id)

    def drop(self, draft: FrozenTrial) -> dict[str, Any]:
        """Ends a draft.

        Returns:
            The system attributes that a sampler gave it.
        """
        attributes = self._storage.get_trial(draft._trial_id).system_attrs
        self.study.tell(draft.number, state=TrialState.FAIL)
        return attributes


def from_optuna(make: Callable[[int], BaseSampler], attempts: int = 16, keep: str | None = None) -> Strategy:
    """Asks a sampler that is made anew for every trial, so that it remembers what the study does and no more.

    It is for one study, of which it keeps a mirror.

    Args:
        make: A sampler from a seed.
        attempts: How often it is asked while it proposes what has been tried.
        keep: A system attribute of its trials by which it finds its way again; 0 for all other trials.
    """
    mirror: Mirror | None = None

    def propose(state: SearchState) -> Indices | None:
        nonlocal mirror
        mirror = mirror or Mirror(state.directions, {keep: 0} if keep else {})
        mirror.follow(state.trials)
        sampler = make(int(state.random.integers(2**31)))
        draft = mirror.draft()
        indices = None
        for _ in range(attempts):
            parameters = sampler.sample_relative(mirror.study, draft, distributions(state.space))
            if not parameters:
                break
            indices = _indices(state.space, parameters, state.random)
            if indices not in state.tried:
                break
        attributes = mirror.drop(draft)
        if keep in attributes:
            state.kept[keep] = attributes[keep]
        return indices

    return propose


def _indices(space: SearchSpace, parameters: dict[str, Any], random: np.random.Generator) -> Indices:
    """What a sampler leaves out (NSGA-II does so with what it mutates) is drawn uniformly."""
    drawn = {name: allowed[random.integers(len(allowed))] for name, allowed in space.options().items()}
    return space.params_to_indices({**drawn, **parameters})


def tpe() -> Strategy:
    """Models all parameters together, from the ninth trained trial on; avoids what runs elsewhere."""
    return from_optuna(lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=8))


_log = logging.getLogger(__name__)


def gp(most: int = 300) -> Strategy:
    """A Gaussian process with expected improvement; `tpe` takes over where there is too much to fit.

    With 32 categorical parameters a proposal takes about 2 s of one core from 300 trials and half a minute
    from 1,000.

    Args:
        most: Trained trials that it is fitted to.
    """
    fitted = from_optuna(lambda seed: GPSampler(seed=seed, warn_independent_sampling=False), attempts=1)
    beyond = tpe()

    def propose(state: SearchState) -> Indices | None:
        if len(state.known) == most + 1:
            _log.warning("gp: from %d trials on proposals are tpe's, for a fit would take too long", most)
        return (fitted if len(state.known) <= most else beyond)(state)

    return propose


def nsga2(population: int = 24) -> Strategy:
    """Crosses and mutates the front: accuracy against costs, where the study has them as objectives.

    Baselines, and what another strategy or study has trained, are of the first generation.

    Args:
        population: Architectures in a generation; what the first lacks is drawn uniformly.
    """
    generation = NSGAIISampler._get_generation_key()
    return from_optuna(lambda seed: NSGAIISampler(seed=seed, population_size=population), keep=generation)
