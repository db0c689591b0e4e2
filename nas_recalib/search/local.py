"""The search itself, in this process: propose, train, keep, until the study has what was asked for."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Feasible, format_exactly
from nas_recalib.errors import StopSearch
from nas_recalib.files import write_atomically
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Epoch, State
from nas_recalib.search.baselines import BASELINES, baselines
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.pruning import PRUNERS, going_on
from nas_recalib.search.samplers import STRATEGIES, Offer, Picks, Proposal, UntriedSampler
from nas_recalib.search.tried import Tried
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import (
    ACCURACY,
    ATTRIBUTES,
    CURVE,
    REPLAYED,
    cost_attributes,
    curve_of,
    finished,
    trained_here,
)

_ANSWERED = (  # attributes that a replayed trial takes over
    "architecture",
    *ATTRIBUTES.values(),
    CURVE,
    "fidelity",
    "seed",
    "failure",
    "message",
)
_PRUNER = 1  # tells its draws from those of the sampler
_ERRORS_IN_A_ROW = 3
_FAILURES_IN_A_ROW = 10


class Observer(Protocol):
    """Is told what happens."""

    def started(self, number: int, architecture: Architecture) -> None: ...

    def epoch(self, number: int, epoch: Epoch) -> None: ...

    def ended(self, trial: FrozenTrial) -> None: ...


@dataclass
class Search:
    """A search on an opened and locked study.

    Attributes:
        study: Where everything is kept.
        space: What may be chosen.
        feasible: What is within the budget.
        proxy: How an architecture is trained.
        strategy: Name of the strategy.
        pruner: Name of the pruner.
        facts: Attributes that every trial carries (fidelity, device, versions).
        folder: For the tracebacks of failed trials.
        checkpoints: Where trainings wait that were left at a rung.
        worker: Names this machine and folder among those that write to the study.
        owned: Whether no other writes to it, so that a running trial must be a dead one.
        objectives: Names of the study's objectives: accuracy, then costs.
        offers: The strategies that there are.
        first: Names of the single-operator networks that come before anything is proposed.
        tried: What need not be trained again.
    """

    study: optuna.Study
    space: SearchSpace
    feasible: Feasible
    proxy: Proxy
    strategy: str
    pruner: str
    facts: dict[str, Any]
    folder: Path
    checkpoints: Checkpoints
    worker: str
    owned: bool
    objectives: Sequence[str] = (ACCURACY,)
    offers: Mapping[str, Offer] = field(default_factory=lambda: STRATEGIES)
    first: Sequence[str] = BASELINES

    def __post_init__(self) -> None:
        self.tried = Tried(self.study, self.space)
        self._pruner = PRUNERS[self.pruner](self.proxy.epochs)
        self._sampler = UntriedSampler(
            self.offers[self.strategy].make(), self.space, self.feasible, self.tried.all, self.proxy.seed
        )
        first = baselines(self.first, self.space, self.feasible)
        self._baselines = {picks: name for name, picks in first.items()}
        self.study.sampler = self._sampler

    def run(self, trials: int, observer: Observer) -> bool:
        """Goes on until the study has trained `trials` architectures, and nothing left at a rung is to go on.

        Returns:
            Whether it got there; False where every architecture within the budget has been tried.

        Raises:
            StopSearch: If too many trials fail in a row.
        """
        self._bury_the_dead()
        failures: list[Failure] = []
        while True:
            self.tried.look()
            enough = len(trained_here(self.study)) >= trials
            exhausted = not enough and not self._waiting() and self._sampler.exhausted()
            left = self._pruner.promotes(self.study, last=enough or exhausted)
            if left is not None:
                failure = self._go_on(left, observer)
            elif enough:
                return True
            elif exhausted:
                if not finished(self.study):
                    raise StopSearch("every architecture within the budget failed")
                return False
            else:
                failure = self._try_next(observer)
            failures = [*failures, failure] if failure else []
            _stop_if_hopeless(failures)

    def _try_next(self, observer: Observer) -> Failure | None:
        """What waits in the study, then the papers' single-operator networks, then what is proposed."""
        if self._waiting():
            return self._try_waiting(observer)
        number = len(self.study.get_trials(deepcopy=False))
        for picks in self._baselines:
            if picks not in self.tried.known:
                return self._train(self._begin(Proposal(picks), {}), picks, observer)
        proposal = self._sampler.propose(self.study, number)
        attributes = self._pruner.attributes(np.random.default_rng((self.proxy.seed, number, _PRUNER)))
        return self._train(self._begin(proposal, attributes), proposal.picks, observer)

    def _waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _try_waiting(self, observer: Observer) -> Failure | None:
        """A trial that someone enqueued by hand."""
        try:
            trial = self.study.ask(self._sampler.distributions)
        except ValueError as error:  # a choice that the space does not have
            raise StopSearch(f"a waiting trial cannot be run and was dropped: {error}") from error
        picks = self.space.picks_of(trial.params)
        if known := self.tried.known.get(picks):
            self._replay(trial, known)
            return None
        for key, value in self._attributes(Proposal(picks)).items():
            trial.set_user_attr(key, value)
        if not self.feasible.allows(picks):
            cost = self.feasible.table.cost(picks)
            costs = ", ".join(format_exactly(name, value) for name, value in cost.items())
            message = f"{costs} are over {self.feasible.budget}"
            return self._fail(trial, Failure("over-budget", message), observer)
        return self._train(trial, picks, observer)

    def _begin(
        self, proposal: Proposal, attributes: Mapping[str, Any], curve: Sequence[float] = ()
    ) -> optuna.Trial:
        """A trial written in one go, which takes a database a fraction of the time of asking for it."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=self.space.parameters(proposal.picks),
            distributions=self._sampler.distributions,
            user_attrs={**self._attributes(proposal), **attributes},
            system_attrs=proposal.kept,
            intermediate_values=dict(enumerate(curve, start=1)),
        )
        identity = self.study._storage.create_new_trial(self.study._study_id, template)
        return optuna.Trial(self.study, identity)

    def _attributes(self, proposal: Proposal) -> dict[str, Any]:
        proposed = {} if proposal.proposed is None else {"proposed": str(self.space.at(proposal.proposed))}
        baseline = self._baselines.get(proposal.picks)
        return {
            "architecture": str(self.space.at(proposal.picks)),
            **cost_attributes(self.feasible.table.cost(proposal.picks)),
            **({} if baseline is None else {"baseline": baseline}),
            **proposed,
            "strategy": self.strategy,
            "seed": self.proxy.seed,
            "worker": self.worker,
            **self.facts,
        }

    def _go_on(self, left: FrozenTrial, observer: Observer) -> Failure | None:
        """Trains what was left at a rung from there on, as a trial of its own."""
        start = self._start(left)
        picks = self.tried.picks(left)
        curve = curve_of(left) if start else ()
        trial = self._begin(Proposal(picks), going_on(left), curve)
        failure = self._train(trial, picks, observer, start, left.user_attrs["seconds"] if start else 0.0)
        self.checkpoints.drop(left.number)
        return failure

    def _start(self, left: FrozenTrial) -> State | None:
        """Where a training was left; a file that another study left under its number is none of its."""
        state = self.checkpoints.load(left.number)
        if state and [Epoch(*told).accuracy for told in state["curve"]] == curve_of(left):
            return state
        return None

    def _train(
        self,
        trial: optuna.Trial,
        picks: Picks,
        observer: Observer,
        start: State | None = None,
        before: float = 0.0,
    ) -> Failure | None:
        """One training, or the rest of one that took some seconds before."""
        architecture = self.space.at(picks)
        observer.started(trial.number, architecture)
        spared = "baseline" in trial.user_attrs
        states: list[State] = []
        begun = time.monotonic()

        def report(epoch: Epoch) -> bool:
            if self._single:
                trial.report(epoch.accuracy, epoch.number)
            observer.epoch(trial.number, epoch)
            return epoch.number < self.proxy.epochs and not spared and self._pruner.stops(trial)

        try:
            curve = self.proxy.train(architecture, report, start=start, keep=states.append)
        except KeyboardInterrupt:
            self._fail(trial, Failure("interrupted", "interrupted from the keyboard"), observer)
            raise
        trial.set_user_attr("seconds", round(before + time.monotonic() - begun, 2))
        if isinstance(curve, Failure):
            return self._fail(trial, curve, observer)
        ended = self._end(trial, curve)
        if ended.state == TrialState.PRUNED and self._pruner.resumes:
            self.checkpoints.save(trial.number, states[-1])
        observer.ended(ended)
        return None

    def _end(self, trial: optuna.Trial, curve: Sequence[Epoch]) -> FrozenTrial:
        if len(curve) < self.proxy.epochs:
            return self.study.tell(trial, state=TrialState.PRUNED)
        if not self._single:
            trial.set_user_attr(CURVE, [epoch.accuracy for epoch in curve])
        costs = [trial.user_attrs[ATTRIBUTES[name]] for name in self.objectives[1:]]
        return self.study.tell(trial, [curve[-1].accuracy, *costs])

    @cached_property
    def _single(self) -> bool:
        return len(self.objectives) == 1

    def _fail(self, trial: optuna.Trial, failure: Failure, observer: Observer) -> Failure:
        trial.set_user_attr("failure", failure.kind)
        trial.set_user_attr("message", failure.message)
        if failure.details:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{trial.number:05d}.txt", failure.details)
        ended = self.study.tell(trial, state=TrialState.FAIL)
        self.tried.add(ended)  # not again in this run, even if a bug did it
        observer.ended(ended)
        return failure

    def _replay(self, trial: optuna.Trial, known: FrozenTrial) -> None:
        """Answers a proposal from what is known; nothing is trained."""
        trial.set_user_attr(REPLAYED, known.number)
        for key in _ANSWERED:
            if key in known.user_attrs:
                trial.set_user_attr(key, known.user_attrs[key])
        for step, value in known.intermediate_values.items():
            trial.report(value, step)
        self.study.tell(trial, known.values if known.state == TrialState.COMPLETE else None, known.state)

    def _bury_the_dead(self) -> None:
        """Fails what a killed search left running; the lock on the study's folder says it is not alive."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self.owned or trial.user_attrs.get("worker") == self.worker:
                live = optuna.trial.Trial(self.study, trial._trial_id)
                live.set_user_attr("failure", "interrupted")
                live.set_user_attr("message", "its process ended before it did")
                self.study.tell(trial.number, state=TrialState.FAIL)


def _stop_if_hopeless(failures: list[Failure]) -> None:
    errors = failures[-_ERRORS_IN_A_ROW:]
    if len(errors) == _ERRORS_IN_A_ROW and all(failure.kind == "error" for failure in errors):
        raise StopSearch(
            f"{_ERRORS_IN_A_ROW} trials in a row ended in an error; the first:\n{errors[0].details}"
        )
    if len(failures) >= _FAILURES_IN_A_ROW:
        raise StopSearch(f"{len(failures)} trials in a row failed, the last: {failures[-1].message}")
