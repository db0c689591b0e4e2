"""Trials as a search writes them to the storage, and conflicts between workers that start the same one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_recalib.costs import Feasible, format_exactly
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.samplers.base import Indices, distributions
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import (
    ARCHITECTURE_FAILURES,
    CACHED_FROM,
    COST_ATTRIBUTES,
    CURVE,
    ENQUEUED,
    FAILURE,
    RESERVED_ATTRIBUTES,
    RESUMED_FROM,
    WITHDRAWN,
    cost_attributes,
    curve_of,
    failure_of,
    first_trial_of,
    started,
    to_resume,
    will_resume,
)

_CACHED_ATTRS = ("architecture", *COST_ATTRIBUTES.values(), CURVE, "fidelity", "seed", FAILURE, "message")


def may_train(trial_number: int, trials: Sequence[FrozenTrial], target: int) -> bool:
    """Whether a trial that has just been written may be trained, or must be withdrawn as a duplicate.

    All workers come to the same answer from the numbers of the trials, without talking to each other.

    Args:
        trial_number: Number of the trial that was just written.
        trials: All trials of the study, read after that one was written.
        target: Number of trained architectures that the study is to end with.
    """
    this = next(trial for trial in trials if trial.number == trial_number)
    others = [trial for trial in trials if failure_of(trial) != WITHDRAWN]
    older = [trial for trial in others if trial.number < trial_number]
    if RESUMED_FROM in this.user_attrs:
        return all(trial.user_attrs.get(RESUMED_FROM) != this.user_attrs[RESUMED_FROM] for trial in older)
    enqueued = ENQUEUED in this.system_attrs  # so that younger trials may have started before it
    first = first_trial_of(trials)
    resumable = {trial.number for trial in to_resume(trials)}
    for trial in others:
        if trial.params != this.params:
            continue
        started_before = first(trial) < trial_number or (enqueued and trial.number > trial_number)
        failed_for_good = failure_of(trial) in ARCHITECTURE_FAILURES and not will_resume(trial)
        counts = trial.state != TrialState.FAIL or failed_for_good or trial.number in resumable
        if started_before and counts:
            return False
    waiting = 0 if enqueued else sum(trial.state == TrialState.WAITING for trial in older)
    return len(started(older)) + waiting < target


def lost_conflict(trial: FrozenTrial, trials: Sequence[FrozenTrial], target: int) -> bool:
    """Whether a stale trial is a duplicate that its worker died before withdrawing.

    Args:
        trial: Stale trial.
        trials: All trials of the study.
        target: Number of trained architectures that the study is to end with.
    """
    if trial.user_attrs.get(FAILURE) == WITHDRAWN or CACHED_FROM in trial.user_attrs:
        return True  # its worker died after writing the reason and before ending the trial
    return not curve_of(trial) and not may_train(trial.number, trials, target)


def reenqueued(trial: FrozenTrial) -> FrozenTrial | None:
    """Return a waiting copy of an enqueued trial, or None if its worker died after it had described it."""
    if "architecture" in trial.user_attrs or ENQUEUED not in trial.system_attrs:
        return None
    return create_trial(
        state=TrialState.WAITING,
        user_attrs={key: value for key, value in trial.user_attrs.items() if key not in RESERVED_ATTRIBUTES},
        system_attrs={ENQUEUED: trial.system_attrs[ENQUEUED]},
    )


@dataclass(frozen=True)
class TrialSpec:
    """A trial that has not been written yet.

    Attributes:
        indices: Architecture to train.
        user_attrs: User attributes to store with the trial.
        system_attrs: System attributes to store with the trial.
        resumed_from: Numbers of the trials whose training it continues, the latest first.
        reported_epochs: Number of epochs that those trials have reported.
    """

    indices: Indices
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    resumed_from: tuple[int, ...] = ()
    reported_epochs: int = 0


@dataclass(frozen=True)
class TrialWriter:
    """Writer of a search's trials to its study.

    Attributes:
        study: Study to write to.
        space: Search space of the study.
        feasible: Architectures within the budget, and their costs.
        common_attrs: User attributes written to every trial (fidelity, device, versions).
        objectives: Names of the study's objectives.
    """

    study: optuna.Study
    space: SearchSpace
    feasible: Feasible
    common_attrs: Mapping[str, Any]
    objectives: Sequence[str]

    def create(self, spec: TrialSpec) -> optuna.Trial:
        """Write a running trial in one call, which is much faster than suggesting each parameter."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=self.space.indices_to_params(spec.indices),
            distributions=distributions(self.space),
            user_attrs=self._user_attrs(spec),
            system_attrs=dict(spec.system_attrs),
        )
        trial_id = self.study._storage.create_new_trial(self.study._study_id, template)
        return optuna.Trial(self.study, trial_id)

    def read_enqueued(self, trial_id: int) -> optuna.Trial:
        """Return a trial that a user enqueued, with the parameters that the user left open filled in.

        Raises:
            ValueError: If a parameter is not in the space, or the trial carries attributes that are reserved
                for searches.
        """
        trial = optuna.Trial(self.study, trial_id)
        if reserved := trial.user_attrs.keys() & set(RESERVED_ATTRIBUTES):
            raise ValueError(f"it has attributes that only a search writes: {', '.join(sorted(reserved))}")
        if ENQUEUED not in self.study._storage.get_trial_system_attrs(trial_id):  # by Study.add_trial
            self.study._storage.set_trial_system_attr(trial_id, ENQUEUED, trial.params)
        for name, options in self.space.options().items():
            trial.suggest_categorical(name, options)
        return trial

    def write_user_attrs(self, trial: optuna.Trial, spec: TrialSpec) -> None:
        """Give an enqueued trial the user attributes that `create` gives all others."""
        for key, value in self._user_attrs(spec).items():
            trial.set_user_attr(key, value)

    def over_budget(self, indices: Indices) -> Failure | None:
        """Return the failure of an enqueued architecture that is over budget, or None if it is within."""
        if self.feasible.allows(indices):
            return None
        cost = self.feasible.table.cost(indices)
        costs = ", ".join(format_exactly(name, value) for name, value in cost.items())
        return Failure("over-budget", f"{costs} are over {self.feasible.budget}")

    def report(self, trial: optuna.Trial, epoch: Epoch, curve: Sequence[float]) -> None:
        """Write the accuracy after an epoch; `curve` holds those of all epochs so far."""
        if len(self.objectives) == 1:
            trial.report(epoch.accuracy, epoch.number)
        else:
            trial.set_user_attr(CURVE, list(curve))

    def finish(self, trial: optuna.Trial, state: TrialState, accuracy: float) -> FrozenTrial:
        """Write the values and the final state of a trial."""
        values = [accuracy, *(trial.user_attrs[COST_ATTRIBUTES[name]] for name in self.objectives[1:])]
        self.study._storage.set_trial_state_values(trial._trial_id, state, values)
        return self.study._storage.get_trial(trial._trial_id)

    def fail(self, trial_id: int, failure: Failure) -> FrozenTrial:
        """Write a failure, and the state FAIL."""
        storage = self.study._storage
        storage.set_trial_user_attr(trial_id, FAILURE, failure.kind)
        storage.set_trial_user_attr(trial_id, "message", failure.message)
        if failure.details:
            storage.set_trial_user_attr(trial_id, "traceback", failure.details)
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
        return storage.get_trial(trial_id)

    def answer_from_cache(self, trial: optuna.Trial, evaluated: FrozenTrial) -> None:
        """Give a trial the result of another one with the same architecture, without training."""
        trial.set_user_attr(CACHED_FROM, evaluated.number)
        for key in _CACHED_ATTRS:
            if key in evaluated.user_attrs:
                trial.set_user_attr(key, evaluated.user_attrs[key])
        for step, value in evaluated.intermediate_values.items():
            trial.report(value, step)
        self.study._storage.set_trial_state_values(trial._trial_id, evaluated.state, evaluated.values)

    def _user_attrs(self, spec: TrialSpec) -> dict[str, Any]:
        return {
            "architecture": str(self.space.from_indices(spec.indices)),
            **cost_attributes(self.feasible.table.cost(spec.indices)),
            **self.common_attrs,
            **spec.user_attrs,
        }
