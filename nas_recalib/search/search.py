"""Search on a study: hands out trainings, takes their results, and recovers trials whose workers died."""

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
from nas_recalib.search.trial_writer import TrialSpec, TrialWriter, lost_conflict, may_train, reenqueued
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
class RunningTrial:
    """A trial that this process is training.

    Attributes:
        trial: Trial in the study.
        job: Job that was handed out.
        reported_epochs: Number of epochs that the trials it was resumed from have reported.
        curve: Accuracies that have been reported.
        seconds: Seconds of training so far.
    """

    trial: optuna.Trial
    job: Job
    reported_epochs: int
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Search:
    """A search on a study by one worker, of which there may be many.

    An engine calls `next_job` for a training and `report` after each of its epochs, and then one of `finish`,
    `fail` and `mark_lost`. Where trainings run, and how many at once, is up to the engine.

    Attributes:
        study: Study that holds all results.
        space: Search space.
        feasible: Architectures within the budget.
        proxy: Proxy that trains an architecture.
        strategy: Name of the search strategy.
        pruner: Name of the pruner.
        seed: Seed of all draws of the strategy and the pruner.
        common_attrs: User attributes written to every trial (fidelity, device, versions).
        checkpoints: Checkpoints of running and paused trials.
        worker: Name of this process among those that write to the study.
        shared: Whether other processes may write to the study.
        heartbeat: Heartbeat of this worker's trials, which also finds the stale trials of others.
        retries: Number of times that a training is resumed after its worker died.
        objectives: Names of the study's objectives: accuracy, then costs.
        strategies: Search strategies by name.
        first: Names of the single-operator networks to train before anything is proposed.
        scheduler: Scheduler that decides which trial runs next.
        done: Whether this worker has nothing more to train, now or later.
        reached: Whether the study has reached its target; valid when `done`.
    """

    study: optuna.Study
    space: SearchSpace
    feasible: Feasible
    proxy: Proxy
    strategy: str
    pruner: str
    seed: int
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
            strategy=self.strategies[self.strategy],
            pruner=PRUNERS[self.pruner](self.proxy.epochs),
            seed=self.seed,
            salt=(crc32(self.worker.encode()),) if self.shared else (),
            baselines=self.first,
        )
        own_attrs = {"strategy": self.strategy, "seed": self.seed, "worker": self.worker}
        common_attrs = {**own_attrs, **self.common_attrs}
        self._writer = TrialWriter(self.study, self.space, self.feasible, common_attrs, self.objectives)
        self._running: dict[int, RunningTrial] = {}
        self._failures: list[Failure] = []  # since the last training that succeeded

    @property
    def epochs(self) -> int:
        """Number of epochs of a complete training."""
        return self.proxy.epochs

    def baselines_left(self) -> int:
        """Return how many single-operator networks are trained before anything is proposed."""
        return self.scheduler.baselines_left(self._trials())

    def begin(self, target: int, observer: Observer) -> None:
        """Set the number of trained architectures that the study is to end with, and the observer."""
        self._target, self._observer = target, observer
        self.done = self.reached = False
        self._observed = {trial.number for trial in self._trials() if trial.state.is_finished()}

    def next_job(self) -> Job | None:
        """Return the next training, or None if there is nothing to train now or, when `done`, ever.

        Raises:
            StopSearch: If every architecture within the budget failed, or an enqueued trial cannot be run.
        """
        while True:
            action = self.scheduler.next_action(self._refresh(), self._target)
            if isinstance(action, TrialSpec):
                if job := self._start(self._writer.create(action), action):
                    return job
            elif action == NextAction.ENQUEUED:
                with suppress(UpdateFinishedTrialError):  # another worker has marked it as lost
                    if job := self._start_enqueued():
                        return job
            else:
                self.done = action != NextAction.WAIT and not self._running
                self.reached = action == NextAction.REACHED
                return None

    def report(self, number: int, step: Step) -> bool:
        """Write the result of an epoch.

        Args:
            number: Number of the trial.
            step: Result of the epoch.

        Returns:
            Whether the training must stop: it was pruned or paused, or another worker has marked it as lost.
        """
        running = self._running[number]
        epoch = step.epoch
        try:
            self._writer.report(running.trial, epoch, [*running.curve, epoch.accuracy])
        except UpdateFinishedTrialError:
            return True
        running.curve.append(epoch.accuracy)
        running.seconds = step.seconds
        if not step.restored:
            self._observer.epoch(number, epoch)
        if "baseline" in running.trial.user_attrs or epoch.number == self.proxy.epochs:
            return False
        return epoch.number > running.reported_epochs and self.scheduler.pruner.should_stop(running.trial)

    def finish(self, number: int, attrs: Mapping[str, Any] | None = None) -> None:
        """Write that a training has ended after the epoch reported last.

        Args:
            number: Number of the trial.
            attrs: User attributes that depend on where it ran, such as the device.
        """
        running = self._release(number)
        complete = len(running.curve) == self.proxy.epochs
        try:
            for key, value in {"seconds": round(running.seconds, 2), **(attrs or {})}.items():
                if running.trial.user_attrs.get(key) != value:
                    running.trial.set_user_attr(key, value)
            state = TrialState.COMPLETE if complete else TrialState.PRUNED
            finished = self._writer.finish(running.trial, state, running.curve[-1])
        except UpdateFinishedTrialError:  # another worker has marked it as lost and resumes it
            return
        paused = not complete and self.scheduler.pruner.promotes
        self._drop_checkpoints(*running.job.resumed_from, *(() if paused else (number,)))
        self._failures.clear()
        self._notify(finished)

    def fail(self, number: int, failure: Failure) -> None:
        """Write that a training has failed.

        Args:
            number: Number of the trial.
            failure: Kind of the failure, and its message.

        Raises:
            StopSearch: If a checkpoint cannot be written, or too many trainings in a row have failed.
        """
        trial_id = self._release(number).trial._trial_id
        if failure.kind == "checkpoint":  # says nothing of the architecture, which is to be resumed
            self._fail(trial_id, Failure("interrupted", failure.message))
            raise StopSearch(failure.message)
        self._fail_and_count(trial_id, failure)

    def mark_lost(self, number: int, message: str) -> None:
        """Mark a trial whose process died as lost, so that it is resumed unless that happened too often."""
        trial_id = self._release(number).trial._trial_id
        self._mark_stale(self.study._storage.get_trial(trial_id), message)

    def requeue_running(self) -> None:
        """Interrupt all running trials, so that any worker can resume them."""
        for number in list(self._running):
            self._fail(self._release(number).trial._trial_id, Failure("interrupted", "interrupted"))

    def _start(self, trial: optuna.Trial, spec: TrialSpec, enqueued: bool = False) -> Job | None:
        """Start a trial that has been written, or withdraw it if another worker was first."""
        self.heartbeat.keep_alive(trial._trial_id)
        if (self.shared or enqueued) and not may_train(trial.number, self._trials(), self._target):
            self.heartbeat.release(trial._trial_id)
            self._fail(trial._trial_id, Failure(WITHDRAWN, "another worker was first"))
            return None
        architecture = self.space.from_indices(spec.indices)
        job = Job(trial.number, architecture, spec.resumed_from, spec.user_attrs.get(MICRO_BATCHES, 1))
        self._running[trial.number] = RunningTrial(trial, job, spec.reported_epochs)
        self._observer.started(trial.number, architecture)
        return job

    def _start_enqueued(self) -> Job | None:
        """Start a trial that a user enqueued, answer it from cache, or refuse it."""
        trial_id = self.study._pop_waiting_trial_id()
        if trial_id is None:  # another worker was faster
            return None
        try:
            trial = self._writer.read_enqueued(trial_id)
        except ValueError as error:
            self._fail(trial_id, Failure("error", str(error)))
            raise StopSearch(f"an enqueued trial cannot be run and was marked as failed: {error}") from error
        spec = self.scheduler.spec_of(self.space.params_to_indices(trial.params))
        if evaluated := self.scheduler.architectures.evaluated.get(spec.indices):
            self._writer.answer_from_cache(trial, evaluated)
            return None
        if failure := self._writer.over_budget(spec.indices):  # before its attributes make it resumable
            self._fail_and_count(trial._trial_id, failure)
            return None
        self._writer.write_user_attrs(trial, spec)
        return self._start(trial, spec, enqueued=True)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _refresh(self) -> list[FrozenTrial]:
        """Read all trials, mark stale ones as lost, and notify the observer of those that have finished."""
        trials = self._trials()
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        other = [trial for trial in running if trial.number not in self._running]
        unclaimed = [trial for trial in other if trial.user_attrs.get("worker") == self.worker]
        foreign = [trial for trial in other if trial.user_attrs.get("worker") != self.worker]
        stale = self.heartbeat.stale_trials(foreign)
        for trial in unclaimed:  # written by a storage call of this worker that did not return
            self._fail(trial._trial_id, Failure(WITHDRAWN, "written twice"))
        for trial in stale:
            self._mark_stale(trial, "its worker died")
        if unclaimed or stale:
            trials = self._trials()
        for trial in trials:
            if trial.state.is_finished():
                self._notify(trial)
        return trials

    def _notify(self, trial: FrozenTrial) -> None:
        """Notify the observer once of each finished trial, of any worker."""
        if trial.number not in self._observed:
            self._observed.add(trial.number)
            if failure_of(trial) != WITHDRAWN and CACHED_FROM not in trial.user_attrs:
                self._observer.ended(trial)

    def _mark_stale(self, trial: FrozenTrial, message: str) -> None:
        """Mark a trial whose worker died as lost, withdrawn or abandoned."""
        attempts = trial.user_attrs.get(ATTEMPT, 1)
        if waiting := reenqueued(trial):
            self.study.add_trial(waiting)  # first, since this worker may die too; a second copy does no harm
            self._fail(trial._trial_id, Failure("lost", message))
        elif lost_conflict(trial, self._trials(), self._target):
            self._fail(trial._trial_id, Failure(WITHDRAWN, f"{message}, and another was first"))
        elif attempts <= self.retries:
            self._fail(trial._trial_id, Failure("lost", message))
        else:
            self._fail_and_count(trial._trial_id, Failure("abandoned", f"{message}, {attempts} times"))

    def _fail(self, trial_id: int, failure: Failure) -> FrozenTrial | None:
        """Write a failure, unless another worker has already marked the trial as lost."""
        try:
            failed = self._writer.fail(trial_id, failure)
        except UpdateFinishedTrialError:
            return None
        self._notify(failed)
        return failed

    def _fail_and_count(self, trial_id: int, failure: Failure) -> None:
        """Write a failure that counts towards the failure limit unless the trial will be resumed.

        Raises:
            StopSearch: If too many trainings in a row have failed; for program errors the message has the
                first traceback.
        """
        failed = self._fail(trial_id, failure)
        if failed is None or will_resume(failed):
            return
        self.scheduler.architectures.mark_evaluated(failed)  # even if a bug is to blame
        self._drop_checkpoints(failed.number, *lineage(self._trials())(failed))
        self._failures.append(failure)
        errors = self._failures[-_ERRORS_IN_A_ROW:]
        if len(errors) == _ERRORS_IN_A_ROW and all(error.kind == "error" for error in errors):
            raise StopSearch(
                f"{len(errors)} trials in a row ended in an error; the first:\n{errors[0].details}"
            )
        if len(self._failures) >= _FAILURES_IN_A_ROW:
            raise StopSearch(f"{len(self._failures)} trials in a row failed, the last: {failure.message}")

    def _release(self, number: int) -> RunningTrial:
        running = self._running.pop(number)
        self.heartbeat.release(running.trial._trial_id)
        return running

    def _drop_checkpoints(self, *numbers: int) -> None:
        for number in numbers:
            with suppress(InputError):  # a checkpoint that stays does no harm
                self.checkpoints.drop(number)
