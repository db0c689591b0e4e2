"""The `correlate` command."""

import shlex
import sys

from nas_recalib.cli.output import (
    cache_folder,
    print_result,
    require_output,
    say,
    say_remarks,
    say_skipped,
    silence_optuna,
    write_output,
)
from nas_recalib.correlation.options import CorrelationOptions
from nas_recalib.options import AsJson, Force, Markdown, Page, options_from


@options_from(CorrelationOptions)
def correlate(
    options: CorrelationOptions,
    page: Page = None,
    force: Force = False,
    markdown: Markdown = False,
    as_json: AsJson = False,
) -> None:
    """Measure how far cheap proxies agree with longer training.

    Draws architectures of nearly equal cost, compares zero-cost proxies and short
    trainings with longer ones of several seeds, and recommends a fidelity.
    Interrupt and rerun at will; what is not given again is as the study has it.
    """
    from nas_recalib.correlation.recommend import evaluate
    from nas_recalib.correlation.run import pending, run
    from nas_recalib.correlation.setup import prepared
    from nas_recalib.correlation.signals import gather
    from nas_recalib.device import device_name, pick_device
    from nas_recalib.proxy.pool import default_jobs
    from nas_recalib.report import correlation as reports

    silence_optuna()
    require_output(page, force)
    device = pick_device(options.device)
    with prepared(options, cache_folder(options.cache), device) as ready:
        plan = ready.plan
        say(f"study {ready.study.study_name}: {plan.upper}, {plan.data}, {device_name(device, plan.threads)}")
        say_remarks(*ready.remarks)
        say_skipped(ready.skipped)
        tasks = pending(ready)
        jobs = options.jobs or default_jobs(device, plan.threads)
        run(ready, tasks, jobs=jobs, device=device, progress=reports.task_reporter(len(tasks), say))
        findings = evaluate(gather(ready, [shlex.join(["nas-recalib", *sys.argv[1:]])]))
    if page:
        write_output(page, reports.correlation_page(findings))
    if markdown and not as_json:
        print(reports.correlation_markdown(findings))
    else:
        print_result(as_json, findings.as_dict, lambda: reports.correlation_tables(findings))
