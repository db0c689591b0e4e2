"""A search whose trainings run on a cluster."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import ray
import torch

from nas_recalib.cluster.actor import Train
from nas_recalib.cluster.connection import connect
from nas_recalib.cluster.engine import run_on_ray
from nas_recalib.cluster.resources import Resources
from nas_recalib.device import Described, describe, keep_freed_memory
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.proxy.objective import Proxy
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.engine import Engine
from nas_recalib.search.job import train
from nas_recalib.search.observer import Observer
from nas_recalib.search.search import Search
from nas_recalib.study.config import SearchConfig


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
        search.give_back()
        raise
    return search.reached


def _begin(proxy: Proxy, checkpoints: Checkpoints, device: torch.device) -> Train:
    """What trains in an actor; images go to its device once."""
    keep_freed_memory()
    there = proxy.on(device)
    return lambda job: train(there, job, checkpoints)
