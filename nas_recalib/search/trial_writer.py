"""Trials as a search writes them to the storage, and conflicts between workers that start the same one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_recalib.costs import Feasible, format_exactly
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.job import Job
from nas_recalib.search.samplers import Indices
from nas_recalib.search.samplers.base import distributions
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


def may_train(number: int, trials: Sequence[FrozenTrial], target: int) -> bool:
    """Whether a trial that has just been written may be trained.

    Args:
        number: Its.
        trials: All of the study, read after it was written.
        target: Trainings that the study is to end with.
    """
    this = next(trial for trial in trials if trial.number == number)
    serious = [trial for trial in trials if failure_of(trial) != WITHDRAWN]
    before = [trial for trial in serious if trial.number < number]
    if RESUMED_FROM in this.user_attrs:
        return all(trial.user_attrs.get(RESUMED_FROM) != this.user_attrs[RESUMED_FROM] for trial in before)
    waited = ENQUEUED in this.system_attrs  # so that younger ones may have been there first
    first = first_trial_of(trials)
    rivals = [trial for trial in serious if first(trial) < number or (waited and trial.number > number)]
    due = {trial.number for trial in to_resume(trials)}
    if any(trial.params == this.params and (trial.number in due or _claims(trial)) for trial in rivals):
        return False
    waiting = 0 if waited else sum(trial.state == TrialState.WAITING for trial in before)
    return len(started(before)) + waiting < target


def lost_conflict(trial: FrozenTrial, trials: Sequence[FrozenTrial], target: int) -> bool:
    """Whether a trial whose worker died does not stand, which that worker had no time to say."""
    if trial.user_attrs.get(FAILURE) == WITHDRAWN or CACHED_FROM in trial.user_attrs:  # it got no further
        return True
    return not curve_of(trial) and not may_train(trial.number, trials, target)


def reenqueued(trial: FrozenTrial) -> FrozenTrial | None:
    """As somebody enqueued it, a trial whose worker died before it described it."""
    if "architecture" in trial.user_attrs or ENQUEUED not in trial.system_attrs:
        return None
    return create_trial(
        state=TrialState.WAITING,
        user_attrs={key: value for key, value in trial.user_attrs.items() if key not in RESERVED_ATTRIBUTES},
        system_attrs={ENQUEUED: trial.system_attrs[ENQUEUED]},
    )


def _claims(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.FAIL or (
        failure_of(trial) in ARCHITECTURE_FAILURES and not will_resume(trial)
    )


_ANSWERED = (  # attributes that a replayed trial takes over
    "architecture",
    *COST_ATTRIBUTES.values(),
    CURVE,
    "fidelity",
    "seed",
    FAILURE,
    "message",
)


@dataclass(frozen=True)
class TrialSpec:
    """A trial that is to be.

    Attributes:
        indices: Its architecture.
        attributes: The user's kind.
        kept: The system's kind.
        after: Numbers of the trials whose training it goes on with, the last first.
        told: Epochs that those have reported.
    """

    indices: Indices
    attributes: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[int, ...] = ()
    told: int = 0


@dataclass
class Running:
    """A trial that is being trained by this process.

    Attributes:
        trial: Itself.
        job: As it was handed out.
        known: Epochs that had been told when it was begun.
        curve: Accuracies that were told since.
        seconds: Trained so far.
        taken: Whether another goes on with it, who thought this process dead.
    """

    trial: optuna.Trial
    job: Job
    known: int
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0
    taken: bool = False


@dataclass(frozen=True)
class TrialWriter:
    """Writes to a study.

    Attributes:
        study: Which.
        space: Its space.
        feasible: Says what architectures cost.
        common_attrs: Attributes that every trial carries.
        objectives: Names of the study's.
    """

    study: optuna.Study
    space: SearchSpace
    feasible: Feasible
    common_attrs: Mapping[str, Any]
    objectives: Sequence[str]

    def begin(self, spec: TrialSpec) -> optuna.Trial:
        """A trial written in one go, which takes a database a fraction of the time of asking for it."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=self.space.indices_to_params(spec.indices),
            distributions=self._distributions,
            user_attrs=self._attributes(spec),
            system_attrs=dict(spec.kept),
        )
        identity = self.study._storage.create_new_trial(self.study._study_id, template)
        return optuna.Trial(self.study, identity)

    def read(self, identity: int) -> optuna.Trial:
        """A trial that somebody enqueued; what was left open is proposed.

        Raises:
            ValueError: If it asks for what the space does not have, or carries attributes that mean something
                to a search.
        """
        trial = optuna.Trial(self.study, identity)
        if carried := trial.user_attrs.keys() & set(RESERVED_ATTRIBUTES):
            raise ValueError(f"it has attributes that only a search writes: {', '.join(sorted(carried))}")
        if ENQUEUED not in self.study._storage.get_trial_system_attrs(identity):  # by Study.add_trial
            self.study._storage.set_trial_system_attr(identity, ENQUEUED, trial.params)
        for name, options in self.space.options().items():
            trial.suggest_categorical(name, options)
        return trial

    def describe(self, trial: optuna.Trial, spec: TrialSpec) -> None:
        """Gives a trial that somebody enqueued the attributes of the others."""
        for key, value in self._attributes(spec).items():
            trial.set_user_attr(key, value)

    def refusal(self, spec: TrialSpec) -> Failure | None:
        """Why what somebody enqueued is not trained, if it is not."""
        if self.feasible.allows(spec.indices):
            return None
        cost = self.feasible.table.cost(spec.indices)
        costs = ", ".join(format_exactly(name, value) for name, value in cost.items())
        return Failure("over-budget", f"{costs} are over {self.feasible.budget}")

    def report(self, trial: optuna.Trial, epoch: Epoch, curve: Sequence[float]) -> None:
        """Tells what a training has come to so far."""
        if len(self.objectives) == 1:
            trial.report(epoch.accuracy, epoch.number)
        else:
            trial.set_user_attr(CURVE, list(curve))

    def end(self, trial: optuna.Trial, state: TrialState, accuracy: float) -> FrozenTrial:
        """Tells what a training came to."""
        values = [accuracy, *(trial.user_attrs[COST_ATTRIBUTES[name]] for name in self.objectives[1:])]
        self.study._storage.set_trial_state_values(trial._trial_id, state, values)
        return self.study._storage.get_trial(trial._trial_id)

    def fail(self, identity: int, failure: Failure) -> FrozenTrial:
        """Tells why there is nothing to tell."""
        storage = self.study._storage
        storage.set_trial_user_attr(identity, FAILURE, failure.kind)
        storage.set_trial_user_attr(identity, "message", failure.message)
        if failure.details:
            storage.set_trial_user_attr(identity, "traceback", failure.details)
        storage.set_trial_state_values(identity, TrialState.FAIL)
        return storage.get_trial(identity)

    def replay(self, trial: optuna.Trial, known: FrozenTrial) -> None:
        """Answers a trial from what is known; nothing is trained."""
        trial.set_user_attr(CACHED_FROM, known.number)
        for key in _ANSWERED:
            if key in known.user_attrs:
                trial.set_user_attr(key, known.user_attrs[key])
        for step, value in known.intermediate_values.items():
            trial.report(value, step)
        self.study._storage.set_trial_state_values(trial._trial_id, known.state, known.values)

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return distributions(self.space)

    def _attributes(self, spec: TrialSpec) -> dict[str, Any]:
        return {
            "architecture": str(self.space.from_indices(spec.indices)),
            **cost_attributes(self.feasible.table.cost(spec.indices)),
            **self.common_attrs,
            **spec.attributes,
        }
