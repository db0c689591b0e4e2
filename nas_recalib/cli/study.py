"""Commands `show`, `status` and `export` about a study, and `storage check` and `serve` about its storage."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nas_recalib.cli.output import print_json, print_result, require_output, say, silence_optuna, write_output
from nas_recalib.options import RUNS, AsJson, Force, Page, Plugins, RunsDir, Storage, StudyName, option

storage_commands = typer.Typer(help="Test a storage of studies, or serve one to other machines.")
Url = Annotated[
    str,
    typer.Argument(
        help="sqlite:///PATH, postgresql://USER@HOST/NAME, journal:///PATH, grpc://HOST:PORT or another that "
        "SQLAlchemy supports.",
        metavar="URL",
    ),
]
Predicted = Annotated[
    bool,
    typer.Option(
        "--predicted",
        help="Take the architecture within the budget that a regression on all trials expects most of, "
        "trained or not.",
    ),
]
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def show(
    study: StudyName,
    top: Annotated[int, option("N", "Number of trials to list.", min=1)] = 20,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    page: Page = None,
    force: Force = False,
    predicted: Predicted = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show the results of a study.

    These are the best architecture, the trials, the Pareto front of accuracy and
    MACs, and the importance of each block's choice.
    """
    from nas_recalib.report.study import predicted_tables, study_tables, verdict
    from nas_recalib.report.study_page import study_page

    require_output(page, force)
    opened, summary = _summary(study, runs_dir, storage, plugin)
    if page:
        write_output(page, study_page(summary))
    if predicted:
        from nas_recalib.study.predicted import predict_best

        best = predict_best(opened, summary)
        print_result(as_json, best.as_dict, lambda: predicted_tables(best))
        return
    further = {"best": summary.best.number, "verdict": verdict(summary)}
    print_result(as_json, lambda: {**summary.as_dict(), **further}, lambda: study_tables(summary, top))


def status(
    study: StudyName,
    trial: Annotated[int | None, option("N", "Show all details of the trial of this number.")] = None,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a search, and details of its trials."""
    from nas_recalib.report.study import status_tables, trial_tables
    from nas_recalib.study.status import find_trial, read_status

    opened = _open(study, runs_dir, storage)
    if trial is None:
        status = read_status(opened)
        print_result(as_json, status.as_dict, lambda: status_tables(status))
    else:
        details = find_trial(opened, trial)
        print_result(as_json, details.as_dict, lambda: trial_tables(details))


def export(
    study: StudyName,
    output: Annotated[Path, option("FILE", "File to write.", "--output", "-o")] = Path("best.yaml"),
    trial: Annotated[int | None, option("N", "Number of the trial (default: the best).")] = None,
    predicted: Predicted = False,
    force: Force = False,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    plugin: Plugins = None,
) -> None:
    """Write the best architecture of a study to a file."""
    from nas_recalib.errors import InputError
    from nas_recalib.export import export_architecture, export_predicted
    from nas_recalib.report.study import accuracy_text, latency_text, predicted_text

    if predicted and trial is not None:
        raise InputError("predicted: not with --trial, which names another architecture")
    opened, summary = _summary(study, runs_dir, storage, plugin)
    if predicted:
        from nas_recalib.study.predicted import predict_best

        best = predict_best(opened, summary)
        export_predicted(summary, best, output, overwrite=force)
        say(f"wrote {output}: {predicted_text(best)}")
        return
    row = export_architecture(summary, output, trial, overwrite=force)
    figures = f"{accuracy_text(row)}, {row.macs:,} MACs, {row.params:,} params{latency_text(row)}"
    say(f"wrote {output}: trial {row.number}, {figures}")


def _summary(study: str, runs: Path, storage: str | None, plugins: list[str] | None) -> tuple[Any, Any]:
    """Return a study and its summary."""
    from nas_recalib.study.summary import summarise

    opened = _open(study, runs, storage)
    return opened, summarise(opened, plugins or ())


def _open(study: str, runs: Path, storage: str | None) -> Any:
    from nas_recalib.study.location import StudyLocation, open_study

    silence_optuna()
    return open_study(StudyLocation.of(study, runs, storage))


@storage_commands.command()
def check(url: Url, as_json: AsJson = False) -> None:
    """Test a storage: write trials, read them back, delete them.

    Prints how fast it is and how many workers it can serve. Exit status 1 if it fails or loses what was
    written.
    """
    from nas_recalib.errors import StopSearch
    from nas_recalib.study.storage import hide_password
    from nas_recalib.study.storage_check import check_storage

    silence_optuna()
    try:
        report = check_storage(url)
    except StopSearch as problem:
        if as_json:
            print_json({"storage": hide_password(url), "problem": str(problem)})
        raise
    if as_json:
        print_json(report.as_dict())
    else:
        print(*report.lines(), sep="\n")


@storage_commands.command()
def serve(
    url: Url,
    host: Annotated[str, option("HOST", "Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, option("PORT", "Port to listen on.", min=1, max=65535)] = 13000,
) -> None:
    """Serve a database to other machines through a gRPC proxy.

    Workers share this process's few connections to the database. Start them
    with --storage grpc://HOST:PORT. The port has no authentication.
    """
    from nas_recalib.study.storage import hide_password
    from nas_recalib.study.storage_check import serve_storage

    silence_optuna()
    if host not in _LOOPBACK:
        say(
            f"warning: {host}:{port} has no authentication, and anyone who reaches it can read, change and "
            "delete every study; admit only the workers by a firewall, or use --host 127.0.0.1 and ssh"
        )
    serve_storage(url, host, port, lambda: say(f"serving {hide_password(url)} as grpc://{host}:{port}"))
