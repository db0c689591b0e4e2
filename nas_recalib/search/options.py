"""Options of a search: names, types, help texts, limits and defaults; imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from nas_recalib.options import (
    MOST_CONFIRM,
    MOST_SCORES,
    MOST_SUPERNETS,
    RETRIES,
    RUNS,
    SUPERNET_EPOCHS,
    SUPERNET_SCORES,
    SUPERNET_SEEDS,
    TRIALS,
    Batch,
    CacheDir,
    Device,
    LatencyFile,
    MaxLatency,
    MaxMemory,
    MaxParams,
    Plugins,
    RunsDir,
    Seed,
    Storage,
    StoredCorruptImages,
    Threads,
    count_option,
    option,
)


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search, as `nas-recalib search --help` describes them.

    None stands for the value that the study has, or for the default of a new study.
    """

    space: Annotated[
        str | None,
        option("SPACE", "A space by name (resnet50) or the path of a .yaml file."),
    ] = None
    macs: Annotated[
        str | None,
        option("MACS", "Limit on multiply-accumulates: 4G, 4.1e9, 500M.", "--budget"),
    ] = None
    params: MaxParams = None
    latency: MaxLatency = None
    latency_table: LatencyFile = None
    memory: MaxMemory = None
    batch: Batch = None
    trials: Annotated[
        int | None,
        count_option(
            help="Trained trials that the study ends with, transferred ones not counted "
            f"(default: {TRIALS}).",
            min=1,
        ),
    ] = None
    baselines: Annotated[
        Literal["yes", "no"] | None,
        typer.Option(help="Train the single-operator networks within the budget first (default: yes)."),
    ] = None
    confirm: Annotated[
        int | None,
        count_option(
            help="Then train the leaders again with N new seeds each before one is called best (default: 0).",
            max=MOST_CONFIRM,
        ),
    ] = None
    data: Annotated[
        str | None,
        option(
            "DATA",
            "auto, digits, cifar10, cifar100, folder:PATH, imagenet:PATH or, downsampled, "
            "imagenet16:PATH, imagenet16-120:PATH and the like (default: auto, CIFAR-10 if it is on disk "
            "or quickly downloaded, else the digits).",
        ),
    ] = None
    corrupt: StoredCorruptImages = None
    study: Annotated[
        str | None,
        option("NAME", "Name of the study (default: the space and the budget)."),
    ] = None
    runs: RunsDir = RUNS
    storage: Storage = None
    fidelity: Annotated[
        str | None,
        option("FIDELITY", "quick (default), standard, thorough or a .yaml file; the next five change it."),
    ] = None
    images: Annotated[int | None, option("N", "Training images of a trial.")] = None
    validation: Annotated[int | None, option("N", "Validation images, split from the training images.")] = (
        None
    )
    resolution: Annotated[int | None, option("PIXELS", "Side of the images.")] = None
    width: Annotated[float | None, option("FACTOR", "Factor on the channels of the proxy network.")] = None
    epochs: Annotated[int | None, option("N", "Epochs of a trial.")] = None
    objectives: Annotated[
        str | None,
        option("NAMES", "accuracy (default), or accuracy and costs to minimise besides: accuracy,macs."),
    ] = None
    strategy: Annotated[
        str | None,
        option(
            "NAME",
            "predictor (default), tpe (default for several objectives), gp, nsga2, evolution, local or "
            "random.",
        ),
    ] = None
    evaluator: Annotated[
        Literal["short", "oneshot"] | None,
        typer.Option(
            help="How candidates are compared: by short trainings (default), or oneshot, as subnets of "
            "supernets that are trained first; the best are then trained alone.",
        ),
    ] = None
    supernet_epochs: Annotated[
        int | None,
        count_option(help=f"With oneshot: epochs of a supernet (default: {SUPERNET_EPOCHS}).", min=1),
    ] = None
    supernet_seeds: Annotated[
        int | None,
        count_option(
            help=f"With oneshot: supernets, whose losses are averaged (default: {SUPERNET_SEEDS}).",
            min=1,
            max=MOST_SUPERNETS,
        ),
    ] = None
    supernet_scores: Annotated[
        int | None,
        count_option(
            help=f"With oneshot: subnets to score (default: {SUPERNET_SCORES}).", min=1, max=MOST_SCORES
        ),
    ] = None
    pruner: Annotated[str | None, option("NAME", "none (default), median, halving or hyperband.")] = None
    warm_start: Annotated[
        str | None,
        option("STUDY", "Take over what another study of --runs-dir has trained."),
    ] = None
    retries: Annotated[
        int | None,
        count_option(help=f"How often to resume a trial whose worker died (default: {RETRIES}).", min=0),
    ] = None
    checkpoints: Annotated[
        str | None,
        option(
            "PLACE",
            "Keep checkpoints in this folder or under this URL, which all machines reach "
            "(default: runs/STUDY/checkpoints).",
        ),
    ] = None
    ray: Annotated[
        str | None,
        option(
            "ADDRESS",
            "Train on Ray: local (all of this machine), auto (the cluster that it is in) or HOST:PORT.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        option("N", "With --ray: trials at once (default: all there is room for).", min=1),
    ] = None
    gpus_per_trial: Annotated[
        float | None,
        option("N", "With --ray: GPUs of a trial, or a share of one: 0.5.", min=0),
    ] = None
    threads: Threads = None
    seed: Seed = None
    device: Device = None
    cache: CacheDir = None
    plugins: Plugins = None
