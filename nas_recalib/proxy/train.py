"""Short training of a network on resident images: what a trial is made of."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.data import Resident
from nas_recalib.errors import Diverged
from nas_recalib.proxy.augment import augment_epoch


@dataclass(frozen=True)
class Recipe:
    """How every network of a study is trained.

    Attributes:
        batch_size: Images a step.
        peak_rate: Greatest learning rate, reached after `warmup` of the steps and let down linearly.
        warmup: Share of the steps.
        momentum: Of Nesterov's kind.
        weight_decay: On every parameter.
        label_smoothing: Of the cross-entropy.
    """

    batch_size: int = 64
    peak_rate: float = 0.05
    warmup: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1


def default_recipe(images: int) -> Recipe:
    """A recipe for a set of that many images: small sets take smaller batches, for enough steps."""
    return Recipe() if images >= 5000 else Recipe(batch_size=32)


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to.

    Attributes:
        number: From 1.
        loss: Mean training loss.
        accuracy: On the validation images, 0 to 1.
    """

    number: int
    loss: float
    accuracy: float


def train_proxy(
    network: nn.Module,
    data: Resident,
    epochs: int,
    *,
    seed: int,
    dtype: torch.dtype,
    recipe: Recipe,
    report: Callable[[Epoch], bool],
) -> list[Epoch]:
    """Trains a network on resident images; one seed fixes batches and augmentation.

    Args:
        network: On the data's device.
        data: Training and validation images.
        epochs: Passes over the training images.
        seed: Of shuffling and augmentation.
        dtype: Of convolutions and products; float32 switches autocast off.
        recipe: The rest.
        report: Called after every epoch; a true answer ends the training there.

    Returns:
        The epochs trained.

    Raises:
        Diverged: If the loss stops being finite.
    """
    device = data.train_images.device
    generator = torch.Generator(device).manual_seed(seed)
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, recipe)
    batch = min(recipe.batch_size, len(data.train_labels))
    rates = one_cycle(epochs * (len(data.train_labels) // batch), recipe.peak_rate, recipe.warmup)
    curve: list[Epoch] = []
    with reproducible():
        for number in range(1, epochs + 1):
            loss = train_epoch(network, optimizer, data, rates, generator, batch, dtype, recipe)
            if not math.isfinite(loss):
                raise Diverged(f"the training loss is {loss} in epoch {number}")
            curve.append(Epoch(number, loss, accuracy(network, data, dtype)))
            if report(curve[-1]):
                break
    return curve


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Of a network that lies where it will be trained."""
    return torch.optim.SGD(
        network.parameters(),
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
        fused=True,
    )


def reproducible() -> AbstractContextManager[None]:
    """Has cuDNN take the same convolutions every time."""
    flags = {"enabled": True, "benchmark": False, "deterministic": True}
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(**flags)
    return context


def one_cycle(steps: int, peak: float, warmup: float) -> Iterator[float]:
    """Learning rates that climb linearly to the peak and fall linearly to nothing."""
    rising = max(1, round(steps * warmup))
    for step in range(steps):
        yield peak * ((step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising + 1))


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Resident,
    rates: Iterator[float],
    generator: torch.Generator,
    batch: int,
    dtype: torch.dtype,
    recipe: Recipe,
) -> float:
    """One pass; waits for the device once, at its end. A last partial batch is left for another epoch.

    Returns:
        The mean loss.
    """
    network.train()
    device = data.train_images.device
    order = torch.randperm(len(data.train_labels), generator=generator, device=device)
    order = order[: len(order) // batch * batch]
    images = augment_epoch(data.train_images, order, data.flips, generator)
    labels = data.train_labels[order]
    total = torch.zeros((), device=device)
    for batch_images, batch_labels in zip(images.split(batch), labels.split(batch), strict=True):
        optimizer.param_groups[0]["lr"] = next(rates)
        total += train_step(network, optimizer, normalise(batch_images, data), batch_labels, dtype, recipe)
    return total.item() / max(1, len(order) // batch)


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype,
    recipe: Recipe,
) -> Tensor:
    """One step on normalised images; its loss is left on the device."""
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        logits = network(images)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def accuracy(network: nn.Module, data: Resident, dtype: torch.dtype) -> float:
    """Share of the validation images that are named right, 0 to 1."""
    network.eval()
    device = data.val_images.device
    right = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in zip(data.val_images.split(500), data.val_labels.split(500), strict=True):
        batch = normalise(images, data).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            right += (network(batch).argmax(1) == labels).sum()
    return right.item() / len(data.val_labels)


def normalise(images: Tensor, data: Resident) -> Tensor:
    """uint8 images to zero mean and unit deviation a channel."""
    return (images - data.mean[:, None, None]) / data.std[:, None, None]
