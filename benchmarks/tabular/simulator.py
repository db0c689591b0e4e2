"""Searches whose trainings are looked up: everything but the training and the clock is real."""

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
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch, State
from nas_recalib.search.heartbeat import SingleProcess
from nas_recalib.search.local import run_here
from nas_recalib.search.samplers import STRATEGIES, StrategyInfo
from nas_recalib.search.search import Search
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import RESUMED_FROM

OFFERS = {**STRATEGIES, "mutation": StrategyInfo(mutation)}


class Benchmark(Protocol):
    """What a simulated search runs on.

    Attributes:
        space: Whose architectures.
        epochs: Of a whole training.
        seconds: Of a whole training, in the mean.
        best: The greatest quality.
        top: The least quality of the best hundredth.
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
        """The training that a search of that seed would see."""

    def quality(self, indices: Indices) -> float:
        """How good an architecture truly is."""


@dataclass(frozen=True)
class Point:
    """Where a search stands when a trial has ended.

    Attributes:
        seconds: Simulated, since its start.
        trials: Architectures of which one has ended so far.
        observed: Accuracy of the best trial that ran to the end, as the search saw it; None before the first.
        quality: What that architecture is truly worth.
    """

    seconds: float
    trials: int
    observed: float | None
    quality: float | None


class TimeIsUp(Exception):
    """The simulated time that a search was given has passed."""


class Clock:
    """Simulated seconds, shared by workers of which one runs at a time: always the one that is due first."""

    def __init__(self, limit: float = math.inf) -> None:
        self.now = 0.0
        self._limit = limit
        self._numbers = count()
        self._waiting: list[tuple[float, int, threading.Semaphore]] = []

    def run(self, workers: Sequence[Callable[[], object]]) -> None:
        """Runs workers, each in a thread of its own, until all have ended or the time is up.

        What one of them raises ends the others, too, and is raised.
        """
        with ThreadPoolExecutor(len(workers)) as threads:
            turns = [self._line_up(0.0) for _ in workers]
            ends = [threads.submit(self._work, *one) for one in zip(workers, turns, strict=True)]
            self._hand_on()
        for end in ends:
            end.result()

    def wait(self, seconds: float) -> None:
        """Has the worker that calls it wait while simulated time passes, in which others run.

        Raises:
            TimeIsUp: If there is not as much.
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
class LookedUp:
    """What `Trainings` tell after every epoch."""

    curve: list[Epoch]

    def state_dict(self) -> State:
        return {"curve": [astuple(epoch) for epoch in self.curve]}


@dataclass
class Trainings:
    """Stands in the place of the proxy training.

    Attributes:
        benchmark: Where curves are looked up.
        clock: Waits for the recorded seconds.
        seed: Of the search.
    """

    benchmark: Benchmark
    clock: Clock
    seed: int

    @property
    def epochs(self) -> int:
        return self.benchmark.epochs

    course = "looked up"

    def steps(
        self, architecture: Architecture, start: State | None = None, parts: int = 1
    ) -> Iterator[LookedUp | Failure]:
        run = self.benchmark.observe(self.benchmark.space.indices_of(architecture), self.seed)
        training = LookedUp([Epoch(*told) for told in start["curve"]] if start else [])
        for number, seconds in list(enumerate(run.seconds, start=1))[len(training.curve) :]:
            self.clock.wait(seconds)
            if number > len(run.accuracies):
                yield Failure("diverged", run.failure or "")
                return
            training.curve.append(Epoch(number, run.losses[number - 1], run.accuracies[number - 1]))
            yield training


class Memory:
    """Stands in the place of checkpoints on disk."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def save(self, number: int, state: State) -> None:
        self._states[number] = state

    def load(self, number: int) -> State | None:
        return self._states.get(number)

    def drop(self, number: int) -> None:
        self._states.pop(number, None)


class Immortal(SingleProcess):
    """Simulated workers do not die."""

    def dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        return []


@dataclass
class Recorder:
    """Writes down where a search stands whenever a trial ends; is its observer."""

    benchmark: Benchmark
    clock: Clock
    points: list[Point] = field(default_factory=list)
    _told: set[int] = field(default_factory=set)

    def started(self, number: int, architecture: Architecture) -> None: ...

    def epoch(self, number: int, epoch: Epoch) -> None: ...

    def ended(self, trial: FrozenTrial) -> None:
        if trial.number in self._told:  # by another worker
            return
        self._told.add(trial.number)
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
    """A search as users run it, by as many processes on one study, in simulated time.

    But for the papers' single-operator networks, which would come first: one of them may be among the best
    already, and then every search would find it at once.

    Args:
        benchmark: What it searches.
        strategy: Name of the sampler.
        pruner: Name of the pruner.
        seed: Of the search; what it sees follows from it, too.
        workers: Processes, each of which trains one architecture at a time.
        trials: Trained ones to end with (default: all there are).
        seconds: Simulated, to end after.

    Returns:
        Where it stood after every trial.
    """
    storage = optuna.storages.InMemoryStorage()
    name = optuna.create_study(storage=storage, direction="maximize").study_name
    clock = Clock(seconds)
    trainings, recorder = Trainings(benchmark, clock, seed), Recorder(benchmark, clock)
    feasible, checkpoints = benchmark.space.feasible(), Memory()
    goal = trials or feasible.count()

    def search(worker: int) -> Search:
        return Search(
            study=optuna.load_study(study_name=name, storage=storage),
            space=benchmark.space,
            feasible=feasible,
            proxy=trainings,  # type: ignore[arg-type]
            strategy=strategy,
            pruner=pruner,
            common_attrs={},
            checkpoints=checkpoints,  # type: ignore[arg-type]
            strategies=OFFERS,
            first=(),
            worker=f"worker {worker}",
            shared=workers > 1,
            heartbeat=Immortal(),
        )

    searches = [search(worker) for worker in range(workers)]
    clock.run([lambda one=one: run_here(one, goal, recorder, clock.wait) for one in searches])
    return recorder.points
