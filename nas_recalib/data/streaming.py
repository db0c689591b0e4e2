"""Images decoded as they are needed, for training at full size.

Which images meet in a batch, and how each is cropped and flipped, follows from the seed, the epoch and the
image alone: not from the number of workers or processes, and not from whether the training was interrupted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from nas_recalib.data.resident import Indices, split_indices
from nas_recalib.data.sources import Images, Source
from nas_recalib.errors import InputError

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's channels, as every published network takes them
STD = (0.229, 0.224, 0.225)

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int]  # which image, and the seed of its augmentation
_Example = tuple[Tensor, int]
_Transform = Callable[[Image.Image], Tensor]


class EpochOrder(Sampler[Key]):
    """One process's share of an epoch's images in random order; every process has equally many.

    Args:
        indices: Of the images, (N,).
        seed: With the epoch, decides the order and every image's own seed.
        rank: Number of this process.
        world_size: Processes.
    """

    def __init__(self, indices: Indices, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._indices = indices
        self._seed = seed
        self._share = slice(rank, len(indices) // world_size * world_size, world_size)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next pass is."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        random = np.random.default_rng((self._seed, self._epoch))
        order = random.permutation(self._indices)[self._share]
        seeds = random.integers(2**63, size=len(self._indices))[self._share]
        return zip(order.tolist(), seeds.tolist(), strict=True)

    def __len__(self) -> int:
        return len(range(len(self._indices))[self._share])


@dataclass(frozen=True, eq=False)
class Stream:
    """Training and evaluation batches of one process.

    A batch is images (N, 3, S, S), uint8, and labels (N,).

    Attributes:
        train: Loader of the training images; a last partial batch is left for another epoch.
        held_out: Loader of this process's share of the evaluation images, none of them twice.
        order: Of the training images.
    """

    train: DataLoader[_Example]
    held_out: DataLoader[_Example]
    order: EpochOrder

    def training(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        self.order.set_epoch(epoch)
        return _batches(self.train)

    def evaluation(self) -> Iterator[Batch]:
        """The evaluation batches."""
        return _batches(self.held_out)


def open_stream(
    source: Source,
    input_size: int,
    batch_size: int,
    *,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Stream:
    """Opens a source for one of the processes that train on it.

    Args:
        source: Where images come from. If it has no held-out part, a tenth of the training images is.
        input_size: Side of the images the network sees, in pixels.
        batch_size: Images a step, of this process.
        seed: Of order, augmentation and, where one is made, the split.
        workers: Processes that decode; 0 decodes in this one.
        rank: Number of this process.
        world_size: Processes that share every batch.
        pin_memory: Whether batches wait in page-locked memory, for a GPU.

    Raises:
        InputError: If there are too few images.
    """
    train, held_out, images = divide(source, seed)
    if len(train) < batch_size * world_size:
        raise InputError(
            f"batch_size: {batch_size * world_size} is more than the {len(train)} training images"
        )
    order = EpochOrder(train, seed, rank, world_size)

    def loader(dataset: _Views, sampler: Sampler[Key] | list[Key], drop_last: bool) -> DataLoader[_Example]:
        return DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=workers,
            drop_last=drop_last,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(seed),
        )

    share: list[Key] = [(index, 0) for index in held_out[rank::world_size].tolist()]
    return Stream(
        train=loader(_Views(source.train, training_transform(source, input_size)), order, drop_last=True),
        held_out=loader(_Views(images, evaluation_transform(source, input_size)), share, drop_last=False),
        order=order,
    )


def divide(source: Source, seed: int) -> tuple[Indices, Indices, Images]:
    """Which images to train on, which to evaluate on, and the images that the latter are among.

    Raises:
        InputError: If the held-out part is empty, or there are too few images to hold some out.
    """
    if source.held_out is None:
        count = len(source.train.labels)
        train, held_out = split_indices(
            source.train.labels, None, max(len(source.classes), count // 10), seed, source.classes
        )
        return train, held_out, source.train
    if not len(source.held_out.labels):
        raise InputError(f"data: the held-out part of {source.spec} has no images")
    return np.arange(len(source.train.labels)), np.arange(len(source.held_out.labels)), source.held_out


def training_transform(source: Source, input_size: int) -> _Transform:
    """Random crop and flip: of any part for large images, by up to an eighth of the side for small ones."""
    flip = [v2.RandomHorizontalFlip()] if source.flips else []
    if source.native_size is None:
        return _chain(v2.RandomResizedCrop(input_size), *flip)
    size = source.native_size
    crop = v2.RandomCrop(size, padding=size // 8, padding_mode="reflect")
    return _chain(crop, *flip, *_scale(size, input_size))


def evaluation_transform(source: Source, input_size: int) -> _Transform:
    """The centre of a large image, seven eighths of its shorter side; the whole of a small one."""
    if source.native_size is None:
        return _chain(v2.Resize(round(input_size * 256 / 224)), v2.CenterCrop(input_size))
    return _chain(*_scale(source.native_size, input_size))


def normalise(images: Tensor) -> Tensor:
    """uint8 images (N, 3, H, W) to about zero mean and unit deviation a channel, float32, on their device."""
    mean, std = _statistics(images.device)
    return (images - mean) / std


class _Views(Dataset[_Example]):
    """Images as the network sees them; the same key gives the same pixels, in whichever process."""

    def __init__(self, images: Images, transform: _Transform) -> None:
        self._images = images
        self._transform = transform

    def __getitem__(self, key: Key) -> _Example:
        index, seed = key
        image = self._images.open(index)
        with torch.random.fork_rng(
            devices=[]
        ):  # torchvision's transforms draw from the global generator only
            torch.default_generator.manual_seed(seed)
            return self._transform(image), int(self._images.labels[index])


def _batches(loader: DataLoader[_Example]) -> Iterator[Batch]:
    try:
        yield from loader
    except InputError as error:  # from a worker it comes wrapped in that worker's traceback
        raise InputError(str(error).rsplit("InputError: ", 1)[-1].strip()) from error


def _chain(*steps: v2.Transform) -> _Transform:
    transform: _Transform = v2.Compose([*steps, v2.PILToTensor()])
    return transform


def _scale(native: int, size: int) -> list[v2.Transform]:
    return [] if native == size else [v2.Resize((size, size))]


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (255 * torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    return mean, std
