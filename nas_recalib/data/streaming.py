"""Batches of images decoded on the fly, for full-size training.

The images of a batch, their crops and flips depend only on the seed, the epoch and the image: neither on the
number of workers or processes, nor on whether the training was interrupted.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torchvision.transforms import v2

from nas_recalib.data.resident import Indices, limit_aspect, require_corrupt, split_indices
from nas_recalib.data.sources import Images, Labels, Source
from nas_recalib.errors import InputError, StopTraining

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's channels, as used by published networks
STD = (0.229, 0.224, 0.225)

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int]  # index of an image, and seed of its augmentation
Fault = tuple[str, int]  # purpose of an image, "train on" or "evaluate on", and its index
_Example = tuple[Tensor | None, int, dict[int, str]]
_Transform = Callable[[Image.Image], Tensor]
_MOST_WORKERS = 4  # default limit of decoding processes per training process
_SUBSTITUTES = 100  # attempts to replace an image that cannot be decoded


class EpochOrder(Sampler[Key]):
    """One process's share of an epoch's images in random order; all shares have the same size.

    Args:
        indices: Indices of the images, (N,).
        seed: Seed that determines, with the epoch, the order and the seed of each image's augmentation.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(self, indices: Indices, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._indices = indices
        self._seed = seed
        self._share = slice(rank, len(indices) // world_size * world_size, world_size)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        random = np.random.default_rng((self._seed, self._epoch))
        order = random.permutation(self._indices)[self._share]
        seeds = random.integers(2**63, size=len(self._indices))[self._share]
        return zip(order.tolist(), seeds.tolist(), strict=True)

    def __len__(self) -> int:
        return len(range(len(self._indices))[self._share])


@dataclass(frozen=True, eq=False)
class Part:
    """Training part or evaluation part of a data set.

    Attributes:
        purpose: Purpose of the images in error messages, "train on" or "evaluate on".
        images: Images that the indices refer to.
        indices: Indices of the part's images, over all processes.
        loader: Data loader of this process's share.
        faults: Error message of each image that this process skipped so far, by index.
    """

    purpose: str
    images: Images
    indices: Indices
    loader: DataLoader[_Example]
    faults: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of batches of this process per epoch."""
        return len(self.loader)

    def batches(self) -> Iterator[Batch]:
        """Yield non-empty batches, and record which images were skipped."""
        try:
            for images, labels, faults in self.loader:
                self.faults.update(faults)
                if len(images):
                    yield images, labels
        except InputError as error:  # the message from a worker contains its traceback
            raise InputError(str(error).rsplit("InputError: ", 1)[-1].strip()) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise StopTraining(
                "a process that decodes images was killed, probably as memory or shared memory (/dev/shm) "
                "ran out; run the same command again with fewer --workers to resume"
            ) from error


@dataclass(frozen=True, eq=False)
class Stream:
    """Training and evaluation batches of one process.

    A batch is images (N, 3, S, S), uint8, and labels (N,).

    Attributes:
        train: Training part; the last partial batch of an epoch is dropped.
        held_out: Evaluation part, each image once.
        order: Sampler of the training images.
    """

    train: Part
    held_out: Part
    order: EpochOrder

    def training(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of an epoch."""
        self.order.set_epoch(epoch)
        return self.train.batches()

    def evaluation(self) -> Iterator[Batch]:
        """Return the evaluation batches."""
        return self.held_out.batches()

    def faults(self) -> dict[Fault, str]:
        """Return the error message of each image that this process skipped so far."""
        parts = (self.train, self.held_out)
        return {(part.purpose, index): fault for part in parts for index, fault in part.faults.items()}

    def refuse_lost_classes(self, faults: Mapping[Fault, str], classes: Sequence[str]) -> None:
        """Check that each class still has images.

        Args:
            faults: Error messages of the images that any process skipped.
            classes: Names of the classes.

        Raises:
            InputError: If all training images or all evaluation images of a class were skipped.
        """
        for part in (self.train, self.held_out):
            skipped = [index for purpose, index in faults if purpose == part.purpose]
            lost = np.bincount(part.images.labels[skipped], minlength=len(classes))
            total = np.bincount(part.images.labels[part.indices], minlength=len(classes))
            empty = np.flatnonzero((lost >= total) & (total > 0))
            if len(empty):
                name = classes[empty[0]]
                raise InputError(f"data: no image of the class {name!r} to {part.purpose} can be decoded")


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
    corrupt: str = "refuse",
    most_evaluated: int | None = None,
) -> Stream:
    """Return the batches of a source for one of the processes that train on it.

    Args:
        source: Data set. If it has no held-out part, a tenth of the training images is split off.
        input_size: Side of the images that the network receives, in pixels.
        batch_size: Batch size of this process.
        seed: Seed of the order, the augmentation and, if needed, the split.
        workers: Number of processes that decode; 0 decodes in this process.
        rank: Rank of this process.
        world_size: Number of processes that share every batch.
        pin_memory: Whether batches are put in page-locked memory, for a GPU.
        corrupt: Treatment of images that cannot be decoded: "refuse" raises InputError; "skip" replaces a
            training image by another one, so that every process still has the same number of batches, and
            does not count an evaluation image.
        most_evaluated: Greatest number of evaluation images over all processes; more are reduced to a
            stratified sample.

    Raises:
        InputError: If there are too few images, or `corrupt` is unknown.
    """
    require_corrupt(corrupt)
    train, held_out, images = divide(source, seed)
    if len(train) < batch_size * world_size:
        total = batch_size * world_size
        raise InputError(f"batch_size: {total} is more than the {len(train)} training images")
    order = EpochOrder(train, seed, rank, world_size)
    evaluated = held_out
    if most_evaluated is not None and most_evaluated < len(held_out):
        evaluated = held_out[_stratified_sample(images.labels[held_out], most_evaluated, seed)]

    def loader(views: _Views, sampler: Sampler[Key] | list[Key], drop_last: bool) -> DataLoader[_Example]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")  # many workers
            return DataLoader(
                views,
                batch_size,
                sampler=sampler,
                num_workers=workers,
                collate_fn=_collate,
                drop_last=drop_last,
                pin_memory=pin_memory,
                persistent_workers=workers > 0,
                generator=torch.Generator().manual_seed(seed),
            )

    skip = corrupt == "skip"
    train_views = _Views(source.train, training_transform(source, input_size), skip, train)
    views = _Views(images, evaluation_transform(source, input_size), skip)
    share: list[Key] = [(index, 0) for index in evaluated[rank::world_size].tolist()]
    return Stream(
        train=Part("train on", source.train, train, loader(train_views, order, drop_last=True)),
        held_out=Part("evaluate on", images, held_out, loader(views, share, drop_last=False)),
        order=order,
    )


