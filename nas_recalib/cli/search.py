"""The `search` command."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from nas_recalib.cli.output import cache_folder, provide_home, say, say_remarks, say_skipped, silence_optuna
from nas_recalib.options import options_from
from nas_recalib.search.options import SearchOptions

if TYPE_CHECKING:
    from nas_recalib.search.local import Engine


@options_from(SearchOptions)
def search(options: SearchOptions) -> None:
    """Search a space under a budget; interrupt and rerun at will.

    Everything is kept in an Optuna study. The same command resumes it; what is
    not given again is as the study has it, but for where it runs (--ray and its
    options, --device, --cache-dir).
    """
    from nas_recalib.report.study import study_tables
    from nas_recalib.report.terminal import print_table
    from nas_recalib.search.confirm import confirm_leaders, measure_finalists
    from nas_recalib.search.oneshot import score_subnets
    from nas_recalib.search.progress import Progress
    from nas_recalib.search.setup import prepared, say_baselines
    from nas_recalib.study.summary import summarise

    silence_optuna()
    cache = cache_folder(options.cache)
    with (
        _engine(options) as engine,
        prepared(options, cache, engine.device, engine.trains, say) as (ready, config),
    ):
        device = engine.trains.with_threads(config.threads)
        say(f"study {ready.study.study_name}: {config.budget}, {config.data}, {device}")
        say_remarks(config.data_note, *ready.proxy.data.remarks)
        say_skipped(ready.proxy.data.skipped)
        if config.evaluator == "oneshot":
            score_subnets(ready, config, engine.run_tasks, say)
        say_baselines(ready, config, say)
        with Progress.of(ready.study, config.trials, ready.epochs) as progress:
            reached = engine.run(ready, config, config.trials, progress)
        if not reached:
            say("every architecture of the space that is within the budget has been tried")
        measure_finalists(ready.study, say)
        if config.confirm and options.ray is not None:
            say(f"to confirm the leaders (--confirm {config.confirm}), run the same command without --ray")
        elif config.confirm:
            confirm_leaders(ready.study, config, ready.proxy, config.confirm, say)
            measure_finalists(ready.study, say)  # the leaders may be others now
        print_table(study_tables(summarise(ready.study), top=10))


def _engine(options: SearchOptions) -> "AbstractContextManager[Engine]":
    from nas_recalib.errors import InputError

    if options.ray is None:
        from nas_recalib.search.local import here

        for name, value in (("workers", options.workers), ("gpus-per-trial", options.gpus_per_trial)):
            if value is not None:
                raise InputError(f"{name}: has no effect without --ray")
        return nullcontext(here(options.device))
    provide_home()
    from nas_recalib.cluster import on_ray

    if options.confirm:
        raise InputError("confirm: not with --ray; confirm later, by the same command without it")
    return on_ray(options.ray, options.device, options.gpus_per_trial, options.workers)
