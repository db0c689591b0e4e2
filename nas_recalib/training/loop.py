"""Full-size training of an architecture: the training loop, resumable, in one process or many."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from nas_recalib.architecture import Architecture, build
from nas_recalib.data.sources import Source
from nas_recalib.data.streaming import Batch, Stream, evaluated_part, normalise, open_stream
from nas_recalib.errors import Diverged, InputError, StopTraining
from nas_recalib.proxy.objective import explain
from nas_recalib.training.checkpoint import (
    EpochResult,
    Run,
    Stateful,
    locked_folder,
    open_folder,
    skipped_images,
    write_epoch,
    write_result,
)
from nas_recalib.training.distributed import World, join_world
from nas_recalib.training.recipe import Recipe

_CHECK_EVERY = 50  # steps: reading the loss synchronises with the device and the other processes


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
    """Train an architecture, and resume from `out/checkpoint.pt` if it exists.

    Under torchrun every process calls this; all return the same, and the main one writes: after each epoch
    `checkpoint.pt` and `history.json`, at the end `weights.safetensors`. The last epoch is the result, as
    the held-out images, on which results are reported, must not select an epoch. Only if the source has none,
    and validation images are split from the training images, the epoch with the highest validation accuracy
    is written to `best.safetensors`.

    Args:
        architecture: Architecture to train, for as many classes as the source has.
        source: Images to train and evaluate on.
        out: Output folder; created if missing.
        recipe: Hyperparameters.
        device: Device to train on; under torchrun "cuda" stands for each process's own GPU.
        dtype: Data type of convolutions and matrix products (`device.fast_dtype`); float32 disables autocast.
        seed: Seed of weights, order, augmentation and, if the source has no held-out part, the split.
        workers: Number of processes that decode images, per training process.
        input_size: Side of the images in pixels (default: the architecture's).
        limit_batches: Greatest number of training batches per epoch, for a quick test; evaluation is then
            limited to as many images, drawn from each class in proportion to its size.
        corrupt: Treatment of images that cannot be decoded, "refuse" or "skip"; see `open_stream`.
        progress: Function that is called in the main process after each epoch, once it is saved.

    Returns:
        Results of all epochs, including those before the training was resumed.

    Raises:
        InputError: If images, architecture, recipe or checkpoint do not fit each other, or the folder cannot
            be written to or has other files.
        Diverged: If the loss stops being finite.
        StopTraining: If memory runs out, or another process ends.
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
            _batch_size_per_process(recipe.batch_size, world.size),
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
        network = build(fitted, seed=seed)
        network.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = SGD(
            network.parameters(),
            lr=recipe.peak_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
            fused=True,
        )
        states: dict[str, Stateful] = {"model": network, "optimizer": optimizer}
        if checkpoint:
            checkpoint.restore(states)
        replica, part = world.replicate(network), evaluated_part(source)
        history = list(checkpoint.history) if checkpoint else []
        for epoch in range(len(history), recipe.epochs):
            result = _run_epoch(epoch, network, replica, optimizer, stream, run, dtype, world)
            faults = world.union(stream.faults())
            stream.refuse_lost_classes(faults, source.classes)
            skipped = tuple(sorted(set(faults.values()) - set(skipped_images(history))))
            history.append(replace(result, skipped=skipped))
            if world.is_main:
                write_epoch(out, run, states, history, part)
                progress(history[-1])
        if world.is_main:
            write_result(out, run, network, history, part)
        return history


def _fit(architecture: Architecture, source: Source, input_size: int | None) -> Architecture:
    """Return the architecture for the source's classes and the image size, if it works with that size."""
    size = architecture.input_size if input_size is None else input_size
    if not 1 <= size <= 10_000:
        raise InputError(f"input_size: {size} is not from 1 to 10,000")
    fitted = replace(architecture, input_size=size, num_classes=len(source.classes))
    try:
        fitted.cost()
    except ValueError as error:
        raise InputError(f"{error}, from images of {size} pixels; try a larger --input-size") from error
    return fitted


def _batch_size_per_process(batch_size: int, processes: int) -> int:
    if batch_size >= 2 * processes and batch_size % processes == 0:
        return batch_size // processes
    required = (
        "at least 2" if processes == 1 else f"at least 2 for each of {processes} processes, equally many"
    )
    raise InputError(f"batch_size: {batch_size} is not {required}")


def _run_epoch(
    epoch: int,
    network: nn.Module,
    replica: nn.Module,
    optimizer: Optimizer,
    stream: Stream,
    run: Run,
    dtype: torch.dtype,
    world: World,
) -> EpochResult:
    """Train the replica for an epoch, then evaluate the network, whose weights it shares."""
    start = time.monotonic()
    steps = min(len(stream.train), run.limit_batches or len(stream.train))
    rates = [run.recipe.rate_at(epoch + step / steps) for step in range(steps)]
    batches = islice(stream.training(epoch), steps)
    smoothing = run.recipe.label_smoothing
    options: dict[str, Any] = {"dtype": dtype, "world": world}
    try:
        loss = train_epoch(replica, optimizer, batches, rates, label_smoothing=smoothing, **options)
        world.average_buffers(network)
        counts = evaluate(network, stream.evaluation(), **options)
    except Diverged as error:
        raise Diverged(f"epoch {epoch + 1}: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if explain(error).kind != "out-of-memory":
            raise
        raise StopTraining(
            f"epoch {epoch + 1}: memory ran out with a batch size of {run.recipe.batch_size} on {world.size} "
            "processes; try a smaller --batch-size"
        ) from error
    if not counts.images:
        raise InputError("data: none of the evaluation images can be decoded")
    top1, top5 = counts.top1 / counts.images, counts.top5 / counts.images
    return EpochResult(epoch + 1, rates[-1], loss, top1, top5, time.monotonic() - start, counts.images)


@dataclass(frozen=True)
class Counts:
    """Number of evaluation images, and of correct top-1 and top-5 predictions, over all processes."""

    images: int
    top1: int
    top5: int


def train_epoch(
    network: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[Batch],
    rates: Sequence[float],
    *,
    label_smoothing: float,
    dtype: torch.dtype,
    world: World,
) -> float:
    """Train on one batch per learning rate.

    Args:
        network: Network on the world's device, replicated over its processes.
        optimizer: Optimizer of the network's parameters.
        batches: Batches of this process, as many as rates.
        rates: Learning rate of each step.
        label_smoothing: Label smoothing of the cross-entropy.
        dtype: Data type of convolutions and matrix products; float32 disables autocast.
        world: Processes that train together.

    Returns:
        Mean training loss over all processes.

    Raises:
        Diverged: In every process, if the loss stops being finite.
    """
    network.train()
    total = torch.zeros((), device=world.device)
    for step, ((images, labels), rate) in enumerate(zip(batches, rates, strict=True), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = _logits(network, images, dtype, world.device)
        targets = labels.to(world.device, non_blocking=True)
        loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach()
        if step % _CHECK_EVERY == 0 or step == len(rates):
            mean = world.sum(total).item() / (step * world.size)
            if not math.isfinite(mean):
                raise Diverged(f"the training loss is {mean} after {step} of {len(rates)} steps")
    return mean


@torch.no_grad()
def evaluate(network: nn.Module, batches: Iterable[Batch], *, dtype: torch.dtype, world: World) -> Counts:
    """Count the correct predictions of a network.

    Args:
        network: Network on the world's device; not replicated, as processes may have unequal shares.
        batches: Batches of this process.
        dtype: Data type of convolutions and matrix products, as in training.
        world: Processes that evaluate together.
    """
    network.eval()
    counts = torch.zeros(3, dtype=torch.int64, device=world.device)
    for images, labels in batches:
        logits = _logits(network, images, dtype, world.device)
        predictions = logits.topk(min(5, logits.shape[1])).indices
        correct = predictions == labels.to(world.device, non_blocking=True)[:, None]
        counts[0] += len(labels)
        counts[1] += correct[:, 0].sum()
        counts[2] += correct.sum()
    return Counts(*world.sum(counts).tolist())


def _logits(network: nn.Module, images: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        logits: Tensor = network(normalise(images))
    return logits.float()
