"""The command line: parses, calls the package, prints. Heavy imports wait until a command runs."""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from nas_recalib.errors import Diverged, InputError, StopSearch

app = typer.Typer(
    name="nas-recalib",
    help="Which cheap operator belongs in which block of a ResNet, under a hard budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

RunsDir = Annotated[Path, typer.Option(help="Folder that studies are kept in.", metavar="DIR")]
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
        envvar="NAS_RECALIB_CACHE",
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", help="Module or .py file of your own operators; may be repeated.", metavar="MODULE"
    ),
]
RUNS = Path("runs")
MANY = 10**9


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


@app.command()
def search(
    space: Annotated[
        str | None,
        typer.Option(help="A space by name (resnet50) or the path of a .yaml file.", metavar="SPACE"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Limit on multiply-accumulates: 4G, 4.1e9, 500M.", metavar="MACS")
    ] = None,
    params: Annotated[str | None, typer.Option(help="Limit on parameters: 26M.", metavar="PARAMS")] = None,
    trials: Annotated[
        int, typer.Option(help="Trained trials that the study ends with.", min=1, max=MANY, metavar="N")
    ] = 20,
    data: Annotated[
        str | None,
        typer.Option(
            help="auto, digits, cifar10, cifar100, folder:PATH or imagenet:PATH (default: auto, CIFAR-10 "
            "if it is on disk or quickly downloaded, else the digits).",
            metavar="DATA",
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of the study (default: the space and the budget).", metavar="NAME"),
    ] = None,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    images: Annotated[int | None, typer.Option(help="Training images of a trial.", metavar="N")] = None,
    validation: Annotated[
        int | None, typer.Option(help="Validation images, split from the training images.", metavar="N")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Side of the images.", metavar="PIXELS")] = None,
    width: Annotated[
        float | None, typer.Option(help="Factor on the channels of the trained twin.", metavar="FACTOR")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a trial.", metavar="N")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe (default) or random.", metavar="NAME")] = None,
    pruner: Annotated[
        str | None, typer.Option(help="median (default), halving or none.", metavar="NAME")
    ] = None,
    threads: Threads = None,
    seed: Annotated[
        int | None,
        typer.Option(help="That every draw follows from (default: 0).", min=0, max=MANY, metavar="N"),
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = None,
    plugin: Plugins = None,
) -> None:
    """Search a space under a budget; interrupt and rerun at will.

    Everything is kept in an Optuna study. The same command goes on where it
    stopped; what is not given again is as the study has it.
    """
    import optuna

    from nas_recalib.device import device_name, keep_freed_memory, pick_device
    from nas_recalib.report.tables import study_tables
    from nas_recalib.report.terminal import print_table
    from nas_recalib.search.progress import Progress
    from nas_recalib.search.setup import Request, prepared
    from nas_recalib.study.place import finished
    from nas_recalib.study.summary import summarise

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    request = Request(
        space=space,
        macs=budget,
        params=params,
        data=data,
        study=study,
        runs=runs_dir,
        storage=storage,
        images=images,
        validation=validation,
        resolution=resolution,
        width=width,
        epochs=epochs,
        sampler=sampler,
        pruner=pruner,
        threads=threads,
        seed=seed,
        cache=_cache(cache_dir),
        plugins=plugin or (),
    )
    chosen = pick_device(device)
    keep_freed_memory()
    with prepared(request, chosen) as (ready, config):
        _say(f"study {ready.study.study_name}: {config.budget}, {config.data}, {device_name(chosen)}")
        if config.data_note:
            _say(f"data: {config.data_note}")
        trained = finished(ready.study)
        complete = [trial for trial in trained if trial.state.name == "COMPLETE"]
        best = max(((float(trial.value or 0), trial.number) for trial in complete), default=None)
        with Progress(trials, len(trained), ready.proxy.epochs, best) as progress:
            reached = ready.run(trials, progress)
        if not reached:
            _say("every architecture of the space that is within the budget has been tried")
        print_table(study_tables(summarise(ready.study), top=10))


@app.command()
def show(
    study: StudyName,
    top: Annotated[int, typer.Option(help="Trials to list.", min=1, metavar="N")] = 20,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with plots.", metavar="FILE")
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show what a study found: best, trials, front of accuracy against MACs, importance of blocks."""
    from nas_recalib.files import write_atomically
    from nas_recalib.report.page import study_page
    from nas_recalib.report.tables import study_tables
    from nas_recalib.report.terminal import print_table

    summary = _summary(study, runs_dir, storage, plugin)
    if page:
        write_atomically(page, study_page(summary))
        _say(f"wrote {page}")
    if as_json:
        _print_json({**summary.as_dict(), "best": summary.best.number})
    else:
        print_table(study_tables(summary, top))


@app.command()
def export(
    study: StudyName,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", metavar="FILE")] = Path(
        "best.yaml"
    ),
    trial: Annotated[int | None, typer.Option(help="Which trial (default: the best).", metavar="N")] = None,
    runs_dir: RunsDir = RUNS,
    storage: Storage = None,
    plugin: Plugins = None,
) -> None:
    """Write the architecture that a study discovered as one plain file."""
    from nas_recalib.export import export_architecture

    row = export_architecture(_summary(study, runs_dir, storage, plugin), output, trial)
    told = f"accuracy {row.accuracy:.4f}, {row.macs:,} MACs, {row.params:,} params"
    _say(f"wrote {output}: trial {row.number}, {told}")


@app.command()
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
        typer.Option(help="Say whether it is within this limit on multiply-accumulates.", metavar="MACS"),
    ] = None,
    params: Annotated[str | None, typer.Option(help="Likewise, on parameters.", metavar="PARAMS")] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Count the MACs and parameters of an architecture, a choice, or a whole space."""
    from nas_recalib.costs import Budget
    from nas_recalib.plugins import load_plugins
    from nas_recalib.report.costs import architecture_cost, print_costs, space_costs

    load_plugins(plugin or ())
    limits = Budget.parse(budget, params)
    costs = space_costs(space, limits) if what is None else architecture_cost(what, space, limits)
    if as_json:
        _print_json(costs)
    else:
        print_costs(costs)


@app.command()
def tables(
    paper: Annotated[
        str | None,
        typer.Option(help="scnet, psconv, ms-sar or booster (default: all).", metavar="NAME"),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a page of Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the papers' parameters and MACs with ours beside them, and what explains each difference."""
    from nas_recalib.report.paper_figures import compare, read_rows
    from nas_recalib.report.paper_tables import as_dict, paper_page, paper_table
    from nas_recalib.report.terminal import print_table

    compared = compare(read_rows(paper))
    if as_json:
        _print_json(as_dict(compared))
    elif markdown:
        print(paper_page(compared))
    else:
        print_table(paper_table(compared))


@app.command()
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
            help="What to time, such as psconv+ab; may be given again (default: the papers' operators).",
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
            help="Inputs at once (default: 32, CIFAR's 128, and 1, 8 and 32 for a ResNet-50 forward).",
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
        float, typer.Option(help="Spent on each pair; slow ones take five rounds.", metavar="SECONDS")
    ] = 2.0,
    threads: Threads = None,
    device: Device = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write JSON.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time operators against vanilla, side by side: layers alone, blocks, whole networks.

    A ratio is the median over the rounds, with its quartiles; --choice vanilla
    shows how far from 1 noise alone takes it.
    """
    from nas_recalib.device import default_threads, pick_device
    from nas_recalib.files import require_writable, write_atomically
    from nas_recalib.report.terminal import print_table
    from nas_recalib.report.timings import timing_tables
    from nas_recalib.timing import Settings, list_cases, report
    from nas_recalib.timing import run as run_cases

    if output:
        require_writable(output)
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
        _say(f"{len(results)}/{len(cases)} {result.case}: {result.times.ratio().median:.3f}")
    content = report(results, settings)
    if output:
        write_atomically(output, json.dumps(content, indent=2) + "\n")
        _say(f"wrote {output}")
    if as_json:
        _print_json(content)
    else:
        print(f"{content['device']}, {mode}, {dtype}, {memory_format}")
        print_table(timing_tables(results))


@app.command()
def train(
    architecture: Annotated[Path, typer.Argument(help="An architecture file.", metavar="FILE")],
    data: Annotated[
        str,
        typer.Option(help="imagenet:PATH, folder:PATH, cifar10, cifar100, digits or auto.", metavar="DATA"),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for checkpoints and weights (default: runs/train-FILE).",
            metavar="DIR",
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="step100 or cosine120, the papers' schedules.", metavar="NAME")
    ] = "step100",
    epochs: Annotated[
        int | None, typer.Option(help="Longer or shorter than the recipe.", min=1, max=MANY, metavar="N")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step, over all processes.", min=1, max=MANY, metavar="N")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Side of the images (default: the architecture's).", metavar="PIXELS")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Decoding processes for each training process.", min=0, max=1024, metavar="N")
    ] = 4,
    seed: Annotated[
        int, typer.Option(help="Of weights, order and augmentation.", min=0, max=MANY, metavar="N")
    ] = 0,
    limit_batches: Annotated[
        int | None, typer.Option(help="Most batches an epoch, for a quick look.", min=1, metavar="N")
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = None,
    plugin: Plugins = None,
) -> None:
    """Train an architecture at full size: alone, or under torchrun with one process for each GPU.

    Goes on from the last epoch that the output folder holds.
    """
    from dataclasses import replace

    from nas_recalib.architecture import Architecture
    from nas_recalib.data import open_source
    from nas_recalib.device import fast_dtype, keep_freed_memory, pick_device
    from nas_recalib.plugins import load_plugins
    from nas_recalib.training import EpochResult, get_recipe, train_full
    from nas_recalib.training.distributed import join_world

    chosen = get_recipe(recipe).with_epochs(epochs or get_recipe(recipe).epochs)
    chosen = replace(chosen, batch_size=batch_size or chosen.batch_size)
    load_plugins(plugin or ())
    discovered = Architecture.load(architecture)

    def progress(result: EpochResult) -> None:
        told = f"loss {result.loss:.4f}, top-1 {result.top1:.4f}, top-5 {result.top5:.4f}"
        _say(f"epoch {result.epoch}/{chosen.epochs}: {told}, {result.seconds:.0f} s")

    keep_freed_memory()
    with join_world(pick_device(device)) as world:
        with world.main_first():
            source = open_source(data, _cache(cache_dir))
        folder = output or RUNS / f"train-{architecture.stem}"
        history = train_full(
            discovered,
            source,
            folder,
            chosen,
            device=world.device,
            dtype=fast_dtype(world.device),
            seed=seed,
            workers=workers,
            input_size=input_size,
            limit_batches=limit_batches,
            progress=progress,
        )
        if world.is_main:
            best = max(history, key=lambda result: result.top1)
            told = f"top-1 {best.top1:.4f}, top-5 {best.top5:.4f}"
            print(f"best epoch {best.epoch}: {told}; weights in {folder}")


def _summary(study: str, runs: Path, storage: str | None, plugins: list[str] | None) -> Any:
    import optuna

    from nas_recalib.study.place import StudyPlace, open_study
    from nas_recalib.study.summary import summarise

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return summarise(open_study(StudyPlace.of(study, runs, storage)), plugins or ())


def _cache(given: Path | None) -> Path:
    if given is not None:
        return given
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas-recalib"


def _say(line: str) -> None:
    """To standard error, once however many processes torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


def _complain(line: str) -> None:
    """To standard error, by every process: each may have a trouble of its own."""
    rank = os.environ.get("RANK", "0")
    print(line if rank == "0" else f"process {rank}: {line}", file=sys.stderr, flush=True)


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def main() -> None:
    """Runs the command line; exit status 0, 1 (failed), 2 (bad input), 130 (interrupted)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """As `main`, with the arguments given and the exit status returned."""
    try:
        status = app(arguments, prog_name="nas-recalib", standalone_mode=False)
        if status == 130:  # Typer's answer to an interruption
            _say("interrupted; the same command goes on from here")
        return status if isinstance(status, int) else 0
    except TyperException as error:
        message = error.format_message().strip().replace("\n", " ")
        if message:
            _complain(f"error: {message}")
        return error.exit_code
    except InputError as error:
        _complain(f"error: {error}")
        return 2
    except (StopSearch, Diverged) as error:
        _complain(f"failed: {error}")
        return 1
