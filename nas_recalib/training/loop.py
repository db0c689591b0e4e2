"""Training of an exported architecture at full size: resumable, in one process or many."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from nas_recalib.architecture import Architecture, build
from nas_recalib.data.sources import Source
from nas_recalib.data.streaming import MEAN, STD, Stream, evaluated_part, open_stream
from nas_recalib.errors import Diverged, InputError, StopTraining
from nas_recalib.proxy.objective import explain
from nas_recalib.training.checkpoint import (
    BEST,
    CHECKPOINT,
    HISTORY,
    WEIGHTS,
    Checkpoint,
    Run,
    Stateful,
    locked_folder,
    open_folder,
    save_checkpoint,
)
from nas_recalib.training.distributed import World, join_world
from nas_recalib.training.epoch import evaluate, train_epoch
from nas_recalib.training.recipe import Recipe
from nas_recalib.training.results import (
    EpochResult,
    best_top1,
    skipped_images,
    write_history,
    write_weights,
)


def train_full(
    architecture: Architecture,
    source: Source,
    out: Path,
    recipe: Recipe,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    workers: int = 0,
    input_size: int | None = None,
    limit_batches: int | None = None,
    corrupt: str = "refuse",
    progress: Callable[[EpochResult], None] = lambda _: None,
) -> list[EpochResult]:
    """Train an architecture, resuming from `out/checkpoint.pt` where there is one.

    Under torchrun every process calls this; all return the same, and the main one writes: after each epoch
    `checkpoint.pt` and `history.json`, at the end `weights.safetensors`. The last epoch is the result: the
    held-out images, on which results are reported, select nothing. Only where the source has none, and
    validation images are split from those to train on, `best.safetensors` has the epoch that they prefer.

    Args:
        architecture: What to train, for as many classes as the source has.
        source: Images.
        out: Folder for what is written; made if missing.
        recipe: How to train.
        device: What to train on; under torchrun "cuda" stands for each process's own GPU.
        dtype: Type of convolutions and products (`device.fast_dtype`); float32 switches autocast off.
        seed: Seed of weights, order, augmentation and, if the source has no held-out part, the split.
        workers: Processes that decode images, for each process that trains.
        input_size: Side of the images in pixels (default: the architecture's).
        limit_batches: Most training batches an epoch, for a quick look; evaluation then takes as many images,
            drawn from each class in proportion to its size.
        corrupt: What to do about images that cannot be decoded, "refuse" or "skip"; see `open_stream`.
        progress: Called in the main process after each epoch, once it is saved.

    Returns:
        Results of all epochs, those of earlier calls among them.

    Raises:
        InputError: If images, architecture, recipe or checkpoint do not fit each other, or the folder cannot
            be written to or holds something else.
        Diverged: If the loss stops being finite.
        StopTraining: If memory runs out, or a process ends that this one needs.
    """
    with (
        join_world(device) as world,
        torch.backends.cudnn.flags(enabled=True, benchmark=True),
        ExitStack() as folder,
    ):
        fitted = _fit(architecture, source, input_size)
        stream = open_stream(
            source,
            fitted.input_size,
            _share(recipe.batch_size, world.size),
            seed=seed,
            workers=workers,
            rank=world.rank,
            world_size=world.size,
            pin_memory=device.type == "cuda",
            corrupt=corrupt,
            most_evaluated=limit_batches and limit_batches * recipe.batch_size,
        )
        fingerprint = world.from_main(source.fingerprint)
        run = Run(str(fitted), recipe, source.spec, fingerprint, source.classes, seed, limit_batches)
        world.from_main(lambda: folder.enter_context(locked_folder(out)))
        checkpoint = world.from_main(lambda: open_folder(out, run))
        trainee = _prepare(fitted, recipe, seed, checkpoint, world)
        history = list(checkpoint.history) if checkpoint else []
        for epoch in range(len(history), recipe.epochs):
            result = _epoch(epoch, trainee, stream, run, dtype, world)
            faults = world.union(stream.faults())
            stream.refuse_lost_classes(faults, source.classes)
            skipped = tuple(sorted(set(faults.values()) - set(skipped_images(history))))
            history.append(replace(result, skipped=skipped))
            if world.is_main:
                _record(out, run, trainee, history, evaluated_part(source))
                progress(history[-1])
        if world.is_main:
            write_history(out / HISTORY, run.as_dict(), history, recipe.epochs)
            metadata = _metadata(run, history[-1], evaluated_part(source), "none; the last epoch")
            write_weights(out / WEIGHTS, trainee.network, metadata)
        return history


@dataclass(frozen=True, eq=False)
class _Trainee:
    """Network and optimizer of a training.

    Attributes:
        network: Network that is trained.
        replica: The same network, with its gradients averaged over the processes.
        optimizer: Optimizer of the network's parameters.
        parts: Parts whose states a checkpoint keeps, by name.
    """

    network: nn.Module
    replica: nn.Module
    optimizer: Optimizer
    parts: Mapping[str, Stateful]


def _fit(architecture: Architecture, source: Source, input_size: int | None) -> Architecture:
    """Return the architecture for the source's classes and image size; refuse maps that get too small."""
    size = architecture.input_size if input_size is None else input_size
    if not 1 <= size <= 10_000:
        raise InputError(f"input_size: {size} is not from 1 to 10,000")
    fitted = replace(architecture, input_size=size, num_classes=len(source.classes))
    try:
        fitted.cost()
    except ValueError as error:
        raise InputError(f"{error}, from images of {size} pixels; try a larger --input-size") from error
    return fitted


def _share(batch_size: int, processes: int) -> int:
    if batch_size % processes or batch_size < 2 * processes:
        raise InputError(
            f"batch_size: {batch_size} is not from 2 up"
            if processes == 1
            else f"batch_size: {batch_size} does not give each of {processes} processes equally many images, "
            "at least 2"
        )
    return batch_size // processes


def _prepare(
    architecture: Architecture, recipe: Recipe, seed: int, checkpoint: Checkpoint | None, world: World
) -> _Trainee:
    network = build(architecture, seed=seed)
    network.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = SGD(
        network.parameters(),
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=True,
    )
    parts: dict[str, Stateful] = {"model": network, "optimizer": optimizer}
    if checkpoint:
        checkpoint.restore(parts)
    return _Trainee(network, world.replicate(network), optimizer, parts)


def _epoch(
    epoch: int, trainee: _Trainee, stream: Stream, run: Run, dtype: torch.dtype, world: World
) -> EpochResult:
    start = time.monotonic()
    steps = min(len(stream.train), run.limit_batches or len(stream.train))
    rates = [run.recipe.rate_at(epoch + step / steps) for step in range(steps)]
    batches = islice(stream.training(epoch), steps)
    smoothing = run.recipe.label_smoothing
    try:
        loss = train_epoch(
            trainee.replica,
            trainee.optimizer,
            batches,
            rates,
            label_smoothing=smoothing,
            dtype=dtype,
            world=world,
        )
        world.average_buffers(trainee.network)
        counts = evaluate(trainee.network, stream.evaluation(), dtype=dtype, world=world)
    except Diverged as error:
        raise Diverged(f"epoch {epoch + 1}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if explain(error).kind != "out-of-memory":
            raise
        raise StopTraining(
            f"epoch {epoch + 1}: memory ran out with {run.recipe.batch_size} images a step on {world.size} "
            "processes; try a smaller --batch-size"
        ) from error
    if not counts.images:
        raise InputError("data: none of the images to evaluate on can be decoded")
    top1, top5 = counts.top1 / counts.images, counts.top5 / counts.images
    return EpochResult(epoch + 1, rates[-1], loss, top1, top5, time.monotonic() - start, counts.images)


def _record(out: Path, run: Run, trainee: _Trainee, history: Sequence[EpochResult], part: str) -> None:
    latest = history[-1]
    # First, as it says whose the folder is as long as there is no checkpoint.
    write_history(out / HISTORY, run.as_dict(), history, run.recipe.epochs)
    if part == "validation" and latest.top1 > best_top1(history[:-1]):
        selection = f"highest top-1 of epochs so far on the {part} images, and so biased upwards"
        write_weights(out / BEST, trainee.network, _metadata(run, latest, part, selection))
    save_checkpoint(out / CHECKPOINT, run, history, trainee.parts)


def _metadata(run: Run, result: EpochResult, part: str, selection: str) -> dict[str, str]:
    """Return what it takes to use the weights, and how good they are."""
    return {
        "architecture": run.architecture,
        "classes": json.dumps(run.classes),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "epoch": str(result.epoch),
        "top1": str(result.top1),
        "evaluated_on": f"{part} images",
        "selection": selection,
    }
