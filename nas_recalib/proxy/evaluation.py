"""Evaluation of a proxy network: averaged weights, recalibrated batch norm, accuracy and loss."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from nas_recalib.data import Resident

State = Mapping[str, Any]  # tensors and plain values, by name

_AVERAGE_DECAY = 0.9
_EVALUATED = 500  # images in a batch that is evaluated
_RECALIBRATION = 1000  # training images from which batch norm of averaged weights takes its statistics


def reproducible() -> AbstractContextManager[None]:
    """Return a context in which cuDNN chooses deterministic convolutions."""
    flags = {"enabled": True, "benchmark": False, "deterministic": True}
    context: AbstractContextManager[None] = torch.backends.cudnn.flags(**flags)
    return context


class AveragedWeights:
    """Running average of a network's weights: the mean of the first ten, exponential from then on.

    Args:
        network: Network, on its device.

    Attributes:
        network: Copy of the network with the averaged weights. Its buffers are those of the last update, so
            that batch norm has to be recalibrated before it is evaluated.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = deepcopy(network)
        self._updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the present weights of the network into the average, without waiting for the device."""
        self._updates += 1
        weight = max(1 - _AVERAGE_DECAY, 1 / self._updates)
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)
        for mine, other in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(other)

    def state_dict(self) -> State:
        return {"network": self.network.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        self._updates = state["updates"]


def recalibrate_batch_norm(
    network: nn.Module,
    data: Resident,
    dtype: torch.dtype,
    micro_batches: int = 1,
    images: int = _RECALIBRATION,
) -> None:
    """Replace the running statistics of batch norm by those of training images, without augmentation.

    Args:
        network: Network whose statistics are replaced.
        data: Images, of which the same ones are taken each time, evenly from all.
        dtype: Data type of convolutions and products.
        micro_batches: Number of parts of each batch, which divides the memory it takes.
        images: Number of images.
    """
    count = len(data.train_labels)
    generator = torch.Generator().manual_seed(0)  # unshuffled images may be sorted by class
    chosen = torch.randperm(count, generator=generator)[:images].to(data.train_images.device)
    device = data.train_images.device.type
    with reproducible(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        update_bn(_inputs(data.train_images[chosen], data, micro_batches), network)


@torch.no_grad()
def evaluate(
    network: nn.Module, data: Resident, dtype: torch.dtype, micro_batches: int = 1
) -> tuple[float, float]:
    """Return accuracy (0 to 1) and mean cross-entropy on the validation images.

    Micro-batches divide the memory that it takes.
    """
    network.eval()
    device = data.val_images.device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    seen = 0
    for inputs in _inputs(data.val_images, data, micro_batches):
        labels = data.val_labels[seen : seen + len(inputs)]
        seen += len(inputs)
        with reproducible(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(inputs)
        correct += (logits.argmax(1) == labels).sum()
        loss += F.cross_entropy(logits.float(), labels, reduction="sum")
    return correct.item() / len(data.val_labels), loss.item() / len(data.val_labels)


def _inputs(images: Tensor, data: Resident, micro_batches: int) -> Iterator[Tensor]:
    """Yield about equal batches of normalised images, channels last in memory."""
    for batch in images.tensor_split(math.ceil(len(images) / _EVALUATED) * micro_batches):
        if len(batch):
            yield normalise(batch, data).contiguous(memory_format=torch.channels_last)


def normalise(images: Tensor, data: Resident) -> Tensor:
    """Return uint8 images normalised to zero mean and unit deviation in each channel."""
    return (images - data.mean[:, None, None]) / data.std[:, None, None]
