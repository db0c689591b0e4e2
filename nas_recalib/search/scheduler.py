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
from nas_recalib.search.pruning import Pruner, going_on
from nas_recalib.search.samplers import Offer, Picks, UntriedSampler
from nas_recalib.search.trial_writer import Draft
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import Position
from nas_recalib.study.trials import (
    ATTEMPT,
    ENQUEUED,
    FAILURE,
    FINISHED,
    OF_ITS_OWN,
    PARTS,
    REPLAYED,
    WITHDRAWN,
    begun,
    comes_back,
    curve_of,
    failure_of,
    finished_of,
    firsts,
    lineage,
    owed,
    taken_over,
)

BASELINES = ("vanilla", "scconv", "psconv", "msar", "ab", "ab-plus")


def baselines(names: Sequence[str], space: SearchSpace, feasible: Feasible) -> dict[str, Picks]:
    """Those that the space has and that are within the budget, by name."""
    networks = {name: single_operator(space, name) for name in names}
    picks = {name: space.picks(network) for name, network in networks.items() if network is not None}
    return {name: one for name, one in picks.items() if feasible.allows(one)}


def single_operator(space: SearchSpace, name: str) -> Architecture | None:
    """Return the network that takes one operator at every block, or None where the space does not allow it.

    The operator has the arguments that the space gives it: where a space lists `msar(reduction=3)`, that is
    its network of `msar`. Where it lists several forms, the one without arguments is meant, else the first.
    """
    wanted = BlockChoice.parse(name)
    found = [_form_of(wanted, position) for position in space.positions]
    if None in found:
        return None
    return space.at(tuple(index for index in found if index is not None))


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
class Tried:
    """Follows a study.

    Attributes:
        space: Its space.
        known: Architectures that have been trained, or have failed for a reason of their own.
        claimed: Those that are being trained, or are to be gone on with.
        wished: Those of enqueued trials that have been withdrawn, the oldest first.
    """

    space: SearchSpace
    known: dict[Picks, FrozenTrial] = field(default_factory=dict)
    claimed: dict[Picks, FrozenTrial] = field(default_factory=dict)
    wished: list[Picks] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    @property
    def all(self) -> Mapping[Picks, FrozenTrial]:
        return ChainMap(self.known, self.claimed)

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """Learns from all trials of a study what has ended since, and what is being trained."""
        self.claimed.clear()
        for trial in owed(trials):
            self.claimed[self.picks(trial)] = trial
        for trial in trials:
            if trial.number not in self._seen and trial.state.is_finished():
                self._seen.add(trial.number)
                self._remember(trial)
            elif trial.state == TrialState.RUNNING and trial.params.keys() == self.space.options().keys():
                self.claimed[self.picks(trial)] = trial

    def add(self, trial: FrozenTrial) -> None:
        """Counts a trial's architecture as known to this process, whatever came of it."""
        self.known[self.picks(trial)] = trial

    def picks(self, trial: FrozenTrial) -> Picks:
        return self.space.picks_of(trial.params)

    def _remember(self, trial: FrozenTrial) -> None:
        """Keeps what a trial says of its architecture; an interruption or a bug says nothing."""
        of_its_own = failure_of(trial) in OF_ITS_OWN and not comes_back(trial)
        telling = trial.state in FINISHED or of_its_own
        if telling and "architecture" in trial.user_attrs and REPLAYED not in trial.user_attrs:
            self.add(trial)
        if failure_of(trial) == WITHDRAWN and ENQUEUED in trial.system_attrs:
            self.wished.append(self.picks(trial))


_PRUNER = 1  # tells its draws from those of the sampler


class Outlook(Enum):
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


