"""Commands that count and time: cost, tables, bench, latency."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nas_recalib.cli.output import print_json, require_output, say
from nas_recalib.options import (
    MANY,
    RUNS,
    AsJson,
    Batch,
    Device,
    Force,
    LatencyFile,
    MaxLatency,
    MaxMemory,
    MaxParams,
    Plugins,
    Threads,
)


def cost(
    what: Annotated[
        str | None,
        typer.Argument(
            help="An architecture file, or a choice such as psconv+ab at every block.", metavar="WHAT"
        ),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            help="The space whose least and greatest cost, or whose backbone, is meant.", metavar="SPACE"
        ),
    ] = "resnet50",
    budget: Annotated[
        str | None,
        typer.Option(
            help="Say whether, or how much of the space, is within this limit on multiply-accumulates.",
            metavar="MACS",
        ),
    ] = None,
    params: MaxParams = None,
    latency: MaxLatency = None,
    latency_table: LatencyFile = None,
    memory: MaxMemory = None,
    batch: Batch = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Count with FlopCounterMode and thop, too, and explain the difference."),
    ] = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Count the MACs and parameters of an architecture or a space."""
    from nas_recalib.costs import Budget
    from nas_recalib.plugins import load_plugins
    from nas_recalib.report.costs import (
        Asked,
        architecture_cost,
        as_dict,
        check_lines,
        cost_check,
        cost_lines,
        space_costs,
        space_lines,
    )
    from nas_recalib.report.terminal import print_table

    load_plugins(plugin or ())
    asked = Asked(space, Budget.parse(budget, params, latency, memory), latency_table, batch)
    costs = space_costs(asked) if what is None else architecture_cost(what, asked)
    checked = cost_check(what, space) if check else None
    if as_json:
        print_json({**costs, "check": as_dict(checked)} if checked else costs)
        return
    print_table(space_lines(costs) if what is None else cost_lines(costs))
    if checked:
        print_table(check_lines(checked))


def tables(
    paper: Annotated[
        str | None,
        typer.Option(help="scnet, psconv, ms-sar or booster (default: all).", metavar="NAME"),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a page of Markdown.")] = False,
    export: Annotated[
        str | None,
        typer.Option(help="Write this row's network as an architecture file, for 'train'.", metavar="ROW"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File that --export writes (default: ROW.yaml).", metavar="FILE"),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compare the papers' figures with ours, or export a row.

    Shows accuracies and complexity, our counts beside them, and what explains
    each difference; --export writes the network of a row.
    """
    from nas_recalib.errors import InputError
    from nas_recalib.papers.figures import compare, read_rows
    from nas_recalib.papers.tables import as_dict, paper_page, paper_table
    from nas_recalib.report.terminal import print_table

    if export is not None:
        if paper is not None or markdown or as_json:
            raise InputError("--export: not together with --paper, --markdown or --json")
        _export_row(export, output, force)
        return
    if output is not None or force:
        raise InputError("--output and --force: only together with --export")
    compared = compare(read_rows(paper))
    if as_json:
        print_json(as_dict(compared))
    elif markdown:
        print(paper_page(compared))
    else:
        print_table(paper_table(compared))


def _export_row(key: str, output: Path | None, force: bool) -> None:
    from nas_recalib.papers.figures import export_row, find_row

    row = find_row(key)
    path = output or Path(f"{row.key}.yaml")
    require_output(path, force)
    cost = export_row(row, path).cost()
    recipes = dict.fromkeys(accuracy.recipe for accuracy in row.accuracies if accuracy.recipe)
    hint = "".join(f"; trained by --recipe {recipe}" for recipe in recipes)
    say(f"wrote {path}: {row.network}, {cost.macs:,} MACs, {cost.params:,} params{hint}")


def bench(
    which: Annotated[
        str, typer.Option("--set", help="layers, blocks, networks or all.", metavar="NAME")
    ] = "blocks",
    sizes: Annotated[
        str, typer.Option(help="imagenet (ResNet-50), cifar (ResNet-20) or all.", metavar="NAME")
    ] = "all",
    choice: Annotated[
        list[str] | None,
        typer.Option(
            help="Operators to time, such as psconv+ab; may be repeated (default: those of the papers).",
            metavar="CHOICE",
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="forward (inference), or train (forward and backward).", metavar="NAME")
    ] = "forward",
    dtype: Annotated[
        str, typer.Option(help="float32, or bfloat16 under autocast.", metavar="NAME")
    ] = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Batch size (default: 32; 128 for CIFAR; 1, 8 and 32 for a ResNet-50 forward).",
            min=1,
            max=MANY,
            metavar="N",
        ),
    ] = None,
    memory_format: Annotated[
        str, typer.Option(help="channels_last or contiguous.", metavar="NAME")
    ] = "channels_last",
    compile_first: Annotated[bool, typer.Option("--compile", help="Compile both sides first.")] = False,
    seconds: Annotated[
        float,
        typer.Option(
            help="Time for each pair; slow pairs take five rounds, however long.", metavar="SECONDS"
        ),
    ] = 2.0,
    threads: Threads = None,
    device: Device = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write JSON.", metavar="FILE")
    ] = None,
    force: Force = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Time operators against vanilla, side by side.

    What is timed are layers alone, blocks or whole networks. A ratio is the
    median over the rounds, with its quartiles; --choice vanilla shows how far
    from 1 noise alone takes it.
    """
    from rich.console import Group
    from rich.text import Text

    from nas_recalib.device import default_threads, pick_device
    from nas_recalib.files import write_atomically
    from nas_recalib.plugins import load_plugins
    from nas_recalib.report.terminal import print_table
    from nas_recalib.report.timings import timing_tables
    from nas_recalib.timing import Settings, list_cases, report
    from nas_recalib.timing import run as run_cases

    load_plugins(plugin or ())
    require_output(output, force)
    settings = Settings(
        device=pick_device(device),
        mode=mode,
        dtype=dtype,
        memory_format=memory_format,
        threads=default_threads() if threads is None else threads,
        seconds=seconds,
        compile=compile_first,
    )
    cases = list_cases(which, sizes, choice or (), mode=mode, batch_size=batch_size)
    results = []
    for result in run_cases(cases, settings):
        results.append(result)
        say(f"{len(results)}/{len(cases)} {result.case}: {result.times.ratio().median:.3f}")
    content = report(results, settings)
    if output:
        write_atomically(output, json.dumps(content, indent=2) + "\n")
        say(f"wrote {output}")
    if as_json:
        print_json(content)
    else:
        about = Text(f"{content['device']}, {mode}, {dtype}, {memory_format}")
        print_table(Group(about, timing_tables(results)))


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
    from nas_recalib.report.terminal import print_table
    from nas_recalib.report.timings import RoundReporter, latency_summary
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
    table = build_table(path, chosen, settings, batch, rounds=rounds, progress=RoundReporter(say))
    say(f"{path}: {len(table.rounds)} rounds")
    if as_json:
        print_json(table.as_dict())
    else:
        print_table(latency_summary(table))
