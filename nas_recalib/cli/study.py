"""Commands `show`, `status` and `export`, about a study."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nas_recalib.cli.output import print_json, require_output, say
from nas_recalib.options import RUNS, AsJson, Force, Plugins, RunsDir, Storage, StudyName


def show(
    study: StudyName,
    top: Annotated[int, typer.Option(help="Number of trials to list.", min=1, metavar="N")] = 20,
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

    These are the best architecture, the trials, the Pareto front of accuracy and
    MACs, and the importance of each block's choice.
    """
    from nas_recalib.files import write_atomically
    from nas_recalib.report.study import study_tables, verdict
    from nas_recalib.report.study_page import study_page
    from nas_recalib.report.terminal import print_table

    require_output(page, force)
    summary = _summary(study, runs_dir, storage, plugin)
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
        int | None, typer.Option(help="Show all details of the trial of this number.", metavar="N")
    ] = None,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a search, and details of its trials."""
    from nas_recalib.report.study import status_tables, trial_tables
    from nas_recalib.report.terminal import print_table
    from nas_recalib.study.status import find_trial, read_status

    opened = _open(study, runs_dir, storage)
    if trial is None:
        status = read_status(opened)
        print_json(status.as_dict()) if as_json else print_table(status_tables(status))
    else:
        details = find_trial(opened, trial)
        print_json(details.as_dict()) if as_json else print_table(trial_tables(details))


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
    """Write the best architecture of a study to a file."""
    from nas_recalib.export import export_architecture
    from nas_recalib.report.study import accuracy_text, latency_text

    row = export_architecture(_summary(study, runs_dir, storage, plugin), output, trial, overwrite=force)
    summary = f"{accuracy_text(row)}, {row.macs:,} MACs, {row.params:,} params{latency_text(row)}"
    say(f"wrote {output}: trial {row.number}, {summary}")


def _summary(study: str, runs: Path, storage: str | None, plugins: list[str] | None) -> Any:
    from nas_recalib.study.summary import summarise

    return summarise(_open(study, runs, storage), plugins or ())


def _open(study: str, runs: Path, storage: str | None) -> Any:
    import optuna

    from nas_recalib.study.location import StudyLocation, open_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return open_study(StudyLocation.of(study, runs, storage))
