"""A search's trainings as trials of Ray Tune, on one machine or on many.

The study is the only truth: the process that runs the search alone talks to it, through a `Desk`, and what
Tune keeps is thrown away. A training's checkpoints are its own affair, Tune knows nothing of them.
"""

import logging
import math
import os
import pickle
import platform
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from ray import tune
from ray._raylet import AuthenticationTokenLoader, Config
from ray.air.execution._internal import actor_manager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from nas_recalib.device import device_name
from nas_recalib.errors import InputError, in_one_line
from nas_recalib.plugins import load_plugins
from nas_recalib.proxy.objective import Failure, explain
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.job import Job

Train = Callable[[Job], Iterator[Epoch | Failure]]

_POLL = 0.1  # seconds until a desk that has nothing to hand out is asked again
_LOOK = 1.0  # seconds for which the cluster's nodes are taken to stay the same
_TUNE = {
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # our own count of workers decides; Tune's is one at a time
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of data and plugins may be relative
}


class Desk(Protocol):
    """Hands out trainings and takes what comes of them; what it raises ends the run.

    Attributes:
        epochs: Of a whole training.
    """

    epochs: int

    def next(self) -> Job | None:
        """A training that is to start at once; None where there is nothing to hand out just now."""

    def done(self) -> bool:
        """Whether everything asked for has ended and nothing is to come."""

    def report(self, number: int, epoch: Epoch) -> bool:
        """Takes an epoch; whether the training ends there."""

    def end(self, number: int, outcome: list[Epoch] | Failure, seconds: float, facts: dict[str, Any]) -> None:
        """Takes the end of a training.

        Args:
            number: Of its trial.
            outcome: The epochs of this job (none of those before its checkpoint), or why there is no more.
            seconds: That it took.
            facts: The device and the node that it ran on; nothing where no actor came to be.
        """

    def lose(self, number: int, message: str) -> None:
        """Takes the death of the actor or the node that a training ran on."""


