"""Training loop of a proxy network: recipe, epochs, augmentation, gradient accumulation, evaluation."""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import astuple, dataclass, field
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.data import Resident
from nas_recalib.errors import Diverged
from nas_recalib.networks.backbone import GateFan
from nas_recalib.proxy.evaluation import (
    AveragedWeights,
    State,
    evaluate,
    normalise,
    recalibrate_batch_norm,
    reproducible,
)


def augment_epoch(images: Tensor, order: Tensor, flips: bool, generator: torch.Generator) -> Tensor:
    """Return images in a new order, each shifted by up to an eighth of its side and perhaps mirrored.

    Args:
        images: Images, (N, C, R, R), uint8.
        order: Index of each image to return, (M,).
        flips: Whether to mirror half of the images.
        generator: Generator of every draw, on the images' device.

    Returns:
        (M, C, R, R), uint8, channels last in memory.
    """
    side = images.shape[-1]
    reach = side // 8
    padded = F.pad(images, (reach,) * 4, mode="reflect") if reach else images
    count, device = len(order), images.device
    rows, columns = torch.randint(2 * reach + 1, (2, count), generator=generator, device=device)
    # A view of every window of every image, (N, shifts, shifts, R, R, C), from which windows are copied.
    windows = padded.permute(0, 2, 3, 1).contiguous().unfold(1, side, 1).unfold(2, side, 1)
    shifted = windows.permute(0, 1, 2, 4, 5, 3)[order, rows, columns]
    if flips:
        mirrored = (torch.rand(count, generator=generator, device=device) < 0.5)[:, None, None, None]
        shifted = torch.where(mirrored, shifted.flip(2), shifted)
    return shifted.permute(0, 3, 1, 2)


Weights = Literal["raw", "averaged"]

