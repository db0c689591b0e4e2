"""The command that asks what a proxy is worth."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from nas_recalib.cli.options import (
    MANY,
    RUNS,
    AsJson,
    CacheDir,
    Device,
    Force,
    KeptCorruptImages,
    MaxParams,
    Plugins,
    RunsDir,
    Storage,
    Threads,
)
from nas_recalib.cli.output import (
    cache_folder,
    print_json,
    require_output,
    say,
    say_remarks,
    say_skipped,
)


def correlate(
    space: Annotated[
        str, typer.Option(help="A space by name (resnet20) or the path of a .yaml file.", metavar="SPACE")
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            help="Limit on multiply-accumulates of the slice (default: around the median architecture).",
            metavar="MACS",
        ),
    ] = None,
    params: MaxParams = None,
    within: Annotated[
        float | None,
        typer.Option(
            help="Width of the slice: how far MACs and parameters may be below their limits, in per cent "
            "(default: 5).",
            metavar="PERCENT",
        ),
    ] = None,
    architectures: Annotated[
        int | None,
        typer.Option(
            help="Number of architectures to draw; a later run can ask for more (default: 40).",
            min=3,
            max=MANY,
            metavar="N",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Longer trainings of each architecture, one a seed (default: 2); a later run can ask for "
            "more.",
            min=1,
            max=MANY,
            metavar="N",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The longer training: quick, standard, thorough (default) or a .yaml file.",
            metavar="FIDELITY",
        ),
    ] = None,
    fidelity: Annotated[
        list[str] | None,
        typer.Option(
            help="Fidelity to compare with it; may be repeated (default: quick and standard).",
            metavar="FIDELITY",
        ),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            help="Zero-cost proxy to compare with it; may be repeated; or none (default: all).",
            metavar="NAME",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Images, as for search (default: auto).", metavar="DATA")
    ] = None,
    corrupt_images: KeptCorruptImages = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the study (default: SPACE-correlation).", metavar="NAME")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Trainings at once (default: as many as the CPU has threads for; one on a GPU).",
            min=1,
            max=1024,
            metavar="N",
        ),
    ] = None,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    threads: Threads = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of every random draw (default: 0).", min=0, max=MANY, metavar="N"),
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with plots.", metavar="FILE")
    ] = None,
    force: Force = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a page of Markdown.")] = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far cheap proxies agree with longer training.

    Draws architectures of nearly equal cost, compares zero-cost proxies and short
    trainings with longer ones of several seeds, and recommends a fidelity.
    Interrupt and rerun at will; what is not given again is as the study has it.
    """
    import optuna

    from nas_recalib.correlation.recommend import evaluate
    from nas_recalib.correlation.run import pending, run
    from nas_recalib.correlation.setup import Request, prepared
    from nas_recalib.correlation.signals import gather
    from nas_recalib.costs import Budget
    from nas_recalib.device import device_name, pick_device
    from nas_recalib.files import write_atomically
    from nas_recalib.proxy.pool import default_jobs
    from nas_recalib.report.correlation import correlation_markdown, correlation_tables, task_reporter
    from nas_recalib.report.correlation_page import correlation_page
    from nas_recalib.report.terminal import print_table

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    require_output(page, force)
    request = Request(
        space=space,
        budget=Budget.parse(budget, params),
        within=None if within is None else within / 100,
        architectures=architectures,
        seeds=seeds,
        reference=reference,
        fidelities=fidelity or (),
        scores=score or (),
        data=data,
        corrupt=corrupt_images,
        study=study,
        runs=runs_dir,
        storage=storage,
        threads=threads,
        seed=seed,
        cache=cache_folder(cache_dir),
        plugins=plugin or (),
    )
    chosen = pick_device(device)
    with prepared(request, chosen) as ready:
        plan = ready.plan
        say(f"study {ready.study.study_name}: {plan.upper}, {plan.data}, {device_name(chosen, plan.threads)}")
        say_remarks(*ready.remarks)
        say_skipped(ready.skipped)
        left = pending(ready.study, plan, plan.architectures, plan.seeds, ready.scores)
        workers = jobs or default_jobs(chosen, plan.threads)
        run(ready, left, jobs=workers, device=chosen, progress=task_reporter(len(left), say))
        command = shlex.join(["nas-recalib", *sys.argv[1:]])
        found = evaluate(
            gather(ready.study, plan, ready.space, ready.drawn, ready.scores, plan.seeds, [command])
        )
    if page:
        write_atomically(page, correlation_page(found))
        say(f"wrote {page}")
    if as_json:
        print_json(found.as_dict())
    elif markdown:
        print(correlation_markdown(found))
    else:
        print_table(correlation_tables(found))
