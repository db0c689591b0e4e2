"""Many workers on one study, one storage call at a time in an order drawn from a seed.

Workers are killed, interrupted and stopped for minutes at any of their storage calls, and trials are
enqueued; in the end every training up to the target must have finished once.
"""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest
from examples import soaked
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState, create_trial
from stand_in import SPACE, Silent, StandIn, make_search

from nas_recalib.proxy.objective import Failure
from nas_recalib.search.heartbeat import StorageHeartbeat
from nas_recalib.search.local import run_here
from nas_recalib.search.samplers.base import distributions
from nas_recalib.search.trial_writer import may_train
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import (
    CACHED_FROM,
    ENQUEUED,
    FAILURE,
    WARM_STARTED_FROM,
    WITHDRAWN,
    finished_of,
    first_trial_of,
    to_resume,
    warm_started,
)

FEW = """
name: few
backbone: resnet20
granularity: network
convolution: [vanilla, scconv, psconv]
recalibration: [none, ab]
"""
EPOCHS = 9
STEPS = 60_000


class Killed(BaseException):
    pass


class Worker(threading.Thread):
    """Thread that runs from one of its storage calls to the next, when it is stepped."""

    def __init__(self, main: Callable[["Worker"], bool]) -> None:
        super().__init__(daemon=True)
        self._main, self._turn, self._back = main, threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None
        self.heartbeat: StorageHeartbeat | None = None
        self.ended: object = None
        self.stopped = False
        self.start()

    def run(self) -> None:
        self._turn.acquire()
        try:
            self.ended = ("reached", self._main(self))
        except BaseException as error:
            self.ended = error
        self._back.release()

    def pause(self) -> None:
        if threading.current_thread() is self:
            self._back.release()
            self._turn.acquire()
            if self.error:
                error, self.error = self.error, None
                raise error

    def step(self) -> None:
        self._turn.release()
        self._back.acquire()


def stepped(storage: BaseStorage, pause: Callable[[], None]) -> BaseStorage:
    """Wrap a storage so that a worker pauses before each call."""

    def method(name: str) -> Callable[..., Any]:
        def call(_: object, *given: Any, **named: Any) -> Any:
            pause()
            return getattr(storage, name)(*given, **named)

        return call

    names = [*BaseStorage.__abstractmethods__, "get_n_trials", "get_best_trial"]
    return type("Stepped", (BaseStorage,), {name: method(name) for name in names})()


@dataclass
class SharedCheckpoints:
    """Checkpoints in memory that all workers share."""

    states: dict[int, Any]
    pause: Callable[[], None]

    def save(self, number: int, state: Mapping[str, Any]) -> None:
        self.pause()
        self.states[number] = state

    def load(self, number: int) -> Any:
        self.pause()
        return self.states.get(number)

    def drop(self, number: int) -> None:
        self.pause()
        self.states.pop(number, None)


@dataclass
class Fragile(StandIn):
    """Proxy of which some architectures run out of memory, always or without micro-batches; some diverge."""

    share: float = 0.0
    salt: int = 0

    def steps(self, architecture: Any, start: Any = None, parts: int = 1) -> Any:
        fate = random.Random(f"{architecture}{self.salt}").random()
        if fate < self.share or (fate < 2 * self.share and parts == 1):
            yield Failure("out-of-memory", "no room")
        elif fate < 3 * self.share:
            yield Failure("diverged", "not a number")
        else:
            yield from super().steps(architecture, start, parts)


