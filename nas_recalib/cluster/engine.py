"""A search's trainings as trials of Ray Tune, on one machine or on many.

The study is the only truth: the process that runs the search alone talks to it, through a `Desk`, and what
Tune keeps is thrown away. A training's checkpoints are its own affair, Tune knows nothing of them.
"""

import logging
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.air.execution._internal import actor_manager
from ray.autoscaler.sdk import request_resources
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from nas_recalib.cluster.actor import Actor, Train
from nas_recalib.cluster.bench import Bench, Desk, Leave
from nas_recalib.cluster.connection import environment
from nas_recalib.cluster.resources import Resources
from nas_recalib.errors import InputError, in_one_line
from nas_recalib.proxy.objective import Failure

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
        except Leave as leave:
            told = leave.told
        finally:
            bench.clear()
    if told:
        raise told


class _Proposals(Searcher):  # type: ignore[misc]
    """Has Tune begin what is handed out."""

    def __init__(self, bench: Bench) -> None:
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

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._bench = bench

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._bench.controller = tune_controller._tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        over = self._bench.told(trial.config["job"], result["told"])
        return str(self.STOP if over else self.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tells the death of an actor, of which a training is not to blame, from an error.

        Tune keeps tasks' and actors' errors as they are, and of other deaths the words alone.
        """
        job = trial.config["job"]
        if not trial.pickled_error_file:
            self._bench.lost(job, Path(trial.error_file).read_text(encoding="utf-8").splitlines()[1])
            return
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())  # Tune's, in a folder of our own
        if isinstance(error, RayTaskError) or error._actor_init_failed:
            self._bench.broken(job, Failure("error", in_one_line(error), str(error)))
        else:
            self._bench.lost(job, in_one_line(error))


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
