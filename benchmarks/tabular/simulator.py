"""Simulator of searches, in which everything but the training and the clock is real."""

import heapq
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from itertools import count
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState
from tabular.mutation import mutation
from tabular.table import Indices, Run

from nas_recalib.architecture import Architecture
from nas_recalib.proxy.evaluation import State
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.heartbeat import SingleProcess
from nas_recalib.search.local import run_here
from nas_recalib.search.samplers import STRATEGIES, StrategyInfo
from nas_recalib.search.search import Search
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import RESUMED_FROM

ALL_STRATEGIES = {**STRATEGIES, "mutation": StrategyInfo(mutation)}


class Benchmark(Protocol):
    """Benchmark that a simulated search runs on.

    Attributes:
        space: Search space.
        epochs: Number of epochs of a complete training.
        seconds: Mean seconds of a complete training.
        best: Greatest quality of an architecture.
        top: Least quality of the best hundredth of architectures.
    """

    space: SearchSpace

    @property
    def epochs(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def best(self) -> float: ...
    @property
    def top(self) -> float: ...

    def observe(self, indices: Indices, seed: int) -> Run:
        """Return the training that a search with a seed sees."""

    def quality(self, indices: Indices) -> float:
        """Return the true quality of an architecture."""


@dataclass(frozen=True)
class Point:
    """Progress of a search when a trial has ended.

    Attributes:
        seconds: Simulated seconds since the start of the search.
        trials: Number of architectures trained so far.
        observed: Accuracy of the best completed trial, as the search saw it; None before the first.
        quality: True quality of that architecture.
    """

    seconds: float
    trials: int
    observed: float | None
    quality: float | None


class TimeIsUp(Exception):
    """The simulated time of a search is over."""


class Clock:
    """Simulated clock of several workers, of which only the one that is due first runs."""

    def __init__(self, limit: float = math.inf) -> None:
        self.now = 0.0
        self._limit = limit
        self._numbers = count()
        self._waiting: list[tuple[float, int, threading.Semaphore]] = []

    def run(self, workers: Sequence[Callable[[], object]]) -> None:
        """Run workers, each in its own thread, until all have ended or the time is up.

        An error of one worker ends the others, and is raised.
        """
        with ThreadPoolExecutor(len(workers)) as threads:
            turns = [self._line_up(0.0) for _ in workers]
            ends = [threads.submit(self._work, *one) for one in zip(workers, turns, strict=True)]
            self._hand_on()
        for end in ends:
            end.result()

    def wait(self, seconds: float) -> None:
        """Let the calling worker wait for simulated seconds, while others run.

        Raises:
            TimeIsUp: If the time is up before.
        """
        turn = self._line_up(self.now + seconds)
        self._hand_on()
        turn.acquire()
        if self.now > self._limit:
            raise TimeIsUp

    def _work(self, worker: Callable[[], object], turn: threading.Semaphore) -> None:
        turn.acquire()
        try:
            worker()
        except TimeIsUp:
            pass
        except BaseException:
            self._limit = -math.inf
            raise
        finally:
            self._hand_on()

    def _line_up(self, due: float) -> threading.Semaphore:
        turn = threading.Semaphore(0)
        heapq.heappush(self._waiting, (due, next(self._numbers), turn))
        return turn

    def _hand_on(self) -> None:
        if self._waiting:
            self.now, _, turn = heapq.heappop(self._waiting)
            turn.release()


@dataclass
class RecordedTraining:
    """State of a recorded training after an epoch."""

    curve: list[Epoch]

    def state_dict(self) -> State:
        return {"curve": [astuple(epoch) for epoch in self.curve]}


@dataclass
class Trainings:
    """Proxy that returns recorded trainings.

    Attributes:
        benchmark: Benchmark with the learning curves.
        clock: Clock that waits for the recorded seconds.
        seed: Seed of the search.
    """

    benchmark: Benchmark
    clock: Clock
    seed: int

    @property
    def epochs(self) -> int:
        return self.benchmark.epochs

    fingerprint = "looked up"

    def steps(
        self, architecture: Architecture, start: State | None = None, parts: int = 1
    ) -> Iterator[RecordedTraining | Failure]:
        run = self.benchmark.observe(self.benchmark.space.indices_of(architecture), self.seed)
        training = RecordedTraining([Epoch(*values) for values in start["curve"]] if start else [])
        for number, seconds in list(enumerate(run.seconds, start=1))[len(training.curve) :]:
            self.clock.wait(seconds)
            if number > len(run.accuracies):
                yield Failure("diverged", run.failure or "")
                return
            training.curve.append(Epoch(number, run.losses[number - 1], run.accuracies[number - 1]))
            yield training


class MemoryCheckpoints:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def save(self, number: int, state: State) -> None:
        self._states[number] = state

    def load(self, number: int) -> State | None:
        return self._states.get(number)

    def drop(self, number: int) -> None:
        self._states.pop(number, None)


class NoHeartbeat(SingleProcess):
    """Heartbeat of simulated workers, which do not die."""

    def stale_trials(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return []


@dataclass
class Recorder:
    """Observer that records the progress of a search whenever a trial ends."""

    benchmark: Benchmark
    clock: Clock
    points: list[Point] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def started(self, number: int, architecture: Architecture) -> None: ...

    def epoch(self, number: int, epoch: Epoch) -> None: ...

    def ended(self, trial: FrozenTrial) -> None:
        if trial.number in self._seen:  # by another worker
            return
        self._seen.add(trial.number)
        last = self.points[-1] if self.points else Point(0.0, 0, None, None)
        trials = last.trials + (RESUMED_FROM not in trial.user_attrs)
        observed, quality = last.observed, last.quality
        if trial.state == TrialState.COMPLETE and (observed is None or trial.value > observed):
            indices = self.benchmark.space.indices_of(Architecture.parse(trial.user_attrs["architecture"]))
            observed, quality = trial.value, self.benchmark.quality(indices)
        self.points.append(Point(self.clock.now, trials, observed, quality))


def simulate(
    benchmark: Benchmark,
    strategy: str,
    pruner: str,
    seed: int,
    *,
    workers: int = 1,
    trials: int | None = None,
    seconds: float = math.inf,
) -> list[Point]:
    """Run a search in simulated time, as users run it with several workers on one study.

    Baselines are not trained: one of them may be among the best, and every search would find it at once.

    Args:
        benchmark: Benchmark to search.
        strategy: Name of the strategy.
        pruner: Name of the pruner.
        seed: Seed of the search, which also decides the trainings that it sees.
        workers: Number of workers, each of which trains one architecture at a time.
        trials: Number of trained architectures to end with (default: all of the space).
        seconds: Simulated seconds to end after.

    Returns:
        Progress after every trial.
    """
    storage = optuna.storages.InMemoryStorage()
    name = optuna.create_study(storage=storage, direction="maximize").study_name
    clock = Clock(seconds)
    trainings, recorder = Trainings(benchmark, clock, seed), Recorder(benchmark, clock)
    feasible, checkpoints = benchmark.space.feasible(), MemoryCheckpoints()
    target = trials or feasible.count()

    def search(worker: int) -> Search:
        return Search(
            study=optuna.load_study(study_name=name, storage=storage),
            space=benchmark.space,
            feasible=feasible,
            proxy=trainings,  # type: ignore[arg-type]
            strategy=strategy,
            pruner=pruner,
            seed=seed,
            common_attrs={},
            checkpoints=checkpoints,  # type: ignore[arg-type]
            strategies=ALL_STRATEGIES,
            first=(),
            worker=f"worker {worker}",
            shared=workers > 1,
            heartbeat=NoHeartbeat(),
        )

    searches = [search(worker) for worker in range(workers)]
    clock.run([lambda one=one: run_here(one, target, recorder, clock.wait) for one in searches])
    return recorder.points
