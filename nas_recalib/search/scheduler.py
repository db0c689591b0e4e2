"""Scheduler of a search: decides which trial a free worker runs next."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.costs import Feasible
from nas_recalib.errors import StopSearch
from nas_recalib.operators import BlockChoice
from nas_recalib.search.pruning import Pruner, resumed_attributes
from nas_recalib.search.samplers import StrategyInfo
from nas_recalib.search.samplers.base import Indices, StrategySampler
from nas_recalib.search.trial_writer import TrialSpec
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import (
    ARCHITECTURE_FAILURES,
    ATTEMPT,
    CACHED_FROM,
    ENQUEUED,
    FAILURE,
    FINISHED,
    MICRO_BATCHES,
    WITHDRAWN,
    curve_of,
    failure_of,
    finished_of,
    first_trial_of,
    lineage,
    started,
    to_resume,
    warm_started,
    will_resume,
)

BASELINES = ("vanilla", "scconv", "psconv", "msar", "ab", "ab-plus")
_PRUNER = 1  # makes the pruner's random draws differ from the sampler's


def single_operator(space: SearchSpace, name: str) -> Indices | None:
    """Return the network that takes one operator at every block, or None where the space does not allow it.

    The operator has the arguments that the space gives it: where a space lists `msar(reduction=3)`, that is
    its network of `msar`. Where it lists several forms, the one without arguments is meant, else the first.
    """
    wanted = BlockChoice.parse(name)
    names = (wanted.convolution.name, wanted.recalibration.name)
    indices = []
    for position in space.positions:
        forms = [c for c in position.choices if (c.convolution.name, c.recalibration.name) == names]
        if not forms:
            return None
        indices.append(position.choices.index(wanted if wanted in forms else forms[0]))
    return space.indices_of(space.from_indices(tuple(indices)))


@dataclass
class ArchitectureStates:
    """States of the architectures in a study: evaluated, in progress, requeued.

    Attributes:
        space: Search space of the study.
        evaluated: Architectures that were trained or failed for good, with their trials.
        in_progress: Architectures that are being trained or will be resumed, with their trials.
        requeued: Architectures of enqueued trials that were withdrawn, the oldest first.
    """

    space: SearchSpace
    evaluated: dict[Indices, FrozenTrial] = field(default_factory=dict)
    in_progress: dict[Indices, FrozenTrial] = field(default_factory=dict)
    requeued: list[Indices] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    @property
    def excluded(self) -> Mapping[Indices, FrozenTrial]:
        """Live view of the architectures that must not be proposed: evaluated or in progress."""
        return ChainMap(self.evaluated, self.in_progress)

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Read all trials of the study, of finished ones those that are new."""
        self.in_progress.clear()
        for trial in to_resume(trials):
            self.in_progress[self.space.params_to_indices(trial.params)] = trial
        for trial in trials:
            if trial.number not in self._seen and trial.state.is_finished():
                self._seen.add(trial.number)
                self._add_finished(trial)
            elif trial.state == TrialState.RUNNING and trial.params.keys() == self.space.options().keys():
                self.in_progress[self.space.params_to_indices(trial.params)] = trial

    def mark_evaluated(self, trial: FrozenTrial) -> None:
        """Exclude the architecture of a trial from this process's proposals, whatever its state."""
        self.evaluated[self.space.params_to_indices(trial.params)] = trial

    def _add_finished(self, trial: FrozenTrial) -> None:
        """Add a finished trial, unless it was interrupted or failed by a bug and may be proposed again."""
        failed_for_good = failure_of(trial) in ARCHITECTURE_FAILURES and not will_resume(trial)
        own_result = "architecture" in trial.user_attrs and CACHED_FROM not in trial.user_attrs
        if own_result and (trial.state in FINISHED or failed_for_good):
            self.mark_evaluated(trial)
        if failure_of(trial) == WITHDRAWN and ENQUEUED in trial.system_attrs:
            self.requeued.append(self.space.params_to_indices(trial.params))


class NextAction(Enum):
    """Next action of a worker when there is no new trial to propose.

    Attributes:
        ENQUEUED: Run a trial that a user enqueued.
        WAIT: Wait for other workers.
        REACHED: Stop, because the study has reached its target.
        EXHAUSTED: Stop, because every architecture within the budget has been tried.
    """

    ENQUEUED = auto()
    WAIT = auto()
    REACHED = auto()
    EXHAUSTED = auto()


