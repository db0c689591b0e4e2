"""Options that several commands take: types with help texts, limits and defaults; imports no torch."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

T = TypeVar("T")
P = ParamSpec("P")

RUNS = Path("runs")
TRIALS = 20
SUPERNET_EPOCHS = 40
SUPERNET_SEEDS = 2
SUPERNET_SCORES = 200
RETRIES = 3
MANY = 10**9
MOST_BATCH = 65_536
MOST_CONFIRM = 1000
MOST_SUPERNETS = 100
MOST_SCORES = 100_000
MOST_THREADS = 4096


count_option = partial(typer.Option, min=0, max=MANY, metavar="N")


def option(metavar: str, text: str, *names: str, **settings: Any) -> Any:
    """Return a command-line option with a value.

    Args:
        metavar: Name of the value in the help text.
        text: Help text.
        names: Names of the option (default: that of the parameter).
        settings: Other arguments of `typer.Option`.
    """
    return typer.Option(*names, help=text, metavar=metavar, **settings)


def expanded_path(text: str | Path) -> Path:
    """Return a path with its leading `~` as the home directory, which shells leave in `--runs-dir=~/runs`."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{text}: {error}") from error


def options_from(options: type[T]) -> Callable[[Callable[Concatenate[T, P], None]], Callable[..., None]]:
    """Give a command one option for each field of a dataclass, before the options of its own.

    Args:
        options: Dataclass whose fields are annotated with `typer.Option`; the command takes an instance of it
            as its first argument.
    """
    fields = inspect.signature(options).parameters

    def decorate(command: Callable[Concatenate[T, P], None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in fields}
            command(options(**values), **given)  # type: ignore[call-arg]

        _, *own = inspect.signature(command).parameters.values()
        run.__signature__ = inspect.Signature([*fields.values(), *own])  # type: ignore[attr-defined]
        return run

    return decorate


RunsDir = Annotated[
    Path, option("DIR", "Folder that studies are kept in.", "--runs-dir", parser=expanded_path)
]
Storage = Annotated[str | None, option("URL", "Keep the study there instead of runs/STUDY/study.db.")]
Device = Annotated[str | None, option("NAME", "cpu, cuda or cuda:N (default: a GPU if there is one).")]
Threads = Annotated[int | None, option("N", "Threads of the CPU (default: half of its cores).", min=1)]
Seed = Annotated[int | None, count_option(help="Seed of every random draw (default: 0).")]
Page = Annotated[Path | None, option("FILE", "Also write a page with plots.", "--html")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print a page of Markdown.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
StudyName = Annotated[str, typer.Argument(help="Name of the study, such as resnet50-4g.", metavar="STUDY")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there already.")]
CacheDir = Annotated[
    Path | None,
    option(
        "DIR",
        "Folder for downloads (default: ~/.cache/nas-recalib).",
        "--cache-dir",
        parser=expanded_path,
        envvar="NAS_RECALIB_CACHE",
    ),
]
Plugins = Annotated[
    list[str] | None,
    option("MODULE", "Module or .py file of your own operators; may be repeated.", "--plugin"),
]
MaxParams = Annotated[str | None, option("PARAMS", "Limit on parameters: 26M.", "--params")]
MaxLatency = Annotated[
    str | None,
    option("TIME", "Limit on a forward pass, by a table of this machine: 20ms, 1.5s.", "--latency"),
]
LatencyFile = Annotated[
    Path | None,
    option(
        "FILE",
        "What 'nas-recalib latency' wrote (default: the one in runs/latency of the space and machine).",
        "--latency-table",
        parser=expanded_path,
    ),
]
MaxMemory = Annotated[
    str | None, option("SIZE", "Limit on the activations' peak in inference: 300MB, 1.5GiB.", "--memory")
]
Batch = Annotated[
    int | None,
    count_option(
        "--batch",
        help="Batch size that --memory is for (default: the latency table's, else 1).",
        min=1,
        max=MOST_BATCH,
    ),
]
CorruptImages = Annotated[
    str, option("WHAT", "What to do about images that cannot be decoded: refuse or skip.")
]
StoredCorruptImages = Annotated[
    str | None,
    option(
        "WHAT",
        "What to do about images that cannot be decoded: refuse (default) or skip.",
        "--corrupt-images",
    ),
]