_AVERAGED_STEPS = 4  # steps between two updates of the averaged weights


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule and loss with which every network of a study is trained.

    Attributes:
        batch_size: Number of images in a step.
        peak_rate: Greatest learning rate, reached after the warmup and then decreased linearly.
        warmup: Fraction of the steps in which the learning rate increases linearly.
        momentum: Nesterov momentum.
        weight_decay: Weight decay of every parameter.
        label_smoothing: Label smoothing of the cross-entropy.
        gate_fan: Initialisation of the convolutions of recalibrations; see `networks.backbone.initialise`.
            Studies of versions before 0.2 do not store it; theirs is "fan_out".
        evaluated: Weights that are evaluated after each epoch: "averaged" is an exponential moving average,
            "raw" is what the optimizer holds. Studies of versions before 0.2 do not store it; theirs is
            "raw".
    """

    batch_size: int = 64
    peak_rate: float = 0.05
    warmup: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    gate_fan: GateFan = field(default="fan_in", repr=False)
    evaluated: Weights = field(default="averaged", repr=False)


def default_recipe(images: int) -> Recipe:
    """Return a recipe for a number of training images: small sets take smaller batches, for enough steps."""
    return Recipe() if images >= 2500 else Recipe(batch_size=32)


@dataclass(frozen=True)
class Epoch:
    """Result of an epoch.

    Attributes:
        number: Number of the epoch, from 1.
        loss: Mean training loss.
        accuracy: Accuracy on the validation images, 0 to 1.
        val_loss: Mean cross-entropy on the validation images, without label smoothing; None in checkpoints
            of versions before 0.2.
        raw: Accuracy and cross-entropy of the raw weights, where they are evaluated besides averaged ones.
    """

    number: int
    loss: float
    accuracy: float
    val_loss: float | None = None
    raw: tuple[float, float] | None = None


class Training:
    """Short training of a network on images in memory; a seed fixes batches and augmentation.

    Iterating trains an epoch at a time. After any epoch the training can be interrupted, and another one of
    the same network, data, epochs, seed and recipe resumes from its state bit for bit. The schedule always
    spans all epochs, so that a training paused at a rung of successive halving is a prefix of the full one.

    Args:
        network: Network to train, moved to the data's device.
        data: Training and validation images.
        epochs: Number of passes over the training images.
        seed: Seed of shuffling and augmentation.
        dtype: Data type of convolutions and products; float32 switches autocast off.
        recipe: Optimizer, schedule and loss.
        memory_format: Memory format of the weights.
        micro_batches: Number of parts of a batch that does not fit into memory. Their gradients are
            accumulated, so that learning rates, steps and the order of images stay the same; only batch norm
            takes its statistics from each part. A state may be resumed with another number.
        with_raw: Whether to evaluate the raw weights as well, where the recipe evaluates averaged ones.
        before_step: Function that is called before every step with its number, from 0.

    Attributes:
        curve: Results of the epochs so far.

    Raises:
        Diverged: From iterating, if a loss is not finite.
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
        micro_batches: int = 1,
        with_raw: bool = False,
        before_step: Callable[[int], None] | None = None,
    ) -> None:
        if micro_batches < 1:
            raise ValueError(f"micro_batches: {micro_batches} is not at least 1")
        self.curve: list[Epoch] = []
        self._data = data
        self._epochs = epochs
        self._dtype = dtype
        self._recipe = recipe
        self._micro_batches = micro_batches
        self._with_raw = with_raw
        self._before_step = before_step
        self._generator = torch.Generator(data.train_images.device).manual_seed(seed)
        layout: dict[str, Any] = {"device": data.train_images.device, "memory_format": memory_format}
        self._network = network.to(**layout)
        self._optimizer = make_optimizer(self._network, recipe)
        self._average = AveragedWeights(self._network) if recipe.evaluated == "averaged" else None

    def __iter__(self) -> Iterator[Epoch]:
        while len(self.curve) < self._epochs:
            number = len(self.curve) + 1
            loss = self.train_epoch()
            if not math.isfinite(loss):
                raise Diverged(f"the training loss is {loss} in epoch {number}")
            accuracy, val_loss, raw = *self._evaluate(), None
            if self._average is not None and self._with_raw:
                raw = evaluate(self._network, self._data, self._dtype, self._micro_batches)
            if not math.isfinite(val_loss):
                raise Diverged(f"the validation loss is {val_loss} in epoch {number}")
            self.curve.append(Epoch(number, loss, accuracy, val_loss, raw))
            yield self.curve[-1]

    def _evaluate(self) -> tuple[float, float]:
        """Return accuracy and loss of the weights that the recipe evaluates."""
        settings = (self._data, self._dtype, self._micro_batches)
        if self._average is not None:
            recalibrate_batch_norm(self._average.network, *settings)
        return evaluate(self.evaluated_network, *settings)

    @property
    def evaluated_network(self) -> nn.Module:
        """Network whose weights the recipe evaluates: the average, or what the optimizer holds."""
        return self._network if self._average is None else self._average.network

    def state_dict(self) -> State:
        """Return the state from which `load_state_dict` resumes.

        It holds tensors and plain values, which torch.load reads with weights_only. The tensors are those of
        the training, not copies.
        """
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "curve": [astuple(epoch) for epoch in self.curve],
            **({"average": self._average.state_dict()} if self._average is not None else {}),
        }

    def load_state_dict(self, state: State) -> None:
        """Resume from the state of another training, which is not modified."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(deepcopy(state["optimizer"]))  # it would keep the given tensors
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._generator.set_state(state["generator"].cpu())
        self.curve = [Epoch(*values) for values in state["curve"]]

    def close(self) -> None:
        """Release the memory of the network and the optimizer; the curve stays."""
        del self._network, self._optimizer, self._average

    def train_epoch(self) -> float:
        """Train for one pass over the training images and return the mean loss.

        It waits for the device only once, at the end.
        """
        self._network.train()
        total, steps = torch.zeros((), device=self._data.train_images.device), 0
        per_epoch = len(self._data.train_labels) // self._batch
        between = min(_AVERAGED_STEPS, per_epoch)
        settings = (self._dtype, self._recipe, self._micro_batches)
        with reproducible():
            for rate, (images, labels) in zip(self._rates(), self._batches(), strict=True):
                self._optimizer.param_groups[0]["lr"] = rate
                if self._before_step is not None:
                    self._before_step(len(self.curve) * per_epoch + steps)
                total += train_step(self._network, self._optimizer, images, labels, *settings)
                steps += 1
                if self._average is not None and steps % between == 0:
                    self._average.update(self._network)
        return total.item() / steps

    def _rates(self) -> Iterator[float]:
        """Return the learning rates of the next epoch's steps."""
        steps = len(self._data.train_labels) // self._batch
        rates = one_cycle(self._epochs * steps, self._recipe.peak_rate, self._recipe.warmup)
        return islice(rates, len(self.curve) * steps, (len(self.curve) + 1) * steps)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the next epoch's batches of normalised images and labels, dropping a partial one."""
        data, batch = self._data, self._batch
        count = len(data.train_labels)
        order = torch.randperm(count, generator=self._generator, device=data.train_labels.device)
        order = order[: count // batch * batch]
        images = augment_epoch(data.train_images, order, data.flips, self._generator)
        for chunk, labels in zip(images.split(batch), data.train_labels[order].split(batch), strict=True):
            yield normalise(chunk, data), labels

    @property
    def _batch(self) -> int:
        return min(self._recipe.batch_size, len(self._data.train_labels))


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer of a network that is on its device already."""
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
        fused=True,
    )
    for weight in optimizer.param_groups[0]["params"]:  # in a supernet, some have no gradient at first
        optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype,
    recipe: Recipe,
    micro_batches: int = 1,
) -> Tensor:
    """Take one step on a batch of normalised images, with gradient accumulation over micro-batches.

    Returns:
        The mean loss, on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    count = min(micro_batches, len(labels))
    total = torch.zeros((), device=images.device)
    for chunk, targets in zip(images.tensor_split(count), labels.tensor_split(count), strict=True):
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            logits = network(chunk)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)
        share = torch.full_like(loss, len(targets) / len(labels))
        loss.backward(share)
        total += share * loss.detach()
    optimizer.step()
    return total


def one_cycle(steps: int, peak: float, warmup: float) -> Iterator[float]:
    """Yield learning rates that increase linearly to the peak and decrease linearly towards zero."""
    warm = max(1, round(steps * warmup))
    for step in range(steps):
        yield peak * ((step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm + 1))