class Plan:
    """Chooses by what a study holds, so that any worker may ask at any time.

    Args:
        study: Which.
        space: Its space.
        feasible: What is within the budget.
        offer: The strategy.
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
        offer: Offer,
        pruner: Pruner,
        seed: int,
        salt: Sequence[int],
        first: Sequence[str],
    ) -> None:
        self.pruner = pruner
        self.tried = Tried(space)
        self._study = study
        self._space = space
        self._entropy = (seed, *salt)
        self._sampler = UntriedSampler(offer.make(), space, feasible, self.tried.all, seed, salt)
        self._baselines = {picks: name for name, picks in baselines(first, space, feasible).items()}
        study.sampler = self._sampler

    def next(self, trials: Sequence[FrozenTrial], goal: int) -> Draft | Outlook:
        """What was broken off, rises from a rung, waits or did so in vain, a baseline, or a proposal.

        Args:
            trials: All of the study.
            goal: Architectures that it is to have trained.

        Raises:
            StopSearch: If all that is within the budget failed.
        """
        self.tried.look(trials)
        first = firsts(trials)
        ended = {first(one) for one in finished_of(trials)}
        enough = len(ended - taken_over(trials)) >= goal
        for left in owed(trials):
            if not enough or first(left) in ended:
                return self._again(left, trials)
        states = {trial.state for trial in trials}
        full = len(begun(trials)) >= goal
        waits = TrialState.WAITING in states and not full
        exhausted = not full and not waits and self._sampler.exhausted()
        busy = TrialState.RUNNING in states
        rising = self.pruner.promotes(self._study, last=enough or (exhausted and not busy))
        if rising is not None:
            return self._going_on(rising, trials, {})
        if enough:
            rises = any(one.state == TrialState.RUNNING and first(one) in ended for one in trials)
            return Outlook.WAIT if rises else Outlook.REACHED
        if waits:
            return Outlook.ENQUEUED
        if full or (exhausted and busy):
            return Outlook.WAIT
        if exhausted and not finished_of(trials):
            raise StopSearch("every architecture within the budget failed")
        return Outlook.EXHAUSTED if exhausted else self._new(trials)

    def baselines_left(self, trials: Sequence[FrozenTrial]) -> int:
        """Return how many single-operator networks are neither trained nor in progress."""
        self.tried.look(trials)
        return sum(picks not in self.tried.all for picks in self._baselines)

    def by_hand(self, picks: Picks) -> Draft:
        """What someone else chose."""
        return Draft(picks, self._baseline(picks))

    def _new(self, trials: Sequence[FrozenTrial]) -> Draft:
        for picks in (*self.tried.wished, *self._baselines):
            if picks not in self.tried.all:
                return self.by_hand(picks)
        number = len(trials)
        proposal = self._sampler.propose(self._study, number)
        told = {} if proposal.proposed is None else {"proposed": str(self._space.at(proposal.proposed))}
        bracket = self.pruner.attributes(np.random.default_rng((*self._entropy, number, _PRUNER)))
        return Draft(proposal.picks, {**told, **bracket, **self._baseline(proposal.picks)}, proposal.kept)

    def _again(self, left: FrozenTrial, trials: Sequence[FrozenTrial]) -> Draft:
        """What was broken off."""
        kind, attempt = left.user_attrs[FAILURE], left.user_attrs.get(ATTEMPT, 1)
        attributes = {ATTEMPT: attempt + 1} if kind == "lost" else {ATTEMPT: attempt} if attempt > 1 else {}
        return self._going_on(left, trials, {**attributes, **({PARTS: 2} if kind == "out-of-memory" else {})})

    def _going_on(
        self, left: FrozenTrial, trials: Sequence[FrozenTrial], attributes: dict[str, Any]
    ) -> Draft:
        picks = self._space.picks_of(left.params)
        return Draft(
            picks,
            {**going_on(left), **self._baseline(picks), **attributes},
            after=(left.number, *lineage(trials)(left)),
            told=len(curve_of(left)),
        )

    def _baseline(self, picks: Picks) -> dict[str, Any]:
        return {"baseline": self._baselines[picks]} if picks in self._baselines else {}