@dataclass
class World:
    """A study and its workers, with faults drawn from a seed."""

    seed: int
    folder: Any
    pruner: str
    space: SearchSpace
    objectives: tuple[str, ...] = ("accuracy",)
    workers: list[Worker] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.storage = InMemoryStorage()
        directions = ["maximize", *["minimize"] * (len(self.objectives) - 1)]
        self.study = optuna.create_study(storage=self.storage, study_name="s", directions=directions)
        self.proxy = Fragile(epochs=EPOCHS, share=self.draw.choice([0, 0, 0.08]), salt=self.seed)
        self.states: dict[int, Any] = {}
        self.names = itertools.count()
        self.target = self.draw.randint(1, 9)
        self.first = self.draw.choice([(), ("vanilla", "psconv")])
        self.enqueued = self.draw.choice([0.002, 0.02, 0.1])
        if self.draw.random() < 0.3:
            self.transfer(self.draw.randint(1, 4))
        self.strategy = "random" if len(self.objectives) > 1 else self.draw.choice(["random", "evolution"])

    def random_params(self) -> dict[str, str]:
        return self.space.indices_to_params(
            tuple(self.draw.randrange(len(one.choices)) for one in self.space.positions)
        )

    def transfer(self, count: int) -> None:
        """Add trials of another study, paused at the first rung if there is one."""
        curve = {1: 0.9} if self.pruner != "none" else dict.fromkeys(range(1, EPOCHS + 1), 0.9)
        for parameters in {
            tuple(one.items()): one for one in (self.random_params() for _ in range(count))
        }.values():
            indices = self.space.params_to_indices(parameters)
            one = create_trial(
                state=TrialState.COMPLETE if self.pruner == "none" else TrialState.PRUNED,
                value=0.9,
                params=parameters,
                distributions=distributions(self.space),
                user_attrs={
                    WARM_STARTED_FROM: "other/0",
                    "architecture": str(self.space.from_indices(indices)),
                },
                intermediate_values=curve,
            )
            self.study.add_trial(one)

    def join(self) -> Worker:
        def main(worker: Worker) -> bool:
            storage = stepped(self.storage, worker.pause)
            study = optuna.load_study(storage=storage, study_name="s")
            worker.heartbeat = StorageHeartbeat(self.storage, self.folder, clock=lambda: self.now)
            search = make_search(
                study,
                self.folder,
                self.proxy,
                space=self.space,
                pruner=self.pruner,
                strategy=self.strategy,
                shared=True,
                heartbeat=worker.heartbeat,
                worker=f"here/{next(self.names)}",
                checkpoints=SharedCheckpoints(self.states, worker.pause),
                retries=100,
                objectives=self.objectives,
                first=self.first,
            )
            return run_here(search, self.target, Silent(), lambda _: worker.pause())

        worker = Worker(main)
        self.workers.append(worker)
        return worker

    def tick(self) -> None:
        self.now += 20
        for worker in self.workers:
            if worker.heartbeat and not worker.stopped:
                worker.heartbeat.beat()

    def advance(self, worker: Worker) -> None:
        worker.step()
        if worker.ended is not None:
            self.workers.remove(worker)
            if isinstance(worker.ended, BaseException) and not isinstance(
                worker.ended, Killed | KeyboardInterrupt
            ):
                raise worker.ended

    def chaos(self, steps: int, trouble: float) -> None:
        for _ in range(steps):
            while len(self.workers) < 3:
                self.join()
            worker = self.draw.choice(self.workers)
            fate = self.draw.random() / trouble
            if fate < 0.004:
                worker.error = Killed()
            elif fate < 0.006:
                worker.error = KeyboardInterrupt()
            elif fate < 0.008:
                worker.stopped = True
            elif fate < 0.028:
                for one in self.workers:
                    one.stopped = one.stopped and self.draw.random() < 0.7
            if self.draw.random() < self.enqueued:
                self.study.enqueue_trial(self.random_params())
            if self.draw.random() < 0.05:
                self.tick()
            if not worker.stopped or worker.error:
                self.advance(worker)

    def settle(self) -> None:
        """Run all workers to the end, without faults."""
        self.join()
        for step in range(STEPS):
            if not self.workers:
                return
            self.advance(self.draw.choice(self.workers))
            if step % 20 == 0:
                for worker in self.workers:
                    worker.stopped = False
                self.tick()
        states = Counter(t.user_attrs.get(FAILURE, t.state.name) for t in self.study.get_trials())
        raise AssertionError(f"no end: {states}")

    def check(self) -> None:
        trials = self.study.get_trials()
        mine = [t for t in trials if CACHED_FROM not in t.user_attrs]
        log = "\n".join(
            f"{t.number} {t.state.name} {t.user_attrs.get('architecture')} {t.user_attrs.get(FAILURE)} "
            f"after {t.user_attrs.get('continues')} by {t.user_attrs.get('worker')}"
            for t in trials
        )
        complete = Counter(str(t.params) for t in mine if t.state == TrialState.COMPLETE)
        assert max(complete.values(), default=0) <= 1, f"trained twice\n{log}"
        ended = finished_of(trials)
        assert len({str(t.params) for t in ended}) == len(ended), f"started twice\n{log}"
        first = first_trial_of(trials)
        here = {first(t) for t in ended} - warm_started(trials)
        assert len(here) <= self.target, f"{len(here)} over {self.target}\n{log}"
        if len(here) < self.target:
            failed = {
                str(t.params) for t in trials if t.user_attrs.get(FAILURE) in ("out-of-memory", "diverged")
            }
            done = {str(t.params) for t in ended} | failed
            count = len(set(itertools.product(*(range(len(p.choices)) for p in self.space.positions))))
            assert len(done) == count, f"ended early: {len(here)} of {self.target}\n{log}"
        assert not to_resume(trials), f"lost {[t.number for t in to_resume(trials)]}\n{log}"
        enqueued = [t.system_attrs.get("fixed_params") for t in trials]
        for t in trials:
            if t.user_attrs.get(FAILURE) == "lost" and "architecture" not in t.user_attrs:
                assert enqueued[t.number] in enqueued[t.number + 1 :], (
                    f"enqueued trial {t.number} lost\n{log}"
                )
        for t in trials:  # left by dead workers, only duplicates
            if t.state == TrialState.RUNNING:
                assert not may_train(t.number, trials, self.target), log
        if self.pruner == "none":
            assert len(complete) == len(ended)
        if ended:
            assert complete, log
        broken = Counter(
            t.user_attrs.get("architecture")
            for t in trials
            if t.user_attrs.get(FAILURE) in ("lost", "interrupted")
            or "died" in t.user_attrs.get("message", "")
        )
        passed = Counter((str(one), epoch) for one, epoch in self.proxy.passed)
        for name in {name for name, _ in passed}:
            more = sum(count - 1 for (one, _), count in passed.items() if one == name)
            assert more <= broken[name], f"{name}: {more} epochs again, {broken[name]} times broken\n{log}"
        withdrawn = sum(t.user_attrs.get(FAILURE) == WITHDRAWN for t in trials)
        assert withdrawn <= 200, f"{withdrawn} withdrawn\n{log}"

    def check_enqueued(self) -> None:
        """Check that with a higher target all enqueued trials are trained, or fail for good."""
        self.target += sum(ENQUEUED in t.system_attrs for t in self.study.get_trials())
        self.settle()
        self.check()
        trials = self.study.get_trials()
        failed = [t for t in trials if t.user_attrs.get(FAILURE) in ("out-of-memory", "diverged")]
        evaluated = [t.params for t in (*finished_of(trials), *failed)]
        enqueued = {t.number: t.system_attrs[ENQUEUED] for t in trials if ENQUEUED in t.system_attrs}
        missed = [number for number, params in enqueued.items() if params not in evaluated]
        assert not missed, f"enqueued and not trained: {missed}"


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("seed", soaked(range(100), range(4)))
@pytest.mark.parametrize("space", [SPACE, FEW], ids=["many", "few"])
@pytest.mark.parametrize("pruner", ["none", "halving", "hyperband"])
def test_every_training_finishes_once(tmp_path, seed, space, pruner):
    world = World(seed, tmp_path, pruner, SearchSpace.parse(space, "tiny"))
    world.chaos(world.draw.randint(50, 800), trouble=world.draw.choice([1.0, 3.0, 8.0]))
    world.settle()
    world.check()
    world.check_enqueued()
