"""Scheduler of a search: decides which trial a free worker runs next."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Feasible
from nas_recalib.errors import StopSearch
from nas_recalib.operators import BlockChoice
from nas_recalib.search.pruning import Pruner, resumed_attributes
from nas_recalib.search.samplers import Indices, StrategyInfo, StrategySampler
from nas_recalib.search.trial_writer import TrialSpec
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import Position
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


def baselines(names: Sequence[str], space: SearchSpace, feasible: Feasible) -> dict[str, Indices]:
    """Those that the space has and that are within the budget, by name."""
    networks = {name: single_operator(space, name) for name in names}
    indices = {name: space.indices_of(network) for name, network in networks.items() if network is not None}
    return {name: one for name, one in indices.items() if feasible.allows(one)}


def single_operator(space: SearchSpace, name: str) -> Architecture | None:
    """Return the network that takes one operator at every block, or None where the space does not allow it.

    The operator has the arguments that the space gives it: where a space lists `msar(reduction=3)`, that is
    its network of `msar`. Where it lists several forms, the one without arguments is meant, else the first.
    """
    wanted = BlockChoice.parse(name)
    found = [_form_of(wanted, position) for position in space.positions]
    if None in found:
        return None
    return space.from_indices(tuple(index for index in found if index is not None))


def _form_of(wanted: BlockChoice, position: Position) -> int | None:
    """Return the index of the choice at a position that is made of the wanted operators, in any form."""
    names = (wanted.convolution.name, wanted.recalibration.name)
    forms = [
        index
        for index, choice in enumerate(position.choices)
        if (choice.convolution.name, choice.recalibration.name) == names
    ]
    plain = [index for index in forms if position.choices[index] == wanted]
    return next(iter(plain or forms), None)


@dataclass
class ArchitectureStates:
    """Follows a study.

    Attributes:
        space: Its space.
        evaluated: Architectures that have been trained, or have failed for a reason of their own.
        in_progress: Those that are being trained, or are to be gone on with.
        requeued: Those of enqueued trials that have been withdrawn, the oldest first.
    """

    space: SearchSpace
    evaluated: dict[Indices, FrozenTrial] = field(default_factory=dict)
    in_progress: dict[Indices, FrozenTrial] = field(default_factory=dict)
    requeued: list[Indices] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    @property
    def all(self) -> Mapping[Indices, FrozenTrial]:
        return ChainMap(self.evaluated, self.in_progress)

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """Learns from all trials of a study what has ended since, and what is being trained."""
        self.in_progress.clear()
        for trial in to_resume(trials):
            self.in_progress[self.indices(trial)] = trial
        for trial in trials:
            if trial.number not in self._seen and trial.state.is_finished():
                self._seen.add(trial.number)
                self._remember(trial)
            elif trial.state == TrialState.RUNNING and trial.params.keys() == self.space.options().keys():
                self.in_progress[self.indices(trial)] = trial

    def add(self, trial: FrozenTrial) -> None:
        """Counts a trial's architecture as known to this process, whatever came of it."""
        self.evaluated[self.indices(trial)] = trial

    def indices(self, trial: FrozenTrial) -> Indices:
        return self.space.params_to_indices(trial.params)

    def _remember(self, trial: FrozenTrial) -> None:
        """Keeps what a trial says of its architecture; an interruption or a bug says nothing."""
        of_its_own = failure_of(trial) in ARCHITECTURE_FAILURES and not will_resume(trial)
        telling = trial.state in FINISHED or of_its_own
        if telling and "architecture" in trial.user_attrs and CACHED_FROM not in trial.user_attrs:
            self.add(trial)
        if failure_of(trial) == WITHDRAWN and ENQUEUED in trial.system_attrs:
            self.requeued.append(self.indices(trial))


_PRUNER = 1  # tells its draws from those of the sampler


class NextAction(Enum):
    """Where a search stands that has nothing to propose.

    Attributes:
        ENQUEUED: A trial waits in the study that someone enqueued.
        WAIT: Others are at what is left to do.
        REACHED: The study has what it was asked for.
        EXHAUSTED: Every architecture within the budget has been tried.
    """

    ENQUEUED = auto()
    WAIT = auto()
    REACHED = auto()
    EXHAUSTED = auto()