@dataclass
class Scheduler:
    """Scheduler that decides from the trials of the study alone, so that any worker may ask at any time.

    Attributes:
        study: Study to schedule trials for.
        space: Search space of the study.
        feasible: Architectures within the budget.
        strategy: Search strategy that proposes architectures.
        pruner: Pruner that pauses and promotes trials.
        seed: Seed of all draws, combined with the number of the trial.
        salt: Further numbers for the seed, different for each worker.
        baselines: Names of the single-operator networks to train before anything is proposed.
        architectures: States of the architectures in the study.
    """

    study: optuna.Study
    space: SearchSpace
    feasible: Feasible
    strategy: StrategyInfo
    pruner: Pruner
    seed: int
    salt: Sequence[int]
    baselines: Sequence[str]

    def __post_init__(self) -> None:
        self.architectures = ArchitectureStates(self.space)
        excluded = self.architectures.excluded
        self._sampler = StrategySampler(
            self.strategy.make(), self.space, self.feasible, excluded, self.seed, self.salt
        )
        self.study.sampler = self._sampler
        networks = {single_operator(self.space, name): name for name in self.baselines}
        self._baselines = {
            indices: name for indices, name in networks.items() if indices and self.feasible.allows(indices)
        }

    def next_action(self, trials: Sequence[FrozenTrial], target: int) -> TrialSpec | NextAction:
        """Return the next trial to write, or what else to do.

        In this order: resume an interrupted training, promote a paused one, run an enqueued trial, requeue a
        withdrawn one, train a baseline, train a proposal of the strategy.

        Args:
            trials: All trials of the study.
            target: Number of trained architectures that the study is to end with.

        Raises:
            StopSearch: If every architecture within the budget failed.
        """
        self.architectures.update(trials)
        first = first_trial_of(trials)
        finished = {first(trial) for trial in finished_of(trials)}
        enough = len(finished - warm_started(trials)) >= target
        for interrupted in to_resume(trials):
            if not enough or first(interrupted) in finished:
                return self._retry(interrupted, trials)
        states = {trial.state for trial in trials}
        full = len(started(trials)) >= target
        enqueued = TrialState.WAITING in states and not full
        exhausted = not full and not enqueued and self._sampler.exhausted()
        busy = TrialState.RUNNING in states
        paused = self.pruner.trial_to_promote(self.study, last=enough or (exhausted and not busy))
        if paused is not None:
            return self._resume(paused, trials, {})
        if enough:
            promoted = any(t.state == TrialState.RUNNING and first(t) in finished for t in trials)
            return NextAction.WAIT if promoted else NextAction.REACHED
        if enqueued:
            return NextAction.ENQUEUED
        if full or (exhausted and busy):
            return NextAction.WAIT
        if exhausted and not finished:
            raise StopSearch("every architecture within the budget failed")
        return NextAction.EXHAUSTED if exhausted else self._new_trial(number=len(trials))

    def baselines_left(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many single-operator networks are neither evaluated nor in progress."""
        self.architectures.update(trials)
        return sum(indices not in self.architectures.excluded for indices in self._baselines)

    def spec_of(self, indices: Indices) -> TrialSpec:
        """Return the spec of an architecture that the strategy did not propose."""
        return TrialSpec(indices, self._baseline_attrs(indices))

    def _new_trial(self, number: int) -> TrialSpec:
        for indices in (*self.architectures.requeued, *self._baselines):
            if indices not in self.architectures.excluded:
                return self.spec_of(indices)
        proposal = self._sampler.propose(self.study, number)
        attrs: dict[str, Any] = {}
        if proposal.proposed is not None:
            attrs["proposed"] = str(self.space.from_indices(proposal.proposed))
        attrs |= self.pruner.new_trial_attrs(np.random.default_rng((self.seed, *self.salt, number, _PRUNER)))
        attrs |= self._baseline_attrs(proposal.indices)
        return TrialSpec(proposal.indices, attrs, proposal.system_attrs)

    def _retry(self, interrupted: FrozenTrial, trials: Sequence[FrozenTrial]) -> TrialSpec:
        """Return the spec that resumes an interrupted, lost or out-of-memory trial."""
        kind, attempt = interrupted.user_attrs[FAILURE], interrupted.user_attrs.get(ATTEMPT, 1)
        attempt += kind == "lost"
        attrs = {ATTEMPT: attempt} if attempt > 1 else {}
        if kind == "out-of-memory":
            attrs[MICRO_BATCHES] = 2
        return self._resume(interrupted, trials, attrs)

    def _resume(
        self, trial: FrozenTrial, trials: Sequence[FrozenTrial], attrs: Mapping[str, Any]
    ) -> TrialSpec:
        indices = self.space.params_to_indices(trial.params)
        return TrialSpec(
            indices,
            {**resumed_attributes(trial), **self._baseline_attrs(indices), **attrs},
            resumed_from=(trial.number, *lineage(trials)(trial)),
            reported_epochs=len(curve_of(trial)),
        )

    def _baseline_attrs(self, indices: Indices) -> dict[str, str]:
        return {"baseline": self._baselines[indices]} if indices in self._baselines else {}
