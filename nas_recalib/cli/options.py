"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer


def expanded_path(text: str | Path) -> Path:
    """Return a path with its leading `~` as the home directory, which shells leave in `--runs-dir=~/runs`."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise typer.BadParameter(f"{text}: {error}") from error


RunsDir = Annotated[
    Path, typer.Option(help="Folder that studies are kept in.", metavar="DIR", parser=expanded_path)
]
Storage = Annotated[
    str | None, typer.Option(help="Keep the study there instead of runs/STUDY/study.db.", metavar="URL")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N (default: a GPU if there is one).", metavar="NAME")
]
Threads = Annotated[
    int | None, typer.Option(help="Of the CPU (default: half of its cores).", min=1, metavar="N")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
StudyName = Annotated[str, typer.Argument(help="Name of the study, such as resnet50-4g.", metavar="STUDY")]
CacheDir = Annotated[
    Path | None,
    typer.Option(
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
    typer.Option(
        "--batch",
        help="Images at once that --memory is for (default: the latency table's, else 1).",
        min=1,
        max=65_536,
        metavar="N",
    ),
]
CorruptImages = Annotated[
    str, typer.Option(help="What to do about images that cannot be decoded: refuse or skip.", metavar="WHAT")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there already.")]
KeptCorruptImages = Annotated[
    str | None,
    typer.Option(
        help="What to do about images that cannot be decoded: refuse (default) or skip.", metavar="WHAT"
    ),
]
RUNS = Path("runs")
MANY = 10**9
