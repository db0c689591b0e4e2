"""Command line `nas-recalib`: its commands, exit statuses and error messages."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from typer.exceptions import TyperException

from nas_recalib.cli import correlate, measure, search, study, train
from nas_recalib.cli.output import (
    OutputLost,
    interrupted_by_sigterm,
    notes,
    print_error,
    say,
    standard_streams,
)
from nas_recalib.errors import Diverged, InputError, OtherProcessEnded, StopSearch, StopTraining

# Commands import the package when they run, so that --help imports neither torch nor optuna.
app = typer.Typer(
    name="nas-recalib",
    help="Search which cheap operator belongs in which block of a ResNet, under a hard budget.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich's columns cut options off in narrow terminals
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_study_commands = (search.search, study.status, study.show, study.export)
_measuring_commands = (measure.cost, measure.tables, measure.bench, measure.latency, correlate.correlate)
for command in (*_study_commands, *_measuring_commands, train.train):
    app.command()(command)
app.add_typer(study.storage_commands, name="storage")


def _print_version(requested: bool) -> None:
    if requested:
        print(f"nas-recalib {version('nas-recalib')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line; exit with status 0 (success), 1 (failure), 2 (bad input) or 130 (interrupted)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line with the given arguments and return its exit status."""
    with standard_streams():
        try:
            status = _run(arguments)
            sys.stdout.flush()
        except OutputLost as error:
            if error.reader_left:
                return 0
            print_error(f"error: {error}")
            return 1
        return status


def _run(arguments: list[str]) -> int:
    try:
        with interrupted_by_sigterm(), notes():
            status = app(arguments or ["--help"], prog_name="nas-recalib", standalone_mode=False)
        if status == 130:  # Typer's status of an interruption
            resumes = arguments[0] in ("search", "train", "latency", "correlate")
            say("interrupted" + (": run the same command again to resume" if resumes else ""))
        return status if isinstance(status, int) else 0
    except TyperException as error:
        message = error.format_message().strip().replace("\n", " ")
        if message:
            print_error(f"error: {message}")
        return error.exit_code
    except InputError as error:
        print_error(f"error: {error}")
        return 2
    except OtherProcessEnded as error:
        say(f"failed: {error}")
        return 1
    except (StopSearch, StopTraining, Diverged) as error:
        for line in f"failed: {error}".splitlines():  # may have a traceback
            print_error(line)
        return 1
