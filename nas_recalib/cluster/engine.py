"""Engine that trains on a Ray cluster, on one machine or many, by way of Ray Tune."""

import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray import tune
from ray.air.execution._internal import actor_manager
from ray.autoscaler.sdk import request_resources
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from nas_recalib.cluster.connection import Resources, connect, environment
from nas_recalib.cluster.dispatcher import Actor, Dispatcher, EndRun, Train
from nas_recalib.device import Described, describe, keep_freed_memory
from nas_recalib.errors import InputError, StopSearch, in_one_line
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.job import train
from nas_recalib.search.local import Engine
from nas_recalib.search.oneshot import Supernets
from nas_recalib.search.progress import Observer
from nas_recalib.search.search import Search
from nas_recalib.study.config import SearchConfig

_TUNE = {
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # the dispatcher limits trials; Tune would start one at a time
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of data and plugins may be relative
}

Result = TypeVar("Result")
_MOST_TASKS = 1000  # submitted at once; Ray starts as many as there is room for

# Tune does not know the error of an actor that Ray's memory monitor kills, and would end the run.
actor_manager.RayActorError = tune_controller.RayActorError = (RayActorError, OutOfMemoryError)


def run_on_ray(
    source: Search,
    begin: Callable[[torch.device], Train],
    resources: Resources,
    *,
    workers: int | None = None,
    plugins: Sequence[str] = (),
) -> None:
    """Train the jobs of a source on the cluster that this process is connected to, until the source is done.

    A job starts only where there is a free slot. A node that joins the cluster adds slots; jobs of a node
    that dies are marked as lost.

    Args:
        source: Search that hands out jobs, or an object with the same methods; see `Dispatcher`.
        begin: Function that is called once in every actor with its device, and returns what trains there. It
            is sent to each actor once, with all data that it holds.
        resources: Resources of each training.
        workers: Greatest number of trainings at once (default: as many as the cluster has slots for).
        plugins: Modules with the user's own operators, which every actor loads.

    Raises:
        InputError: If no node has the resources.
        Exception: Whatever the source raises; all trainings are stopped.
    """
    resources.require()
    if workers is not None and workers < 1:
        raise InputError(f"workers: {workers} is not at least 1")
    dispatcher = Dispatcher(source, resources, workers)
    trainable = tune.with_parameters(Actor, begin=begin, resources=resources, plugins=tuple(plugins))
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nas-recalib-ray-"))
        stack.enter_context(environment(_TUNE))
        logger = logging.getLogger("ray.tune")  # the observer of the search shows its progress
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        if workers:  # so that a cluster that can grow does; nothing is ever queued that it could see
            request_resources(bundles=[bundle] * workers)
            stack.callback(request_resources, bundles=[])
        tuner = tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([bundle])),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(dispatcher),
                scheduler=_Scheduler(dispatcher),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=attrgetter("trial_id"),
                trial_dirname_creator=attrgetter("trial_id"),
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        error: Exception | None = None
        try:
            tuner.fit()
        except EndRun as end:
            error = end.error
        finally:
            if dispatcher.controller:
                dispatcher.controller._actor_manager.cleanup()  # kills all actors at once
    if error:
        raise error


