"""The command that makes a table of latencies."""

from pathlib import Path
from typing import Annotated

import typer

from nas_recalib.cli.options import MANY, RUNS, AsJson, Device, Plugins, Threads
from nas_recalib.cli.output import print_json, say


def latency(
    space: Annotated[
        str, typer.Option(help="A space by name (resnet50) or the path of a .yaml file.", metavar="SPACE")
    ] = "resnet50",
    batch: Annotated[int, typer.Option(help="Batch size.", min=1, max=65_536, metavar="N")] = 1,
    dtype: Annotated[
        str, typer.Option(help="float32, or bfloat16 under autocast.", metavar="NAME")
    ] = "float32",
    compile_first: Annotated[
        bool, typer.Option("--compile", help="Compile each block, and each part between them.")
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Networks to time (default: as the table was begun with, or three times as many as a "
            "position has choices).",
            min=1,
            max=MANY,
            metavar="N",
        ),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            help="Time for each round; slow networks run three times, however long.", metavar="SECONDS"
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the random networks.", min=0, max=MANY, metavar="N")] = 0,
    threads: Threads = None,
    device: Device = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File of the table (default: in runs/latency, by space, device, batch and dtype).",
            metavar="FILE",
        ),
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Measure the latency of every choice in every block.

    The result is a table of this machine. Each round times a whole network of
    random choices beside the reference, the first choice everywhere. Interrupt
    and rerun at will: the same command resumes, and with more --rounds it makes
    a finished table more exact.
    """
    from nas_recalib.device import default_threads, pick_device
    from nas_recalib.latency import build_table, default_path, rounds_for
    from nas_recalib.plugins import load_plugins
    from nas_recalib.report.latency import RoundsTold, latency_summary
    from nas_recalib.report.terminal import print_table
    from nas_recalib.space import SearchSpace
    from nas_recalib.timing import Settings

    load_plugins(plugin or ())
    settings = Settings(
        device=pick_device(device),
        dtype=dtype,
        threads=default_threads() if threads is None else threads,
        seconds=seconds,
        compile=compile_first,
        seed=seed,
    )
    chosen = SearchSpace.load(space)
    rounds_for(chosen, rounds)  # refuses a number that cannot be before a folder is made
    path = output or default_path(RUNS / "latency", chosen, settings, batch)
    table = build_table(path, chosen, settings, batch, rounds=rounds, progress=RoundsTold(say))
    say(f"{path}: {len(table.rounds)} rounds")
    if as_json:
        print_json(table.as_dict())
    else:
        print_table(latency_summary(table))
