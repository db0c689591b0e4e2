"""Training of a proxy network on resident images: steps, epochs, augmentation, evaluation."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import astuple, dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.data import Resident
from nas_recalib.errors import Diverged
from nas_recalib.networks.backbone import GateFan


def augment_epoch(images: Tensor, order: Tensor, flips: bool, generator: torch.Generator) -> Tensor:
    """Shuffled images, each shifted by up to an eighth of its side and perhaps mirrored.

    Args:
        images: (N, C, R, R), uint8.
        order: Which image comes when, (M,).
        flips: Whether to mirror half of them.
        generator: On the images' device; owns every draw.

    Returns:
        (M, C, R, R), uint8, channels last in memory.
    """
    side = images.shape[-1]
    reach = side // 8
    padded = F.pad(images, (reach,) * 4, mode="reflect") if reach else images
    count, device = len(order), images.device
    rows, columns = torch.randint(2 * reach + 1, (2, count), generator=generator, device=device)
    # Every window of every image, (N, shifts, shifts, R, R, C): a view, of which whole windows are taken.
    windows = padded.permute(0, 2, 3, 1).contiguous().unfold(1, side, 1).unfold(2, side, 1)
    picked = windows.permute(0, 1, 2, 4, 5, 3)[order, rows, columns]
    if flips:
        mirrored = (torch.rand(count, generator=generator, device=device) < 0.5)[:, None, None, None]
        picked = torch.where(mirrored, picked.flip(2), picked)
    return picked.permute(0, 3, 1, 2)


State = Mapping[str, Any]  # tensors and plain values, by name


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
        gate_fan: How the convolutions of recalibrations are drawn; see `networks.backbone.initialise`.
            Studies of versions before 0.2 do not say; theirs is "fan_out".
    """

    batch_size: int = 64
    peak_rate: float = 0.05
    warmup: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    gate_fan: GateFan = field(default="fan_in", repr=False)


def default_recipe(images: int) -> Recipe:
    """A recipe for a set of that many images: small sets take smaller batches, for enough steps."""
    return Recipe() if images >= 2500 else Recipe(batch_size=32)


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


