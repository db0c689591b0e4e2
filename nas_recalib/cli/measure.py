"""Commands `cost`, `tables`, `bench` and `latency`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nas_recalib.cli.output import print_json, print_result, require_output, say, write_output
from nas_recalib.options import (
    MOST_BATCH,
    RUNS,
    AsJson,
    Batch,
    Device,
    Force,
    LatencyFile,
    Markdown,
    MaxLatency,
    MaxMemory,
    MaxParams,
    Plugins,
    Threads,
    count_option,
    option,
)

Dtype = Annotated[str, option("NAME", "float32, or bfloat16 under autocast.")]


def cost(
    what: Annotated[
        str | None,
        typer.Argument(help="Architecture file, or choice for every block: psconv+ab.", metavar="WHAT"),
    ] = None,
    space: Annotated[str, option("SPACE", "Search space to count, or to take the backbone of.")] = "resnet50",
    budget: Annotated[
        str | None, option("MACS", "Limit on multiply-accumulates to compare with: 4G, 4.1e9.")
    ] = None,
    params: MaxParams = None,
    latency: MaxLatency = None,
    latency_table: LatencyFile = None,
    memory: MaxMemory = None,
    batch: Batch = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare with FlopCounterMode and thop, and explain the differences."),
    ] = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Count the MACs and parameters of an architecture or a space."""
    from nas_recalib.costs import Budget
    from nas_recalib.plugins import load_plugins
    from nas_recalib.report import costs as cost_report
    from nas_recalib.report.terminal import print_table

    load_plugins(plugin or ())
    limits = Budget.parse(budget, params, latency, memory)
    options = cost_report.CostOptions(space, limits, latency_table, batch)
    costs = cost_report.space_costs(options) if what is None else cost_report.architecture_cost(what, options)
    checked = cost_report.cost_check(what, space) if check else None
    if as_json:
        print_json({**costs, "check": cost_report.as_dict(checked)} if checked else costs)
        return
    print_table(cost_report.space_lines(costs) if what is None else cost_report.cost_lines(costs))
    if checked:
        print_table(cost_report.check_lines(checked))


def tables(
    paper: Annotated[str | None, option("NAME", "scnet, psconv, ms-sar or booster (default: all).")] = None,
    markdown: Markdown = False,
    export: Annotated[
        str | None, option("ROW", "Write the network of this row as an architecture file.")
    ] = None,
    output: Annotated[
        Path | None, option("FILE", "File that --export writes (default: ROW.yaml).", "--output", "-o")
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Compare the papers' figures with our counts, or export a row.

    Shows printed accuracies and complexity, our counts, and what explains each
    difference; --export writes the network of a row.
    """
    from nas_recalib.errors import InputError
    from nas_recalib.papers.figures import compare, export_row, find_row, read_rows
    from nas_recalib.papers.tables import as_dict, paper_page, paper_table

    if export is None and (output is not None or force):
        raise InputError("--output and --force: only together with --export")
    if export is not None and (paper is not None or markdown or as_json):
        raise InputError("--export: not together with --paper, --markdown or --json")
    if export is not None:
        row = find_row(export)
        path = output or Path(f"{row.key}.yaml")
        require_output(path, force)
        cost = export_row(row, path).cost()
        recipes = dict.fromkeys(accuracy.recipe for accuracy in row.accuracies if accuracy.recipe)
        hint = "".join(f"; train it with --recipe {recipe}" for recipe in recipes)
        say(f"wrote {path}: {row.network}, {cost.macs:,} MACs, {cost.params:,} params{hint}")
        return
    compared = compare(read_rows(paper))
    if markdown and not as_json:
        print(paper_page(compared))
    else:
        print_result(as_json, lambda: as_dict(compared), lambda: paper_table(compared))


def bench(
    which: Annotated[str, option("NAME", "layers, blocks, networks or all.", "--set")] = "blocks",
    sizes: Annotated[str, option("NAME", "imagenet (ResNet-50), cifar (ResNet-20) or all.")] = "all",
    choice: Annotated[
        list[str] | None, option("CHOICE", "Choice to time: psconv+ab; repeatable (default: the papers').")
    ] = None,
    mode: Annotated[str, option("NAME", "forward (inference), or train (forward and backward).")] = "forward",
    dtype: Dtype = "float32",
    batch_size: Annotated[
        int | None,
        count_option(
            help="Batch size (default: 32; 128 for CIFAR; 1, 8 and 32 for a ResNet-50 forward).", min=1
        ),
    ] = None,
    memory_format: Annotated[str, option("NAME", "channels_last or contiguous.")] = "channels_last",
    compile_first: Annotated[bool, typer.Option("--compile", help="Compile both networks first.")] = False,
    seconds: Annotated[float, option("SECONDS", "Time for each pair, at least five rounds.")] = 2.0,
    threads: Threads = None,
    device: Device = None,
    output: Annotated[Path | None, option("FILE", "Also write JSON.", "--output", "-o")] = None,
    force: Force = False,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Time operators against vanilla, alternately.

    Times layers, blocks or whole networks. A ratio is the median over the
    rounds, with its quartiles; --choice vanilla shows the noise.
    """
    from rich.console import Group
    from rich.text import Text

    from nas_recalib.device import default_threads, pick_device
    from nas_recalib.plugins import load_plugins
    from nas_recalib.report.timings import timing_tables
    from nas_recalib.timing.cases import Settings, list_cases
    from nas_recalib.timing.run import report
    from nas_recalib.timing.run import run as run_cases

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
        write_output(output, json.dumps(content, indent=2) + "\n")
    about = Text(f"{content['device']}, {mode}, {dtype}, {memory_format}")
    print_result(as_json, lambda: content, lambda: Group(about, timing_tables(results)))


def latency(
    space: Annotated[
        str, option("SPACE", "A space by name (resnet50) or the path of a .yaml file.")
    ] = "resnet50",
    batch: Annotated[int, option("N", "Batch size.", min=1, max=MOST_BATCH)] = 1,
    dtype: Dtype = "float32",
    compile_first: Annotated[
        bool, typer.Option("--compile", help="Compile each block, and each part between them.")
    ] = False,
    rounds: Annotated[
        int | None,
        count_option(
            help="Networks to time (default: as before, or three for each choice of a position).", min=1
        ),
    ] = None,
    seconds: Annotated[float, option("SECONDS", "Time for each round, at least three passes.")] = 1.0,
    seed: Annotated[int, count_option(help="Seed of the random networks.")] = 0,
    threads: Threads = None,
    device: Device = None,
    output: Annotated[
        Path | None,
        option(
            "FILE",
            "File of the table (default: in runs/latency, by space, device, batch and dtype).",
            "--output",
            "-o",
        ),
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Measure the latency of every choice in every block.

    The result is a table of this machine. Each round times a network of random
    choices alternately with the reference, the first choice everywhere. After an
    interruption the same command resumes; with more --rounds it makes a finished
    table more exact.
    """
    from nas_recalib.device import default_threads, pick_device
    from nas_recalib.latency.table import build_table, default_path, resolve_rounds
    from nas_recalib.plugins import load_plugins
    from nas_recalib.report.timings import latency_summary, round_reporter
    from nas_recalib.space import SearchSpace
    from nas_recalib.timing.cases import Settings

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
    resolve_rounds(chosen, rounds)  # refuses a wrong number before a folder is made
    path = output or default_path(RUNS / "latency", chosen, settings, batch)
    table = build_table(path, chosen, settings, batch, rounds=rounds, progress=round_reporter(say))
    say(f"{path}: {len(table.rounds)} rounds")
    print_result(as_json, table.as_dict, lambda: latency_summary(table))
