"""The search loop's decisions: which trial runs next, and what is written when it ends."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.costs import Feasible
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.heartbeat import Heartbeat, SingleProcess
from nas_recalib.search.job import Job, Step
from nas_recalib.search.progress import Observer
from nas_recalib.search.pruning import PRUNERS
from nas_recalib.search.samplers import STRATEGIES, StrategyInfo
from nas_recalib.search.scheduler import BASELINES, NextAction, Scheduler
from nas_recalib.search.trial_writer import (
    Running,
    TrialSpec,
    TrialWriter,
    lost_conflict,
    may_train,
    reenqueued,
)
from nas_recalib.space import SearchSpace
from nas_recalib.study.config import RETRIES
from nas_recalib.study.trials import (
    ACCURACY,
    ATTEMPT,
    CACHED_FROM,
    MICRO_BATCHES,
    WITHDRAWN,
    failure_of,
    lineage,
    will_resume,
)

_ERRORS_IN_A_ROW = 3
_FAILURES_IN_A_ROW = 10


@dataclass
class FailureLimit:
    """Failures since a training ended well."""

    _failures: list[Failure] = field(default_factory=list)

    def add(self, failure: Failure) -> None:
        """Counts one.

        Raises:
            StopSearch: After too many in a row; of errors of the program the first is shown in full.
        """
        self._failures.append(failure)
        errors = self._failures[-_ERRORS_IN_A_ROW:]
        if len(errors) == _ERRORS_IN_A_ROW and all(one.kind == "error" for one in errors):
            told = f"{len(errors)} trials in a row ended in an error; the first"
            raise StopSearch(f"{told}:\n{errors[0].details}")
        if len(self._failures) >= _FAILURES_IN_A_ROW:
            raise StopSearch(f"{len(self._failures)} trials in a row failed, the last: {failure.message}")

    def clear(self) -> None:
        """Begins anew."""
        self._failures.clear()


@dataclass
class Search:
    """A search on an opened study, by one of the workers that it may have.

    `next` hands out trainings, `report` takes their epochs, and `end`, `fail` or `lose` what they come to;
    where and how many at once they are trained is not its concern.

    Attributes:
        study: Where everything is kept.
        space: What may be chosen.
        feasible: What is within the budget.
        proxy: How an architecture is trained.
        strategy: Name of the strategy.
        pruner: Name of the pruner.
        common_attrs: Attributes that every trial carries (fidelity, device, versions).
        checkpoints: Where trainings are kept that are going on, or were left at a rung.
        worker: Names this process among those that write to the study.
        shared: Whether there may be others.
        heartbeat: Finds trials whose workers have died.
        retries: How often a training is gone on with after its worker died.
        objectives: Names of the study's objectives: accuracy, then costs.
        strategies: The strategies that there are.
        first: Names of the single-operator networks that come before anything is proposed.
        scheduler: What comes next.
        done: Whether nothing is left to hand out, now or later.
        reached: Whether the study then has what it was asked for.
    """

    study: optuna.Study
    space: SearchSpace
    feasible: Feasible
    proxy: Proxy
    strategy: str
    pruner: str
    common_attrs: dict[str, Any]
    checkpoints: Checkpoints
    worker: str
    shared: bool = False
    heartbeat: Heartbeat = field(default_factory=SingleProcess)
    retries: int = RETRIES
    objectives: Sequence[str] = (ACCURACY,)
    strategies: Mapping[str, StrategyInfo] = field(default_factory=lambda: STRATEGIES)
    first: Sequence[str] = BASELINES
    done: bool = False
    reached: bool = False

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            study=self.study,
            space=self.space,
            feasible=self.feasible,
            info=self.strategies[self.strategy],
            pruner=PRUNERS[self.pruner](self.proxy.epochs),
            seed=self.proxy.seed,
            salt=(crc32(self.worker.encode()),) if self.shared else (),
            first=self.first,
        )
        common_attrs = {
            "strategy": self.strategy,
            "seed": self.proxy.seed,
            "worker": self.worker,
            **self.common_attrs,
        }
        self._writer = TrialWriter(self.study, self.space, self.feasible, common_attrs, self.objectives)
        self._running: dict[int, Running] = {}
        self._failure_limit = FailureLimit()

    @property
    def epochs(self) -> int:
        """Of a whole training."""
        return self.proxy.epochs

    def baselines_left(self) -> int:
        """Return how many single-operator networks are trained before anything is proposed."""
        return self.scheduler.baselines_left(self._trials())

    def begin(self, target: int, observer: Observer) -> None:
        """Says how many trained architectures the study is to end with, and who is told of what happens."""
        self._goal, self._observer = target, observer
        self.done = self.reached = False
        self._seen = {trial.number for trial in self._trials() if trial.state.is_finished()}

    def next(self) -> Job | None:
        """What is to be trained; None if there is nothing just now, or nothing more (then it is `done`).

        Raises:
            StopSearch: If all that is within the budget failed.
        """
        while True:
            trials = self._look()
            spec = self.scheduler.next(trials, self._goal)
            if isinstance(spec, TrialSpec):
                if job := self._take(self._writer.begin(spec), spec):
                    return job
            elif spec == NextAction.ENQUEUED:
                with suppress(UpdateFinishedTrialError):  # buried by who thought this worker dead
                    if job := self._take_enqueued():
                        return job
            else:
                self.done = spec != NextAction.WAIT and not self._running
                self.reached = spec == NextAction.REACHED
                return None

    def report(self, number: int, step: Step) -> bool:
        """Takes an epoch of a training.

        Returns:
            Whether the training is to be ended there.
        """
        running = self._running[number]
        epoch = step.epoch
        try:
            self._writer.report(running.trial, epoch, [*running.curve, epoch.accuracy])
        except UpdateFinishedTrialError:
            running.taken = True
        if running.taken:
            return True
        running.curve.append(epoch.accuracy)
        running.seconds = step.seconds
        if not step.restored:
            self._observer.epoch(number, epoch)
        if "baseline" in running.trial.user_attrs or epoch.number == self.proxy.epochs:
            return False
        return epoch.number > running.known and self.scheduler.pruner.stops(running.trial)

    def end(self, number: int, common_attrs: Mapping[str, Any] | None = None) -> None:
        """Takes it that a training has ended after the epoch reported last.

        Args:
            number: Of its trial.
            common_attrs: Attributes of where it was trained, such as the device.
        """
        running = self._let_go(number)
        whole = len(running.curve) == self.proxy.epochs
        try:
            for key, value in {"seconds": round(running.seconds, 2), **(common_attrs or {})}.items():
                if running.trial.user_attrs.get(key) != value:
                    running.trial.set_user_attr(key, value)
            state = TrialState.COMPLETE if whole else TrialState.PRUNED
            ended = self._writer.end(running.trial, state, running.curve[-1])
        except UpdateFinishedTrialError:  # another goes on with it
            return
        stays = not whole and self.scheduler.pruner.resumes
        self._drop_checkpoints(*running.job.after, *(() if stays else (number,)))
        self._failure_limit.clear()
        self._tell(ended)

    def fail(self, number: int, failure: Failure) -> None:
        """Takes it that a training cannot go on.

        Raises:
            StopSearch: If its checkpoint cannot be kept, which is no fault of its own, or after too many
                failures in a row.
        """
        running = self._let_go(number)
        if failure.kind == "checkpoint":
            self._fail(running.trial._trial_id, Failure("interrupted", failure.message))
            raise StopSearch(failure.message)
        self._count_failure(running.trial._trial_id, failure)

    def lose(self, number: int, message: str) -> None:
        """Takes it that what a training ran on has died; it is gone on with, unless that was so too often."""
        identity = self._let_go(number).trial._trial_id
        self._mark_lost(self.study._storage.get_trial(identity), message)

    def requeue_running(self) -> None:
        """Has others, or this one later, go on with everything that is being trained."""
        for number in list(self._running):
            self._fail(self._let_go(number).trial._trial_id, Failure("interrupted", "interrupted"))

    def _take(self, trial: optuna.Trial, spec: TrialSpec, waited: bool = False) -> Job | None:
        """Makes a trial that has been written this worker's, unless another was first."""
        self.heartbeat.hold(trial._trial_id)
        if (self.shared or waited) and not may_train(trial.number, self._trials(), self._goal):
            self.heartbeat.let_go(trial._trial_id)
            self._fail(trial._trial_id, Failure(WITHDRAWN, "another worker was first"))
            return None
        architecture = self.space.from_indices(spec.indices)
        job = Job(trial.number, architecture, spec.after, spec.attributes.get(MICRO_BATCHES, 1))
        self._running[trial.number] = Running(trial, job, spec.told)
        self._observer.started(trial.number, architecture)
        return job

    def _take_enqueued(self) -> Job | None:
        """A trial that someone enqueued by hand."""
        identity = self.study._pop_waiting_trial_id()
        if identity is None:  # another was faster
            return None
        try:
            trial = self._writer.read(identity)
        except ValueError as error:  # a choice that the space does not have
            self._fail(identity, Failure("error", str(error)))
            raise StopSearch(f"a waiting trial cannot be run and was dropped: {error}") from error
        spec = self.scheduler.enqueued_spec(self.space.params_to_indices(trial.params))
        if known := self.scheduler.tried.evaluated.get(spec.indices):
            self._writer.replay(trial, known)
            return None
        if refusal := self._writer.refusal(spec):  # before it looks like one that is to be gone on with
            self._count_failure(trial._trial_id, refusal)
            return None
        self._writer.describe(trial, spec)
        return self._take(trial, spec, waited=True)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _look(self) -> list[FrozenTrial]:
        """Reads the study, and buries the dead."""
        trials = self._trials()
        strange = [one for one in trials if one.number not in self._running]
        running = [one for one in strange if one.state == TrialState.RUNNING]
        orphans = [one for one in running if one.user_attrs.get("worker") == self.worker]
        dead = self.heartbeat.dead([one for one in running if one.user_attrs.get("worker") != self.worker])
        for trial in orphans:  # written by a call that broke off before it said so
            self._fail(trial._trial_id, Failure(WITHDRAWN, "written twice"))
        for trial in dead:
            self._mark_lost(trial, "its worker died")
        if orphans or dead:
            trials = self._trials()
        for trial in trials:
            if trial.state.is_finished():
                self._tell(trial)
        return trials

    def _tell(self, trial: FrozenTrial) -> None:
        """Tells the observer, once of each, of what has ended, whoever trained it."""
        if trial.number not in self._seen:
            self._seen.add(trial.number)
            if failure_of(trial) != WITHDRAWN and CACHED_FROM not in trial.user_attrs:
                self._observer.ended(trial)

    def _mark_lost(self, trial: FrozenTrial, message: str) -> None:
        """Marks a trial whose worker died."""
        attempts = trial.user_attrs.get(ATTEMPT, 1)
        if wish := reenqueued(trial):
            self.study.add_trial(wish)  # first, as this may break off in between; twice does no harm
            self._fail(trial._trial_id, Failure("lost", message))
        elif lost_conflict(trial, self._trials(), self._goal):
            self._fail(trial._trial_id, Failure(WITHDRAWN, f"{message}, and another was first"))
        elif attempts <= self.retries:
            self._fail(trial._trial_id, Failure("lost", message))
        else:
            self._count_failure(trial._trial_id, Failure("abandoned", f"{message}, {attempts} times"))

    def _fail(self, identity: int, failure: Failure) -> FrozenTrial | None:
        """Writes a failure down, unless another worker was faster to bury the trial."""
        try:
            ended = self._writer.fail(identity, failure)
        except UpdateFinishedTrialError:
            return None
        self._tell(ended)
        return ended

    def _count_failure(self, identity: int, failure: Failure) -> None:
        """A failure that counts.

        Raises:
            StopSearch: After too many in a row.
        """
        ended = self._fail(identity, failure)
        if ended is None or will_resume(ended):
            return
        self.scheduler.tried.add(ended)  # not again in this run, even if a bug did it
        self._drop_checkpoints(ended.number, *lineage(self._trials())(ended))
        self._failure_limit.add(failure)

    def _let_go(self, number: int) -> Running:
        running = self._running.pop(number)
        self.heartbeat.let_go(running.trial._trial_id)
        return running

    def _drop_checkpoints(self, *numbers: int) -> None:
        for number in numbers:
            with suppress(InputError):  # what stays is of no use, and of no harm
                self.checkpoints.drop(number)
