"""The command line: parses, calls the package, prints. Heavy imports wait until a command runs."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from typer.exceptions import TyperException

from nas_recalib.cli import correlate, measure, search, storage, study, train
from nas_recalib.cli.output import OutputLost, complain, interrupted_by_sigterm, notes, say, standard_streams
from nas_recalib.errors import Diverged, InputError, OtherProcessEnded, StopSearch, StopTraining

app = typer.Typer(
    name="nas-recalib",
    help="Which cheap operator belongs in which block of a ResNet, under a hard budget.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # whose columns cut options off where the terminal is narrow
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for command in (
    search.search,
    study.status,
    study.show,
    study.export,
    measure.cost,
    measure.tables,
    measure.bench,
    measure.latency,
    correlate.correlate,
):
    app.command()(command)
app.command(short_help="Train an architecture at full size.")(train.train)
app.add_typer(storage.storage, name="storage")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nas-recalib {version('nas-recalib')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def main() -> None:
    """Runs the command line; exit status 0, 1 (failed), 2 (bad input), 130 (interrupted)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """As `main`, with the arguments given and the exit status returned."""
    with standard_streams():
        try:
            status = _run(arguments)
            sys.stdout.flush()
        except OutputLost as error:
            if error.reader_left:  # it has seen enough
                return 0
            complain(f"error: {error}")
            return 1
        return status


def _run(arguments: list[str]) -> int:
    try:
        with interrupted_by_sigterm(), notes():
            status = app(arguments or ["--help"], prog_name="nas-recalib", standalone_mode=False)
        if status == 130:  # Typer's answer to an interruption
            resumes = arguments[0] in ("search", "train", "latency", "correlate")
            say("interrupted" + (": run the same command again to resume" if resumes else ""))
        return status if isinstance(status, int) else 0
    except TyperException as error:
        message = error.format_message().strip().replace("\n", " ")
        if message:
            complain(f"error: {message}")
        return error.exit_code
    except InputError as error:
        complain(f"error: {error}")
        return 2
    except OtherProcessEnded as error:
        say(f"failed: {error}")
        return 1
    except (StopSearch, StopTraining, Diverged) as error:
        for line in f"failed: {error}".splitlines():  # with the traceback of what failed
            complain(line)
        return 1
