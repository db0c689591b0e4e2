"""The `correlate` command."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from nas_recalib.cli.output import (
    cache_folder,
    print_json,
    require_output,
    say,
    say_remarks,
    say_skipped,
)
from nas_recalib.correlation.options import CorrelationOptions
from nas_recalib.options import AsJson, Force, options_from


@options_from(CorrelationOptions)
def correlate(
    options: CorrelationOptions,
    page: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with plots.", metavar="FILE")
    ] = None,
    force: Force = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a page of Markdown.")] = False,
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
    from nas_recalib.correlation.setup import prepared
    from nas_recalib.correlation.signals import gather
    from nas_recalib.device import device_name, pick_device
    from nas_recalib.files import write_atomically
    from nas_recalib.proxy.pool import default_jobs
    from nas_recalib.report.correlation import correlation_markdown, correlation_tables, task_reporter
    from nas_recalib.report.correlation_page import correlation_page
    from nas_recalib.report.terminal import print_table

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    require_output(page, force)
    device = pick_device(options.device)
    with prepared(options, cache_folder(options.cache), device) as ready:
        plan = ready.plan
        say(f"study {ready.study.study_name}: {plan.upper}, {plan.data}, {device_name(device, plan.threads)}")
        say_remarks(*ready.remarks)
        say_skipped(ready.skipped)
        tasks = pending(ready.study, plan, plan.architectures, plan.seeds, ready.scores)
        jobs = options.jobs or default_jobs(device, plan.threads)
        run(ready, tasks, jobs=jobs, device=device, progress=task_reporter(len(tasks), say))
        command = shlex.join(["nas-recalib", *sys.argv[1:]])
        signals = gather(ready.study, plan, ready.space, ready.drawn, ready.scores, plan.seeds, [command])
        findings = evaluate(signals)
    if page:
        write_atomically(page, correlation_page(findings))
        say(f"wrote {page}")
    if as_json:
        print_json(findings.as_dict())
    elif markdown:
        print(correlation_markdown(findings))
    else:
        print_table(correlation_tables(findings))