class Training:
    """A short training of a network on resident images; one seed fixes batches and augmentation.

    Iterating trains an epoch at a time. After any of them it can be left, and another one of the same
    network, data, epochs, seed and recipe goes on from its state bit for bit as if it had not been: the
    schedule is always that of all epochs, so that a rung of a ladder is a part of the way and not a way of
    its own.

    Args:
        network: On the data's device.
        data: Training and validation images.
        epochs: Passes over the training images.
        seed: Of shuffling and augmentation.
        dtype: Of convolutions and products; float32 switches autocast off.
        recipe: The rest.
        memory_format: Of the weights.
        parts: What a batch is split into where it does not fit into memory as a whole. Their gradients add up
            to the batch's, so that rates, steps and the order of images stay the same; only the statistics
            of batch normalisation are the parts' own. A state goes on in another number of parts, too.

    Attributes:
        curve: The epochs trained.

    Raises:
        Diverged: From iterating, if the loss stops being finite.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Resident,
        epochs: int,
        *,
        seed: int,
        dtype: torch.dtype,
        recipe: Recipe,
        memory_format: torch.memory_format = torch.channels_last,
        parts: int = 1,
    ) -> None:
        if parts < 1:
            raise ValueError(f"parts: {parts} is not at least 1")
        self.curve: list[Epoch] = []
        self._data = data
        self._epochs = epochs
        self._dtype = dtype
        self._recipe = recipe
        self._parts = parts
        self._generator = torch.Generator(data.train_images.device).manual_seed(seed)
        layout: dict[str, Any] = {"device": data.train_images.device, "memory_format": memory_format}
        self._network = network.to(**layout)
        self._optimizer = make_optimizer(self._network, recipe)

    def __iter__(self) -> Iterator[Epoch]:
        while len(self.curve) < self._epochs:
            number = len(self.curve) + 1
            loss = self.train_epoch()
            if not math.isfinite(loss):
                raise Diverged(f"the training loss is {loss} in epoch {number}")
            right = accuracy(self._network, self._data, self._dtype, self._parts)
            self.curve.append(Epoch(number, loss, right))
            yield self.curve[-1]

    def state_dict(self) -> State:
        """Everything that going on needs; tensors and plain values, that torch.load takes with weights_only.

        The tensors are the training's own, not copies.
        """
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "curve": [astuple(epoch) for epoch in self.curve],
        }

    def load_state_dict(self, state: State) -> None:
        """Goes on from where another training was left; the state itself stays as it is."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(deepcopy(state["optimizer"]))  # it would take the tensors themselves
        self._generator.set_state(state["generator"].cpu())
        self.curve = [Epoch(*told) for told in state["curve"]]

    def close(self) -> None:
        """Lets go of the network and of the optimizer's memory; the curve stays."""
        del self._network, self._optimizer

    def train_epoch(self) -> float:
        """One pass over the training images; waits for the device once, at its end.

        Returns:
            The mean loss.
        """
        self._network.train()
        total, steps = torch.zeros((), device=self._data.train_images.device), 0
        given = (self._dtype, self._recipe, self._parts)
        with reproducible():
            for rate, (images, labels) in zip(self._rates(), self._batches(), strict=True):
                self._optimizer.param_groups[0]["lr"] = rate
                total += train_step(self._network, self._optimizer, images, labels, *given)
                steps += 1
        return total.item() / steps

    def _rates(self) -> Iterator[float]:
        """Of the next epoch's steps."""
        steps = len(self._data.train_labels) // self._batch
        rates = one_cycle(self._epochs * steps, self._recipe.peak_rate, self._recipe.warmup)
        return islice(rates, len(self.curve) * steps, (len(self.curve) + 1) * steps)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Of the next epoch, normalised; a last partial one is left for another epoch."""
        data, batch = self._data, self._batch
        count = len(data.train_labels)
        order = torch.randperm(count, generator=self._generator, device=data.train_labels.device)
        order = order[: count // batch * batch]
        images = augment_epoch(data.train_images, order, data.flips, self._generator)
        for some, labels in zip(images.split(batch), data.train_labels[order].split(batch), strict=True):
            yield normalise(some, data), labels

    @property
    def _batch(self) -> int:
        return min(self._recipe.batch_size, len(self._data.train_labels))


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


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype,
    recipe: Recipe,
    parts: int = 1,
) -> Tensor:
    """One step on normalised images, taken in so many parts; its loss is left on the device."""
    optimizer.zero_grad(set_to_none=True)
    parts = min(parts, len(labels))
    total = torch.zeros((), device=images.device)
    for some, named in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            logits = network(some)
        loss = F.cross_entropy(logits.float(), named, label_smoothing=recipe.label_smoothing)
        share = torch.full_like(loss, len(named) / len(labels))
        loss.backward(share)
        total += share * loss.detach()
    optimizer.step()
    return total


def one_cycle(steps: int, peak: float, warmup: float) -> Iterator[float]:
    """Learning rates that climb linearly to the peak and fall linearly to nothing."""
    rising = max(1, round(steps * warmup))
    for step in range(steps):
        yield peak * ((step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising + 1))


@torch.no_grad()
def accuracy(network: nn.Module, data: Resident, dtype: torch.dtype, parts: int = 1) -> float:
    """Share of the validation images that are named right, 0 to 1; `parts` divides the memory it takes."""
    network.eval()
    device = data.val_images.device
    right = torch.zeros((), dtype=torch.int64, device=device)
    batch = math.ceil(500 / parts)
    for images, labels in zip(data.val_images.split(batch), data.val_labels.split(batch), strict=True):
        shown = normalise(images, data).contiguous(memory_format=torch.channels_last)
        with reproducible(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            right += (network(shown).argmax(1) == labels).sum()
    return right.item() / len(data.val_labels)


def normalise(images: Tensor, data: Resident) -> Tensor:
    """uint8 images to zero mean and unit deviation a channel."""
    return (images - data.mean[:, None, None]) / data.std[:, None, None]
