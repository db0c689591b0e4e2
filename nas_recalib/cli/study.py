"""Commands about a study: show, status, export."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nas_recalib.cli.output import print_json, require_output, say
from nas_recalib.options import RUNS, AsJson, Force, Plugins, RunsDir, Storage, StudyName


def show(
    study: StudyName,
    top: Annotated[int, typer.Option(help="Trials to list.", min=1, metavar="N")] = 20,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with plots.", metavar="FILE")
    ] = None,
    force: Force = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show the results of a study.

    These are the best architecture, the trials, the front of accuracy against
    MACs and the importance of blocks.
    """
    from nas_recalib.files import write_atomically
    from nas_recalib.report.study import study_tables, verdict
    from nas_recalib.report.study_page import study_page
    from nas_recalib.report.terminal import print_table

    require_output(page, force)
    summary = summary_of(study, runs_dir, storage, plugin)
    if page:
        write_atomically(page, study_page(summary))
        say(f"wrote {page}")
    if as_json:
        print_json({**summary.as_dict(), "best": summary.best.number, "verdict": verdict(summary)})
    else:
        print_table(study_tables(summary, top))


def status(
    study: StudyName,
    trial: Annotated[
        int | None, typer.Option(help="Show everything about the trial of this number.", metavar="N")
    ] = None,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show what a search is training, and what failed."""
    from nas_recalib.report.study import status_tables, trial_tables
    from nas_recalib.report.terminal import print_table
    from nas_recalib.study.status import find_trial, read_status

    opened = opened_study(study, runs_dir, storage)
    if trial is None:
        status = read_status(opened)
        print_json(status.as_dict()) if as_json else print_table(status_tables(status))
    else:
        told = find_trial(opened, trial)
        print_json(told.as_dict()) if as_json else print_table(trial_tables(told))


def export(
    study: StudyName,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", metavar="FILE")] = Path(
        "best.yaml"
    ),
    trial: Annotated[
        int | None, typer.Option(help="Number of the trial (default: the best).", metavar="N")
    ] = None,
    force: Force = False,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    plugin: Plugins = None,
) -> None:
    """Write the architecture that a study found to a file."""
    from nas_recalib.export import export_architecture
    from nas_recalib.report.study import accuracy_text, timed_text

    row = export_architecture(summary_of(study, runs_dir, storage, plugin), output, trial, overwrite=force)
    told = f"{accuracy_text(row)}, {row.macs:,} MACs, {row.params:,} params{timed_text(row)}"
    say(f"wrote {output}: trial {row.number}, {told}")


def summary_of(study: str, runs: Path, storage: str | None, plugins: list[str] | None) -> Any:
    from nas_recalib.study.summary import summarise

    return summarise(opened_study(study, runs, storage), plugins or ())


def opened_study(study: str, runs: Path, storage: str | None) -> Any:
    import optuna

    from nas_recalib.study.location import StudyLocation, open_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return open_study(StudyLocation.of(study, runs, storage))