def default_workers() -> int:
    """Return the default number of decoding processes: this process's share of the cores, at most four."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")  # started by torchrun on this machine
    return min(_MOST_WORKERS, max(1, cores // max(1, int(processes) if processes.isdecimal() else 1)))


def divide(source: Source, seed: int) -> tuple[Indices, Indices, Images]:
    """Return training indices, evaluation indices, and the images that the evaluation indices refer to.

    Raises:
        InputError: If the held-out part is empty, or there are too few images to split off validation images.
    """
    if source.held_out is None:
        labels = source.train.labels
        validation = max(len(source.classes), len(labels) // 10)
        return *split_indices(labels, None, validation, seed, source.classes), source.train
    if not len(source.held_out.labels):
        raise InputError(f"data: the held-out part of {source.spec} has no images")
    return np.arange(len(source.train.labels)), np.arange(len(source.held_out.labels)), source.held_out


def evaluated_part(source: Source) -> str:
    """Return "held-out", or "validation" if the evaluation images are split from the training images."""
    return "validation" if source.held_out is None else "held-out"


def training_transform(source: Source, input_size: int) -> _Transform:
    """Return the augmentation: random flips, and random resized crops or, for small images, padded crops."""
    flip = [v2.RandomHorizontalFlip()] if source.flips else []
    if source.native_size is None:
        return _chain(v2.RandomResizedCrop(input_size), *flip)
    size = source.native_size
    crop = v2.RandomCrop(size, padding=size // 8, padding_mode="reflect")
    return _chain(crop, *flip, *_scale(size, input_size))


def evaluation_transform(source: Source, input_size: int) -> _Transform:
    """Return the evaluation transform: a centre crop of 7/8 of the shorter side, or none for small images."""
    if source.native_size is None:
        return _chain(v2.Resize(round(input_size * 256 / 224)), v2.CenterCrop(input_size))
    return _chain(*_scale(source.native_size, input_size))


def normalise(images: Tensor) -> Tensor:
    """Normalise uint8 images (N, 3, H, W) to float32 by the channel mean and deviation of ImageNet."""
    mean, std = _statistics(images.device)
    return (images - mean) / std


class _Views(Dataset[_Example]):
    """Transformed images; the same key gives the same pixels in every process.

    Args:
        images: Images that the keys refer to.
        transform: Transform from an image to its pixels.
        skip: Whether to skip images that cannot be decoded instead of raising InputError.
        substitutes: Indices of images that may replace a skipped one; None if it is not replaced.
    """

    def __init__(
        self, images: Images, transform: _Transform, skip: bool, substitutes: Indices | None = None
    ) -> None:
        self._images = images
        self._transform = transform
        self._skip = skip
        self._substitutes = substitutes

    def __getitem__(self, key: Key) -> _Example:
        index, seed = key
        faults: dict[int, str] = {}
        for candidate in self._candidates(index, seed):
            try:
                image = limit_aspect(self._images.open(candidate))
            except InputError as error:
                if not self._skip:
                    raise InputError(f"{error}; --corrupt-images skip leaves such images out") from error
                faults[candidate] = str(error)
                continue
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # the only generator of torchvision's transforms
                return self._transform(image), int(self._images.labels[candidate]), faults
        if self._substitutes is None:
            return None, 0, faults
        raise InputError(f"data: too many images cannot be decoded, among them {faults[index]}")

    def _candidates(self, index: int, seed: int) -> Iterator[int]:
        """Yield the index of the image, then those of its substitutes."""
        yield index
        if self._substitutes is not None:
            yield from np.random.default_rng(seed).choice(self._substitutes, _SUBSTITUTES).tolist()


def _collate(examples: list[_Example]) -> tuple[Tensor, Tensor, dict[int, str]]:
    """Return a batch of the decoded images, and the error messages of the others by index."""
    faults = {index: fault for *_, found in examples for index, fault in found.items()}
    views = [(image, label) for image, label, _ in examples if image is not None]
    images, labels = default_collate(views) if views else (torch.empty(0), torch.empty(0))
    return images, labels, faults


def _stratified_sample(labels: Labels, count: int, seed: int) -> Indices:
    """Return the sorted positions of a random sample of labels, each class in proportion to its size."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + random.random()) / len(members)
    return np.sort(np.argsort(rank, kind="stable")[:count])


def _chain(*steps: v2.Transform) -> _Transform:
    transform: _Transform = v2.Compose([*steps, v2.PILToTensor()])
    return transform


def _scale(native: int, size: int) -> list[v2.Transform]:
    return [] if native == size else [v2.Resize((size, size))]


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (255 * torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    return mean, std
