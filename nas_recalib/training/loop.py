"""Training of an exported architecture at full size: resumable, in one process or many."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from nas_recalib.architecture import Architecture, build
from nas_recalib.data.sources import Source
from nas_recalib.data.streaming import MEAN, STD, Stream, open_stream
from nas_recalib.errors import Diverged, InputError
from nas_recalib.training.checkpoint import Checkpoint, Run, Stateful, load_checkpoint, save_checkpoint
from nas_recalib.training.distributed import World, join_world
from nas_recalib.training.epoch import evaluate, train_epoch
from nas_recalib.training.recipe import Recipe
from nas_recalib.training.results import EpochResult, best_top1, write_history, write_weights


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
    progress: Callable[[EpochResult], None] = lambda _: None,
) -> list[EpochResult]:
    """Trains an architecture, going on from `out/checkpoint.pt` where there is one.

    Under torchrun every process calls this; all return the same, and the main one writes: after each epoch
    `checkpoint.pt` and `history.json`, after the best so far `best.safetensors`, at the end
    `weights.safetensors`.

    Args:
        architecture: What to train, for as many classes as the source has.
        source: Images.
        out: Folder for what is written; made if missing.
        recipe: How.
        device: What to train on; under torchrun "cuda" stands for each process's own GPU.
        dtype: Of convolutions and products (`device.fast_dtype`); float32 switches autocast off.
        seed: Of weights, order, augmentation and, if the source has no held-out part, the split.
        workers: Processes that decode images, for each process that trains.
        input_size: Side of the images in pixels (default: the architecture's).
        limit_batches: Most batches an epoch, in training and in evaluation, for a quick look.
        progress: Called in the main process after each epoch, once it is saved.

    Returns:
        Results of all epochs, those of earlier calls among them.

    Raises:
        InputError: If images, architecture, recipe or checkpoint do not fit each other.
        Diverged: If the loss stops being finite.
    """
    with join_world(device) as world, torch.backends.cudnn.flags(enabled=True, benchmark=True):
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
        )
        fingerprint = world.from_main(source.fingerprint)
        run = Run(str(fitted), recipe, source.spec, fingerprint, source.classes, seed, limit_batches)
        checkpoint = world.from_main(lambda: _open(out, run))
        trainee = _prepare(fitted, recipe, seed, checkpoint, world)
        history = list(checkpoint.history) if checkpoint else []
        for epoch in range(len(history), recipe.epochs):
            history.append(_epoch(epoch, trainee, stream, run, dtype, world))
            if world.is_main:
                _record(out, run, trainee, history)
                progress(history[-1])
        if world.is_main:
            write_weights(out / "weights.safetensors", trainee.network, _metadata(run, history[-1]))
        return history


@dataclass(frozen=True, eq=False)
class _Trainee:
    """What is trained and what trains it.

    Attributes:
        network: The network itself.
        replica: The same, with its gradients averaged over the processes.
        optimizer: Of its parameters.
        parts: What a checkpoint keeps.
    """

    network: nn.Module
    replica: nn.Module
    optimizer: Optimizer
    parts: Mapping[str, Stateful]


def _fit(architecture: Architecture, source: Source, input_size: int | None) -> Architecture:
    """The architecture for the source's classes and the wanted images; refused if a map gets too small."""
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
            f"batch_size: {batch_size} does not give {processes} processes equally many, at least 2"
        )
    return batch_size // processes


def _open(out: Path, run: Run) -> Checkpoint | None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made a folder: {error.strerror}") from error
    return load_checkpoint(out / "checkpoint.pt", run)


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
    except Diverged as error:
        raise Diverged(f"epoch {epoch + 1}: {error}") from None
    world.average_buffers(trainee.network)
    batches = islice(stream.evaluation(), run.limit_batches)
    counts = evaluate(trainee.network, batches, dtype=dtype, world=world)
    top1, top5 = counts.top1 / counts.images, counts.top5 / counts.images
    return EpochResult(epoch + 1, rates[-1], loss, top1, top5, time.monotonic() - start)


def _record(out: Path, run: Run, trainee: _Trainee, history: Sequence[EpochResult]) -> None:
    latest = history[-1]
    if latest.top1 > best_top1(history[:-1]):
        write_weights(out / "best.safetensors", trainee.network, _metadata(run, latest))
    write_history(out / "history.json", run.as_dict(), history)
    save_checkpoint(out / "checkpoint.pt", run, history, trainee.parts)


def _metadata(run: Run, result: EpochResult) -> dict[str, str]:
    """What it takes to use the weights, and how good they are."""
    return {
        "architecture": run.architecture,
        "classes": json.dumps(run.classes),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "epoch": str(result.epoch),
        "top1": str(result.top1),
    }
