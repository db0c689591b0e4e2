"""Command `train`, which trains an exported architecture at full size."""

from pathlib import Path
from typing import Annotated

import typer

from nas_recalib.cli.output import cache_folder, say, say_remarks, say_skipped
from nas_recalib.options import RUNS, CacheDir, CorruptImages, Device, Plugins, count_option, option


def train(
    architecture: Annotated[Path, typer.Argument(help="Architecture file.", metavar="FILE")],
    data: Annotated[str, option("DATA", "imagenet:PATH, folder:PATH, cifar10, cifar100, digits or auto.")],
    corrupt_images: CorruptImages = "refuse",
    output: Annotated[
        Path | None,
        option("DIR", "Folder for checkpoints and weights (default: runs/train-FILE).", "--output", "-o"),
    ] = None,
    recipe: Annotated[str, option("NAME", "step100 or cosine120, the papers' schedules.")] = "step100",
    epochs: Annotated[int | None, count_option(help="Epochs (default: the recipe's).", min=1)] = None,
    batch_size: Annotated[int | None, count_option(help="Batch size over all processes.", min=1)] = None,
    input_size: Annotated[
        int | None, option("PIXELS", "Side of the images (default: the architecture's).")
    ] = None,
    workers: Annotated[
        int | None,
        option(
            "N",
            "Decoding processes per training process (default: one per core, at most 4).",
            min=0,
            max=1024,
        ),
    ] = None,
    seed: Annotated[int, count_option(help="Seed of weights, order and augmentation.")] = 0,
    limit_batches: Annotated[
        int | None,
        count_option(
            help="For a quick test: most training batches per epoch, then evaluate on as many images.", min=1
        ),
    ] = None,
    device: Device = None,
    cache_dir: CacheDir = None,
    plugin: Plugins = None,
) -> None:
    """Train an architecture at full size.

    Runs in one process, or under torchrun with one process per GPU. Resumes after
    the last epoch whose checkpoint is in the output folder. The result is the last
    epoch; held-out images are never used for selection.
    """
    from dataclasses import replace

    from nas_recalib.architecture import Architecture
    from nas_recalib.data import open_source
    from nas_recalib.data.streaming import default_workers, divide, evaluated_part
    from nas_recalib.device import fast_dtype, keep_freed_memory, pick_device
    from nas_recalib.plugins import load_plugins
    from nas_recalib.training import EpochResult, get_recipe, train_full
    from nas_recalib.training.checkpoint import BEST, WEIGHTS
    from nas_recalib.training.distributed import join_world

    chosen = get_recipe(recipe)
    chosen = replace(chosen.with_epochs(epochs or chosen.epochs), batch_size=batch_size or chosen.batch_size)
    load_plugins(plugin or ())
    discovered = Architecture.load(architecture)

    def accuracy(result: EpochResult) -> str:
        count = f"{total:,}" if result.images in (None, total) else f"{result.images:,} of {total:,}"
        return f"top-1 {result.top1:.4f}, top-5 {result.top5:.4f} on {count} {part} images"

    def progress(result: EpochResult) -> None:
        say_skipped(result.skipped)
        figures = f"loss {result.loss:.4f}, {accuracy(result)}, {result.seconds:.0f} s"
        say(f"epoch {result.epoch}/{chosen.epochs}: {figures}")

    keep_freed_memory()
    with join_world(pick_device(device)) as world:
        with world.main_first():
            source = open_source(data, cache_folder(cache_dir))
        say_remarks(source.note, *source.remarks)
        part, total = evaluated_part(source), len(divide(source, seed)[1])
        folder = output or RUNS / f"train-{architecture.stem}"
        history = train_full(
            discovered,
            source,
            folder,
            chosen,
            device=world.device,
            dtype=fast_dtype(world.device),
            seed=seed,
            workers=default_workers() if workers is None else workers,
            input_size=input_size,
            limit_batches=limit_batches,
            corrupt=corrupt_images,
            progress=progress,
        )
        if world.is_main:
            best, last = max(history, key=lambda result: result.top1), history[-1]
            if part == "validation":
                figures = f"top-1 {best.top1:.4f}, biased upwards as it selected the epoch"
                print(f"wrote {folder / BEST}: best epoch {best.epoch}, {figures}")
            print(f"wrote {folder / WEIGHTS}: last epoch {last.epoch}, {accuracy(last)}")
