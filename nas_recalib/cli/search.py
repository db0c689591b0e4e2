"""The command that searches."""

from contextlib import nullcontext
from typing import Annotated, Any, Literal

import typer

from nas_recalib.cli.options import (
    MANY,
    RUNS,
    Batch,
    CacheDir,
    Device,
    KeptCorruptImages,
    LatencyFile,
    MaxLatency,
    MaxMemory,
    MaxParams,
    Plugins,
    RunsDir,
    Storage,
    Threads,
)
from nas_recalib.cli.output import cache_folder, provide_home, say, say_remarks, say_skipped


def search(
    space: Annotated[
        str | None,
        typer.Option(help="A space by name (resnet50) or the path of a .yaml file.", metavar="SPACE"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Limit on multiply-accumulates: 4G, 4.1e9, 500M.", metavar="MACS")
    ] = None,
    params: MaxParams = None,
    latency: MaxLatency = None,
    latency_table: LatencyFile = None,
    memory: MaxMemory = None,
    batch: Batch = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Trained trials that the study ends with, transferred ones not counted (default: 20).",
            min=1,
            max=MANY,
            metavar="N",
        ),
    ] = None,
    baselines: Annotated[
        Literal["yes", "no"] | None,
        typer.Option(help="Train the single-operator networks within the budget first (default: yes)."),
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(
            help="Then train the leaders again with N new seeds each before one is called best (default: 0).",
            min=0,
            max=1000,
            metavar="N",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="auto, digits, cifar10, cifar100, folder:PATH, imagenet:PATH or, downsampled, "
            "imagenet16:PATH, imagenet16-120:PATH and the like (default: auto, CIFAR-10 if it is on disk "
            "or quickly downloaded, else the digits).",
            metavar="DATA",
        ),
    ] = None,
    corrupt_images: KeptCorruptImages = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study (default: the space and the budget).", metavar="NAME"),
    ] = None,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    fidelity: Annotated[
        str | None,
        typer.Option(
            help="quick (default), standard, thorough or a .yaml file; the next five change it.",
            metavar="FIDELITY",
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="Training images of a trial.", metavar="N")] = None,
    validation: Annotated[
        int | None, typer.Option(help="Validation images, split from the training images.", metavar="N")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the images.", metavar="PIXELS")] = None,
    width: Annotated[
        float | None, typer.Option(help="Factor on the channels of the trained twin.", metavar="FACTOR")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a trial.", metavar="N")] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            help="accuracy (default), or accuracy and costs that are to be low besides: accuracy,macs.",
            metavar="NAMES",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="predictor (default), tpe (default for several objectives), gp, nsga2, evolution, local or "
            "random.",
            metavar="NAME",
        ),
    ] = None,
    pruner: Annotated[
        str | None, typer.Option(help="none (default), median, halving or hyperband.", metavar="NAME")
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(help="Take over what another study of --runs-dir has trained.", metavar="STUDY"),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(
            help="How often to resume a trial whose worker died (default: 3).", min=0, max=MANY, metavar="N"
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="Keep checkpoints in this folder or under this URL, which all machines reach "
            "(default: runs/STUDY/checkpoints).",
            metavar="PLACE",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Train on Ray: local (all of this machine), auto (the cluster that it is in) or HOST:PORT.",
            metavar="ADDRESS",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="With --ray: trials at once (default: all there is room for).", min=1, metavar="N"),
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(help="With --ray: GPUs of a trial, or a share of one: 0.5.", min=0, metavar="N"),
    ] = None,
    threads: Threads = None,
    seed: Annotated[
        int | None,
        typer.Option(help="That every draw follows from (default: 0).", min=0, max=MANY, metavar="N"),
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = None,
    plugin: Plugins = None,
) -> None:
    """Search a space under a budget; interrupt and rerun at will.

    Everything is kept in an Optuna study. The same command goes on where it
    stopped; what is not given again is as the study has it, but for where it
    runs (--ray and its options, --device, --cache-dir).
    """
    import optuna

    from nas_recalib.report.study import study_tables
    from nas_recalib.report.terminal import print_table
    from nas_recalib.search.confirm import confirm_leaders, measure_finalists
    from nas_recalib.search.options import Request
    from nas_recalib.search.progress import Progress
    from nas_recalib.search.setup import prepared, say_baselines
    from nas_recalib.study.summary import summarise

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    request = Request(
        space=space,
        macs=budget,
        params=params,
        latency=latency,
        latency_table=latency_table,
        memory=memory,
        batch=batch,
        data=data,
        study=study,
        runs=runs_dir,
        storage=storage,
        fidelity=fidelity,
        images=images,
        validation=validation,
        resolution=resolution,
        width=width,
        epochs=epochs,
        objectives=objectives,
        strategy=strategy,
        pruner=pruner,
        threads=threads,
        seed=seed,
        cache=cache_folder(cache_dir),
        plugins=plugin or (),
        corrupt=corrupt_images,
        warm_start=warm_start,
        retries=retries,
        checkpoints=checkpoints,
        trials=trials,
        confirm=confirm,
        baselines=None if baselines is None else baselines == "yes",
    )
    with (
        _engine(device, ray, workers, gpus_per_trial, confirm) as engine,
        prepared(request, engine.device, engine.trains, say) as (ready, config),
    ):
        where = engine.trains.with_threads(config.threads)
        say(f"study {ready.study.study_name}: {config.budget}, {config.data}, {where}")
        say_remarks(config.data_note, *ready.proxy.data.remarks)
        say_skipped(ready.proxy.data.skipped)
        say_baselines(ready, config, say)
        with Progress.of(ready.study, config.trials, ready.epochs) as progress:
            reached = engine.run(ready, config, config.trials, progress)
        if not reached:
            say("every architecture of the space that is within the budget has been tried")
        measure_finalists(ready.study, say)
        if config.confirm and ray is not None:
            say(f"the leaders are confirmed (--confirm {config.confirm}) by the same command without --ray")
        elif config.confirm:
            confirm_leaders(ready.study, config, ready.proxy, config.confirm, say)
            measure_finalists(ready.study, say)  # those that lead now
        print_table(study_tables(summarise(ready.study), top=10))


def _engine(
    device: str | None, ray: str | None, workers: int | None, gpus: float | None, confirm: int | None
) -> Any:
    from nas_recalib.errors import InputError

    if ray is not None:
        provide_home()
        from nas_recalib.cluster import on_ray

        if confirm:
            raise InputError("confirm: not with --ray; confirm afterwards, by the same command without it")
        return on_ray(ray, device, gpus, workers)
    from nas_recalib.search.local import here

    for name, value in (("workers", workers), ("gpus-per-trial", gpus)):
        if value is not None:
            raise InputError(f"{name}: of no use without --ray")
    return nullcontext(here(device))
