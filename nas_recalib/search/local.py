"""The search itself, in this process: propose, train, keep, until the study has what was asked for."""

import time
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Feasible, format_exactly
from nas_recalib.errors import StopSearch
from nas_recalib.files import write_atomically
from nas_recalib.operators import BlockChoice
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.samplers import STRATEGIES, Picks, UntriedSampler
from nas_recalib.space import SearchSpace
from nas_recalib.study.place import FINISHED, finished

BASELINES = ("vanilla", "scconv", "psconv", "msar", "ab", "ab-plus")
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    "halving": lambda: SuccessiveHalvingPruner(),
    "none": NopPruner,
}
REPLAYED = (
    "architecture",
    "macs",
    "params",
    "predicted_latency_ms",
    "memory",
    "fidelity",
    "seed",
    "failure",
    "message",
)
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
        strategy: Name of the sampler.
        pruner: Name of the pruner.
        facts: Attributes that every trial carries (fidelity, device, versions).
        logs: Folder for the tracebacks of failed trials.
        worker: Names this machine and folder among those that write to the study.
        owned: Whether no other writes to it, so that a running trial must be a dead one.
        known: Architectures that have been trained, or have failed for a reason of their own.
        claimed: Those that are being trained by another process.
        seen: Numbers of the trials that are counted in `known` where they belong.
    """

    study: optuna.Study
    space: SearchSpace
    feasible: Feasible
    proxy: Proxy
    strategy: str
    pruner: str
    facts: dict[str, Any]
    logs: Path
    worker: str
    owned: bool
    known: dict[Picks, FrozenTrial] = field(default_factory=dict)
    claimed: dict[Picks, FrozenTrial] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def run(self, trials: int, observer: Observer) -> bool:
        """Goes on until the study has `trials` trained trials.

        Returns:
            Whether it got there; False where every architecture within the budget has been tried.

        Raises:
            StopSearch: If too many trials fail in a row.
        """
        self._bury_the_dead()
        self._look_around()
        sampler = UntriedSampler(
            STRATEGIES[self.strategy],
            self.space,
            self.feasible,
            ChainMap(self.known, self.claimed),
            self.proxy.seed,
        )
        self.study.sampler = sampler
        self.study.pruner = PRUNERS[self.pruner]()
        failures: list[Failure] = []
        while len(finished(self.study)) < trials:
            if not self._next_is_waiting() and sampler.exhausted():
                if not finished(self.study):
                    raise StopSearch("every architecture within the budget failed")
                return False
            try:
                trial = self.study.ask(sampler.distributions)
            except ValueError as error:  # someone enqueued a choice that the space does not have
                raise StopSearch(f"a waiting trial cannot be run and was dropped: {error}") from error
            failure = self._trial(trial, observer)
            failures = [*failures, failure] if failure else []
            _stop_if_hopeless(failures)
            self._look_around()
        return True

    def _look_around(self) -> None:
        """Learns what has been tried, and what other processes on the same storage are at."""
        self.claimed.clear()
        for trial in self.study.get_trials(deepcopy=False):
            if trial.number not in self.seen and trial.state.is_finished():
                self.seen.add(trial.number)
                self._remember(trial)
            elif trial.state == TrialState.RUNNING and trial.params.keys() == self.space.options().keys():
                self.claimed[self._picks(trial)] = trial

    def _trial(self, trial: optuna.Trial, observer: Observer) -> Failure | None:
        architecture = self.space.decode(trial.params)
        picks = self.space.picks(architecture)
        cost = self.feasible.table.cost(picks)
        known = self.known.get(picks)
        if known is not None:
            self._replay(trial, known)
            return None
        if not self.feasible.allows(picks):  # someone enqueued it by hand
            costs = ", ".join(format_exactly(name, value) for name, value in cost.items())
            message = f"{costs} are over {self.feasible.budget}"
            return self._fail(trial, Failure("over-budget", message), observer)
        attributes = {
            "architecture": str(architecture),
            **_attributes(cost),
            **self._proposal(trial.number),
            "seed": self.proxy.seed,
            "worker": self.worker,
            **self.facts,
        }
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        observer.started(trial.number, architecture)
        start = time.monotonic()

        def report(epoch: Epoch) -> bool:
            trial.report(epoch.accuracy, epoch.number)
            observer.epoch(trial.number, epoch)
            return epoch.number < self.proxy.epochs and trial.should_prune()

        try:
            curve = self.proxy.train(architecture, report)
        except KeyboardInterrupt:
            self._fail(trial, Failure("interrupted", "interrupted from the keyboard"), observer)
            raise
        trial.set_user_attr("seconds", round(time.monotonic() - start, 2))
        if isinstance(curve, Failure):
            return self._fail(trial, curve, observer)
        if len(curve) < self.proxy.epochs:
            ended = self.study.tell(trial, state=TrialState.PRUNED)
        else:
            ended = self.study.tell(trial, curve[-1].accuracy)
        self._remember(ended)
        observer.ended(ended)
        return None

    def _proposal(self, number: int) -> dict[str, str]:
        """What the strategy had proposed, where that is not what is trained."""
        sampler = self.study.sampler
        proposed = sampler.proposed.pop(number, None) if isinstance(sampler, UntriedSampler) else None
        return {} if proposed is None else {"proposed": str(self.space.at(proposed))}

    def _fail(self, trial: optuna.Trial, failure: Failure, observer: Observer) -> Failure:
        trial.set_user_attr("failure", failure.kind)
        trial.set_user_attr("message", failure.message)
        if failure.details:
            self.logs.mkdir(parents=True, exist_ok=True)
            write_atomically(self.logs / f"{trial.number:05d}.txt", failure.details)
        ended = self.study.tell(trial, state=TrialState.FAIL)
        self.known[self._picks(ended)] = ended  # not again in this run, even if a bug did it
        observer.ended(ended)
        return failure

    def _replay(self, trial: optuna.Trial, known: FrozenTrial) -> None:
        """Answers a proposal from what is known; nothing is trained."""
        trial.set_user_attr("replayed_from", known.number)
        for key in REPLAYED:
            if key in known.user_attrs:
                trial.set_user_attr(key, known.user_attrs[key])
        for step, value in known.intermediate_values.items():
            trial.report(value, step)
        self.study.tell(trial, known.value if known.state == TrialState.COMPLETE else None, known.state)

    def _remember(self, trial: FrozenTrial) -> None:
        """Keeps what a trial says of its architecture; an interruption or a bug says nothing."""
        telling = trial.state in FINISHED or trial.user_attrs.get("failure") in ("out-of-memory", "diverged")
        if telling and "architecture" in trial.user_attrs and "replayed_from" not in trial.user_attrs:
            self.known[self._picks(trial)] = trial

    def _picks(self, trial: FrozenTrial) -> Picks:
        return self.space.picks(self.space.decode(trial.params))

    def _bury_the_dead(self) -> None:
        """Fails what a killed search left running; the lock on the study's folder says it is not alive."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self.owned or trial.user_attrs.get("worker") == self.worker:
                live = optuna.trial.Trial(self.study, trial._trial_id)
                live.set_user_attr("failure", "interrupted")
                live.set_user_attr("message", "its process ended before it did")
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _next_is_waiting(self) -> bool:
        """Puts the next of the papers' single-operator networks first, unless something waits already."""
        if self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return True
        for name in BASELINES:
            architecture = uniform(self.space, name)
            if architecture is None:
                continue
            picks = self.space.picks(architecture)
            if picks not in self.known and self.feasible.allows(picks):
                self.study.enqueue_trial(self.space.encode(architecture), user_attrs={"baseline": name})
                return True
        return False


def _attributes(cost: Mapping[str, int]) -> dict[str, Any]:
    """A cost as trials carry it; a latency is in milliseconds, and only predicted."""
    told = dict(cost)
    latency = told.pop("latency", None)
    return told if latency is None else {**told, "predicted_latency_ms": latency / 1e6}


def uniform(space: SearchSpace, choice: str) -> Architecture | None:
    """The network that takes one choice at every block, or None where the space does not allow it."""
    wanted = BlockChoice.parse(choice)
    if all(wanted in position.choices for position in space.positions):
        return space.at(tuple(position.choices.index(wanted) for position in space.positions))
    return None


def _stop_if_hopeless(failures: list[Failure]) -> None:
    errors = failures[-_ERRORS_IN_A_ROW:]
    if len(errors) == _ERRORS_IN_A_ROW and all(failure.kind == "error" for failure in errors):
        raise StopSearch(
            f"{_ERRORS_IN_A_ROW} trials in a row ended in an error; the first:\n{errors[0].details}"
        )
    if len(failures) >= _FAILURES_IN_A_ROW:
        raise StopSearch(f"{len(failures)} trials in a row failed, the last: {failures[-1].message}")