@dataclass(frozen=True)
class Resources:
    """What each training gets of its node.

    Attributes:
        cpus: Cores.
        gpus: GPUs, or a share of one; Ray keeps the books of shares, but nothing enforces them.

    Raises:
        ValueError: If a number is out of range.
    """

    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"cpus: {self.cpus} is not at least 1")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus % 1):
            raise ValueError(f"gpus: {self.gpus} is neither a share of a GPU from 0 to 1 nor a whole number")

    def places(self) -> int:
        """How many trainings the cluster's nodes have room for at once."""
        return sum(self._fit(node["Resources"]) for node in ray.nodes() if node["Alive"])

    def _fit(self, node: dict[str, float]) -> int:
        fit = int(node.get("CPU", 0) // self.cpus)
        if not self.gpus:
            return fit
        gpus = int(node.get("GPU", 0))
        return min(fit, gpus * int(1 / self.gpus + 1e-6) if self.gpus <= 1 else int(gpus // self.gpus))


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Has Ray at hand inside: a cluster of one's own, or one that is there already.

    This package and the user's plugins must be importable on every node, in the same versions, and the
    checkpoints' folder must be one that all of them see. A process that is connected already stays so.

    Args:
        address: local starts Ray on this machine, for this process alone; auto takes the cluster of
            RAY_ADDRESS or the one that runs on this machine; HOST:PORT one of which this machine is a node.

    Raises:
        InputError: If there is no such cluster, or it cannot be used.
    """
    if ray.is_initialized():
        yield
        return
    given = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if given not in ("auto", "local"):
        _reach(given)
    with _own_cluster() if address == "local" else nullcontext():
        try:
            _join(address)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _own_cluster() -> Iterator[None]:
    """Has a cluster that is started inside talk to none but those who know its token, which no file holds."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        with _environment({**token, "RAY_USAGE_STATS_ENABLED": "0"}):
            _read_authentication()
            yield
    finally:
        _read_authentication()


def _read_authentication() -> None:
    """Has Ray see what it else reads once in a process."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _reach(address: str) -> None:
    """Refuses at once where Ray would try for minutes."""
    if "://" in address:
        raise InputError(
            f"address: {address} speaks Ray's client protocol, which would have the search run elsewhere; "
            "start it on a node of the cluster, with auto or HOST:PORT"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"address: {address!r} is not local, auto or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"address: nothing answers at {address}: {in_one_line(error)}") from error


def _join(address: str) -> None:
    local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"address: no Ray cluster ({address}): {in_one_line(error)}") from error


def run_on_ray(
    desk: Desk,
    begin: Callable[[torch.device], Train],
    resources: Resources,
    *,
    workers: int | None = None,
    plugins: Sequence[str] = (),
) -> None:
    """Trains what a desk hands out on the cluster that this process is connected to, until the desk is done.

    Jobs are handed out only where there is room for them at once. Where a node joins, more of them run; those
    of a node that dies are given back to the desk.

    Args:
        desk: Hands out and takes back; lives in this process.
        begin: Is called once in every actor with its device, and makes what trains there; it travels once,
            with all that it carries.
        resources: Of each training.
        workers: Most trainings at once (default: as many as the cluster has room for, at any time).
        plugins: Modules of the user's own operators, which every actor loads.

    Raises:
        InputError: If no node has the resources.
        Exception: Whatever the desk raises, as it is; no training goes on.
    """
    if not resources.places():
        raise InputError(
            f"resources: no node of the cluster has {resources.cpus} CPUs and {resources.gpus:g} GPUs"
        )
    bench = _Bench(desk, resources, workers)
    trial = tune.with_parameters(_Trial, begin=begin, resources=resources, plugins=tuple(plugins))
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus}
    told: Exception | None = None
    with tempfile.TemporaryDirectory(prefix="nas-recalib-ray-") as folder, _environment(_TUNE), _silent():
        tuner = tune.Tuner(
            tune.with_resources(trial, tune.PlacementGroupFactory([bundle])),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(bench),
                scheduler=_Reports(bench),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_identity,
                trial_dirname_creator=_identity,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except _Leave as leave:
            told = leave.told
        finally:
            bench.clear()
    if told:
        raise told


class _Leave(BaseException):
    """Leaves Tune, which at an end of its own would write down and read again all of its trials.

    What the desk raised is taken along; Tune would wrap it, or swallow it.
    """

    def __init__(self, told: Exception | None = None) -> None:
        super().__init__(told)
        self.told = told


@contextmanager
def _past_tune() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Leave(error) from error


@dataclass(frozen=True)
class _Told:
    """What an actor tells of a job: the next thing its training yielded, or None where there is no more."""

    item: Epoch | Failure | None
    seconds: float
    facts: dict[str, Any]


class _Bench:
    """The trainings that are out, in the process of the search."""

    def __init__(self, desk: Desk, resources: Resources, workers: int | None) -> None:
        self._desk = desk
        self._resources = resources
        self._workers = workers
        self._out: dict[int, list[Epoch]] = {}
        self._asked = self._looked = -math.inf
        self._places = 0
        self.controller: Any = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Nothing; Tune writes down what it is given, a desk cannot be, and no one reads it."""
        return object, ()

    def next(self) -> Job | None:
        """A job, if there is room for one; leaves when nothing is to come."""
        with _past_tune():
            done = self._desk.done()
        if done:
            raise _Leave
        now = time.monotonic()
        if now - self._looked > _LOOK:
            self._places, self._looked = self._resources.places(), now
        room = self._places if self._workers is None else min(self._places, self._workers)
        if len(self._out) >= room or now - self._asked < _POLL:
            return None
        with _past_tune():
            job = self._desk.next()
        if job is None:
            self._asked = now
        else:
            self._out[job.number] = []
        return job

    def told(self, job: Job, told: "_Told") -> bool:
        """Takes what a training yielded; whether it is over."""
        item = told.item
        curve = self._out[job.number]
        if isinstance(item, Epoch):
            curve.append(item)
            with _past_tune():
                stop = self._desk.report(job.number, item)
            if not stop and item.number < self._desk.epochs:
                return False
        self._end(job, item if isinstance(item, Failure) else curve, told.seconds, told.facts)
        return True

    def failed(self, job: Job, error: Exception) -> None:
        """Tells a death, which is no fault of the training's, from an error."""
        if isinstance(error, RayActorError) and error._actor_init_failed or isinstance(error, RayTaskError):
            self._end(job, Failure("error", in_one_line(error), str(error)), 0.0, {})
        else:
            self._looked = -math.inf
            del self._out[job.number]
            with _past_tune():
                self._desk.lose(job.number, in_one_line(error))

    def clear(self) -> None:
        """Ends every actor, at once."""
        if self.controller:
            self.controller._actor_manager.cleanup()

    def _end(
        self, job: Job, outcome: list[Epoch] | Failure, seconds: float, facts: dict[str, Any]
    ) -> None:
        del self._out[job.number]
        self._asked = -math.inf
        with _past_tune():
            self._desk.end(job.number, outcome, seconds, facts)


class _Proposals(Searcher):  # type: ignore[misc]
    """Has Tune begin what is handed out."""

    def __init__(self, bench: _Bench) -> None:
        super().__init__()
        self._bench = bench

    def suggest(self, trial_id: str) -> Any:
        job = self._bench.next()
        return job and {"job": job}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing; the scheduler hears of it first."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing; the study has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Reports(FIFOScheduler):  # type: ignore[misc]
    """Passes on what trials tell, and has Tune stop those that are over."""

    def __init__(self, bench: _Bench) -> None:
        super().__init__()
        self._bench = bench

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._bench.controller = tune_controller._tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        over = self._bench.told(trial.config["job"], result["told"])
        return str(self.STOP if over else self.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        self._bench.failed(trial.config["job"], error)


class _Trial(tune.Trainable):  # type: ignore[misc]
    """An actor, which trains one job after the other; a step is an epoch."""

    def setup(
        self,
        config: dict[str, Any],
        begin: Callable[[torch.device], Train],
        resources: Resources,
        plugins: Sequence[str],
    ) -> None:
        torch.set_num_threads(resources.cpus)
        self._device = torch.device("cuda:0" if resources.gpus else "cpu")
        self._begin = begin
        self._plugins = plugins
        self._facts = {"node": platform.node()}
        self._train: Train | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._items = self._run(new_config["job"])
        self._begun = time.monotonic()
        return True

    def step(self) -> dict[str, Any]:
        item = next(self._items, None)
        return {"told": _Told(item, time.monotonic() - self._begun, self._facts)}

    def _run(self, job: Job) -> Iterator[Epoch | Failure]:
        try:
            if self._train is None:
                load_plugins(self._plugins)
                self._train = self._begin(self._device)
                self._facts["device"] = device_name(self._device)
            yield from self._train(job)
        except Exception as error:
            yield explain(error)


def _identity(trial: Trial) -> str:
    return str(trial.trial_id)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Has variables of the environment inside, and those from before after."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps Tune's own words to itself; the desk tells how the search goes."""
    logger = logging.getLogger("ray.tune")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
