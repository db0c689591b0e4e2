"""One epoch of training, and evaluation by top-1 and top-5 accuracy."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from nas_recalib.data.streaming import Batch, normalise
from nas_recalib.errors import Diverged
from nas_recalib.training.distributed import World

_CHECK_EVERY = 50  # steps: reading the loss synchronises with the device and the other processes


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