class _Searcher(Searcher):  # type: ignore[misc]
    """Tune's search algorithm, which starts the dispatcher's jobs."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self._dispatcher = dispatcher

    def suggest(self, trial_id: str) -> Any:
        job = self._dispatcher.next_job()
        return job and {"job": job}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Do nothing, since the scheduler has taken the result."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing, since the study holds everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, since nothing is saved."""


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Tune's scheduler, which passes results to the dispatcher and stops trainings that have ended."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self._dispatcher = dispatcher

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._dispatcher.controller = tune_controller._tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        ended = self._dispatcher.take_result(trial.config["job"], result["actor_result"])
        return str(self.STOP if ended else self.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tell an actor that died, which is no fault of the training, from an error.

        Tune pickles the errors of tasks and actors, and writes those of other deaths as text.
        """
        job = trial.config["job"]
        if not trial.pickled_error_file:
            text = Path(trial.error_file).read_text(encoding="utf-8")
            self._dispatcher.mark_lost(job, text.splitlines()[1])
            return
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())  # written by Tune to our own folder
        if isinstance(error, RayTaskError) or error._actor_init_failed:
            self._dispatcher.fail(job, Failure("error", in_one_line(error), str(error)))
        else:
            self._dispatcher.mark_lost(job, in_one_line(error))


@contextmanager
def on_ray(address: str, device: str | None, gpus: float | None, workers: int | None) -> Iterator[Engine]:
    """Connect to a cluster, and provide the engine that trains there.

    Args:
        address: Address of the cluster; see `connect`.
        device: Kind of device, cpu or cuda (default: GPUs where the cluster has any).
        gpus: Number of GPUs of each training, or a share of one (default: one, where GPUs are used).
        workers: Greatest number of trainings at once (default: as many as the cluster has slots for).

    Raises:
        InputError: If there is no such cluster, or it does not have the resources.
    """
    if device not in (None, "cpu", "cuda"):
        raise InputError(f"device: with --ray only cpu or cuda, not {device!r}; Ray chooses the GPU")
    if device == "cpu" and gpus:
        raise InputError(f"gpus-per-trial: {gpus:g} is of no use with --device cpu")
    try:
        requested = None if gpus is None else Resources(gpus=gpus)
    except ValueError as error:
        raise InputError(str(error).replace("gpus", "gpus-per-trial", 1)) from error
    with connect(address):
        on_gpus = device == "cuda" or (device is None and ray.cluster_resources().get("GPU", 0) > 0)
        resources = requested or Resources(gpus=float(on_gpus))

        def run(search: Search, config: SearchConfig, trials: int, observer: Observer) -> bool:
            each = replace(resources, cpus=config.threads)
            return run_there(search, trials, observer, each, workers=workers, plugins=config.plugins)

        yield Engine(
            torch.device("cpu"), _describe_node(resources), run, partial(_run_tasks, resources, workers)
        )


def _run_tasks(
    resources: Resources,
    workers: int | None,
    function: Callable[..., Result],
    supernets: Supernets,
    items: Sequence[Any],
    say: Callable[[str], None],  # noqa: ARG001  # lines of tasks stay on their machines
) -> Iterator[Result]:
    """Run tasks of a one-shot search on the cluster, those of a machine that dies on another; see `RunTasks`.

    Raises:
        StopSearch: If a task fails.
    """
    shared = ray.put(supernets)
    each = ray.remote(num_cpus=supernets.threads, num_gpus=resources.gpus, max_retries=-1)(_run_task)
    waiting, running = list(items), list[ray.ObjectRef]()
    device = "cuda" if resources.gpus else "cpu"
    try:
        while waiting or running:
            while waiting and len(running) < (workers or _MOST_TASKS):
                running.append(each.remote(function, shared, waiting.pop(0), device))
            (done,), running = ray.wait(running)
            yield ray.get(done)
    except RayError as error:
        raise StopSearch(in_one_line(getattr(error, "cause", None) or error)) from error
    finally:
        for task in running:
            ray.cancel(task, force=True)


def _run_task(function: Callable[..., Result], supernets: Supernets, item: Any, device: str) -> Result:
    keep_freed_memory()
    return function(supernets, item, torch.device(device), lambda _: None)


def _describe_node(resources: Resources) -> Described:
    """Return the description of the device that trains, from a node that has the resources."""
    resources.require()
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(describe)
    found: Described = ray.get(task.remote(torch.device("cuda" if resources.gpus else "cpu")))
    return replace(found, threads=1)  # many trainings of one thread are faster than a few of several


def run_there(
    search: Search,
    trials: int,
    observer: Observer,
    resources: Resources,
    *,
    workers: int | None = None,
    plugins: Sequence[str] = (),
) -> bool:
    """Train like `run_here`, on the cluster that this process is connected to; see `run_on_ray`."""
    search.begin(trials, observer)
    begin = partial(_begin, search.proxy, search.checkpoints)
    try:
        run_on_ray(search, begin, resources, workers=workers, plugins=plugins)
    except (KeyboardInterrupt, StopSearch):
        search.requeue_running()
        raise
    return search.reached


def _begin(proxy: Proxy, checkpoints: Checkpoints, device: torch.device) -> Train:
    """Return what trains in an actor, with the images moved to its device once."""
    keep_freed_memory()
    proxy = proxy.to(device)
    return lambda job: train(proxy, job, checkpoints)
