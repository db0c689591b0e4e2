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
    Path,
    typer.Option("--runs-dir", help="Folder that studies are kept in.", metavar="DIR", parser=expanded_path),
]
Storage = Annotated[
    str | None, typer.Option(help="Keep the study there instead of runs/STUDY/study.db.", metavar="URL")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N (default: a GPU if there is one).", metavar="NAME")
]
Threads = Annotated[
    int | None, typer.Option(help="Threads of the CPU (default: half of its cores).", min=1, metavar="N")
]
Seed = Annotated[int | None, count_option(help="Seed of every random draw (default: 0).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
StudyName = Annotated[str, typer.Argument(help="Name of the study, such as resnet50-4g.", metavar="STUDY")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there already.")]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        help="Folder for downloads (default: ~/.cache/nas-recalib).",
        metavar="DIR",
        parser=expanded_path,
        envvar="NAS_RECALIB_CACHE",
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", help="Module or .py file of your own operators; may be repeated.", metavar="MODULE"
    ),
]
MaxParams = Annotated[
    str | None, typer.Option("--params", help="Limit on parameters: 26M.", metavar="PARAMS")
]
MaxLatency = Annotated[
    str | None,
    typer.Option(
        "--latency", help="Limit on a forward pass, by a table of this machine: 20ms, 1.5s.", metavar="TIME"
    ),
]
LatencyFile = Annotated[
    Path | None,
    typer.Option(
        "--latency-table",
        help="What 'nas-recalib latency' wrote (default: the one in runs/latency of the space and machine).",
        metavar="FILE",
        parser=expanded_path,
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--memory", help="Limit on the activations' peak in inference: 300MB, 1.5GiB.", metavar="SIZE"
    ),
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
    str, typer.Option(help="What to do about images that cannot be decoded: refuse or skip.", metavar="WHAT")
]
StoredCorruptImages = Annotated[
    str | None,
    typer.Option(
        "--corrupt-images",
        help="What to do about images that cannot be decoded: refuse (default) or skip.",
        metavar="WHAT",
    ),
]
