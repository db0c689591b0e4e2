"""A search whose trainings run on Ray Tune, on one machine or many."""

import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.air.execution._internal import actor_manager
from ray.autoscaler.sdk import request_resources
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from nas_recalib.cluster.connection import Resources, connect, environment
from nas_recalib.cluster.dispatcher import Actor, Bench, Dispatcher, Reservation, Train
from nas_recalib.device import Described, describe, keep_freed_memory
from nas_recalib.errors import InputError, StopSearch, in_one_line
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.job import train
from nas_recalib.search.local import Engine
from nas_recalib.search.progress import Observer
from nas_recalib.search.search import Search
from nas_recalib.study.config import SearchConfig

_TUNE = {
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # our own count of workers decides; Tune's is one at a time
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of data and plugins may be relative
}


# Of an actor that Ray's memory monitor kills, Tune hears an error that it does not know, and ends the run.
actor_manager.RayActorError = tune_controller.RayActorError = (RayActorError, OutOfMemoryError)


def run_on_ray(
    desk: Dispatcher,
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
    resources.require()
    if workers is not None and workers < 1:
        raise InputError(f"workers: {workers} is not at least 1")
    bench = Bench(desk, resources, workers)
    trial = tune.with_parameters(Actor, begin=begin, resources=resources, plugins=tuple(plugins))
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus}
    told: Exception | None = None
    with (
        tempfile.TemporaryDirectory(prefix="nas-recalib-ray-") as folder,
        environment(_TUNE),
        _silent(),
        _asked_for([bundle] * (workers or 0)),
    ):
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
        except Reservation as leave:
            told = leave.told
        finally:
            bench.clear()
    if told:
        raise told


class _Proposals(Searcher):  # type: ignore[misc]
    """Has Tune begin what is handed out."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._dispatcher_of = bench

    def suggest(self, trial_id: str) -> Any:
        job = self._dispatcher_of.next()
        return job and {"job": job}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing; the scheduler hears of it first."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing; the study has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class _Reports(FIFOScheduler):  # type: ignore[misc]
    """Passes on what trials tell, and has Tune stop those that are over."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._dispatcher_of = bench

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._dispatcher_of.controller = tune_controller._tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        over = self._dispatcher_of.told(trial.config["job"], result["told"])
        return str(self.STOP if over else self.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tells the death of an actor, of which a training is not to blame, from an error.

        Tune keeps tasks' and actors' errors as they are, and of other deaths the words alone.
        """
        job = trial.config["job"]
        if not trial.pickled_error_file:
            self._dispatcher_of.lost(job, Path(trial.error_file).read_text(encoding="utf-8").splitlines()[1])
            return
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())  # Tune's, in a folder of our own
        if isinstance(error, RayTaskError) or error._actor_init_failed:
            self._dispatcher_of.broken(job, Failure("error", in_one_line(error), str(error)))
        else:
            self._dispatcher_of.lost(job, in_one_line(error))


def _identity(trial: Trial) -> str:
    return str(trial.trial_id)


@contextmanager
def _asked_for(bundles: list[dict[str, float]]) -> Iterator[None]:
    """Has a cluster that can grow do so inside; it else grows by what is queued, and nothing here is."""
    if bundles:
        request_resources(bundles=bundles)
    try:
        yield
    finally:
        if bundles:
            request_resources(bundles=[])


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


@contextmanager
def on_ray(address: str, device: str | None, gpus: float | None, workers: int | None) -> Iterator[Engine]:
    """Has a cluster at hand inside.

    Args:
        address: See `connect`.
        device: cpu or cuda (default: GPUs where the cluster has any).
        gpus: Of each training, or a share of one (default: one, where they are trained on).
        workers: Most trainings at once (default: as many as there is room for).

    Raises:
        InputError: If there is no such cluster, or it does not have what is asked for.
    """
    if device not in (None, "cpu", "cuda"):
        raise InputError(f"device: with --ray only cpu or cuda, not {device!r}; Ray chooses which")
    if device == "cpu" and gpus:
        raise InputError(f"gpus-per-trial: {gpus:g} is of no use with --device cpu")
    try:
        asked = None if gpus is None else Resources(gpus=gpus)
    except ValueError as error:
        raise InputError(str(error).replace("gpus", "gpus-per-trial", 1)) from error
    with connect(address):
        there = ray.cluster_resources().get("GPU", 0) > 0 or device == "cuda"
        one = asked or Resources(gpus=float(there and device != "cpu"))
        yield Engine(torch.device("cpu"), _ask(one), partial(_run, resources=one, workers=workers))


def _ask(resources: Resources) -> Described:
    """What trains, as a node with the resources has it."""
    resources.require()
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(describe)
    found: Described = ray.get(task.remote(torch.device("cuda" if resources.gpus else "cpu")))
    return replace(found, threads=1)  # more trainings side by side come to more than threads of one


def _run(
    search: Search,
    config: SearchConfig,
    trials: int,
    observer: Observer,
    resources: Resources,
    workers: int | None,
) -> bool:
    each = replace(resources, cpus=config.threads)
    return run_there(search, trials, observer, each, workers=workers, plugins=config.plugins)


def run_there(
    search: Search,
    trials: int,
    observer: Observer,
    resources: Resources,
    *,
    workers: int | None = None,
    plugins: Sequence[str] = (),
) -> bool:
    """As `run_here`, on the cluster that this process is connected to; see `run_on_ray`."""
    search.begin(trials, observer)
    begin = partial(_begin, search.proxy, search.checkpoints)
    try:
        run_on_ray(search, begin, resources, workers=workers, plugins=plugins)
    except (KeyboardInterrupt, StopSearch):
        search.requeue_running()
        raise
    return search.reached


def _begin(proxy: Proxy, checkpoints: Checkpoints, device: torch.device) -> Train:
    """What trains in an actor; images go to its device once."""
    keep_freed_memory()
    there = proxy.to(device)
    return lambda job: train(there, job, checkpoints)