class Scheduler:
    """Chooses by what a study holds, so that any worker may ask at any time.

    Args:
        study: Which.
        space: Its space.
        feasible: What is within the budget.
        info: The strategy.
        pruner: Which trainings are left, and which of them go on.
        seed: That every draw follows from, with a trial's number.
        salt: Numbers of a worker's own, where several draw at once.
        first: Names of the single-operator networks that come before anything is proposed.

    Attributes:
        pruner: As given.
        tried: What need not be trained again.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        feasible: Feasible,
        info: StrategyInfo,
        pruner: Pruner,
        seed: int,
        salt: Sequence[int],
        first: Sequence[str],
    ) -> None:
        self.pruner = pruner
        self.tried = ArchitectureStates(space)
        self._study = study
        self._space = space
        self._entropy = (seed, *salt)
        self._sampler = StrategySampler(info.make(), space, feasible, self.tried.all, seed, salt)
        self._baselines = {indices: name for name, indices in baselines(first, space, feasible).items()}
        study.sampler = self._sampler

    def next(self, trials: Sequence[FrozenTrial], target: int) -> TrialSpec | NextAction:
        """What was broken off, rises from a rung, waits or did so in vain, a baseline, or a proposal.

        Args:
            trials: All of the study.
            target: Architectures that it is to have trained.

        Raises:
            StopSearch: If all that is within the budget failed.
        """
        self.tried.look(trials)
        first = first_trial_of(trials)
        ended = {first(one) for one in finished_of(trials)}
        enough = len(ended - warm_started(trials)) >= target
        for left in to_resume(trials):
            if not enough or first(left) in ended:
                return self._again(left, trials)
        states = {trial.state for trial in trials}
        full = len(started(trials)) >= target
        waits = TrialState.WAITING in states and not full
        exhausted = not full and not waits and self._sampler.exhausted()
        busy = TrialState.RUNNING in states
        rising = self.pruner.promotes(self._study, last=enough or (exhausted and not busy))
        if rising is not None:
            return self._resume(rising, trials, {})
        if enough:
            rises = any(one.state == TrialState.RUNNING and first(one) in ended for one in trials)
            return NextAction.WAIT if rises else NextAction.REACHED
        if waits:
            return NextAction.ENQUEUED
        if full or (exhausted and busy):
            return NextAction.WAIT
        if exhausted and not finished_of(trials):
            raise StopSearch("every architecture within the budget failed")
        return NextAction.EXHAUSTED if exhausted else self._new(trials)

    def baselines_left(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many single-operator networks are neither trained nor in progress."""
        self.tried.look(trials)
        return sum(indices not in self.tried.all for indices in self._baselines)

    def enqueued_spec(self, indices: Indices) -> TrialSpec:
        """What someone else chose."""
        return TrialSpec(indices, self._baseline(indices))

    def _new(self, trials: Sequence[FrozenTrial]) -> TrialSpec:
        for indices in (*self.tried.requeued, *self._baselines):
            if indices not in self.tried.all:
                return self.enqueued_spec(indices)
        number = len(trials)
        proposal = self._sampler.propose(self._study, number)
        told = (
            {}
            if proposal.proposed is None
            else {"proposed": str(self._space.from_indices(proposal.proposed))}
        )
        bracket = self.pruner.attributes(np.random.default_rng((*self._entropy, number, _PRUNER)))
        return TrialSpec(
            proposal.indices, {**told, **bracket, **self._baseline(proposal.indices)}, proposal.kept
        )

    def _again(self, left: FrozenTrial, trials: Sequence[FrozenTrial]) -> TrialSpec:
        """What was broken off."""
        kind, attempt = left.user_attrs[FAILURE], left.user_attrs.get(ATTEMPT, 1)
        attributes = {ATTEMPT: attempt + 1} if kind == "lost" else {ATTEMPT: attempt} if attempt > 1 else {}
        return self._resume(
            left, trials, {**attributes, **({MICRO_BATCHES: 2} if kind == "out-of-memory" else {})}
        )

    def _resume(
        self, left: FrozenTrial, trials: Sequence[FrozenTrial], attributes: dict[str, Any]
    ) -> TrialSpec:
        indices = self._space.params_to_indices(left.params)
        return TrialSpec(
            indices,
            {**resumed_attributes(left), **self._baseline(indices), **attributes},
            after=(left.number, *lineage(trials)(left)),
            told=len(curve_of(left)),
        )

    def _baseline(self, indices: Indices) -> dict[str, Any]:
        return {"baseline": self._baselines[indices]} if indices in self._baselines else {}
