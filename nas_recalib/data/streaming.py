"""Images decoded as they are needed, for training at full size.

Which images meet in a batch, and how each is cropped and flipped, follows from the seed, the epoch and the
image alone: not from the number of workers or processes, and not from whether the training was interrupted.
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

from nas_recalib.data.decoded import limit_aspect
from nas_recalib.data.resident import CORRUPT, Indices, split_indices
from nas_recalib.data.sources import Images, Labels, Source
from nas_recalib.errors import InputError, StopTraining

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's channels, as every published network takes them
STD = (0.229, 0.224, 0.225)

Batch = tuple[Tensor, Tensor]
Key = tuple[int, int]  # which image, and the seed of its augmentation
Fault = tuple[str, int]  # what an image is for, "train on" or "evaluate on", and its index
_Example = tuple[Tensor | None, int, dict[int, str]]
_Transform = Callable[[Image.Image], Tensor]
_MOST_WORKERS = 4  # processes that decode by default, for each process that trains
_SUBSTITUTES = 100  # images drawn in place of one that cannot be decoded


class EpochOrder(Sampler[Key]):
    """One process's share of an epoch's images in random order; every process has equally many.

    Args:
        indices: Indices of the images, (N,).
        seed: Seed that decides, with the epoch, the order and every image's own seed.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(self, indices: Indices, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._indices = indices
        self._seed = seed
        self._share = slice(rank, len(indices) // world_size * world_size, world_size)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next pass is."""
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
    """Images that are trained on or evaluated on.

    Attributes:
        purpose: What the images are for, "train on" or "evaluate on".
        images: Images that the indices are those of.
        indices: Indices of the part's images, over all processes.
        loader: Loader of this process's share of them.
        faults: What is wrong with each image that this process skipped so far, by index.
    """

    purpose: str
    images: Images
    indices: Indices
    loader: DataLoader[_Example]
    faults: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of batches of this process in an epoch."""
        return len(self.loader)

    def batches(self) -> Iterator[Batch]:
        """Yield batches, none of them empty, and note which images were skipped."""
        try:
            for images, labels, faults in self.loader:
                self.faults.update(faults)
                if len(images):
                    yield images, labels
        except InputError as error:  # from a worker it comes wrapped in that worker's traceback
            raise InputError(str(error).rsplit("InputError: ", 1)[-1].strip()) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise StopTraining(
                "a process that decodes images was killed, perhaps for want of memory or of shared memory "
                "(/dev/shm); run the same command again to resume, with fewer --workers"
            ) from error


@dataclass(frozen=True, eq=False)
class Stream:
    """Training and evaluation batches of one process.

    A batch is images (N, 3, S, S), uint8, and labels (N,).

    Attributes:
        train: Training images; a last partial batch is left for another epoch.
        held_out: Evaluation images, none of them twice.
        order: Order of the training images.
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
        """Return what is wrong with each image that this process skipped so far."""
        parts = (self.train, self.held_out)
        return {(part.purpose, index): fault for part in parts for index, fault in part.faults.items()}

    def refuse_lost_classes(self, faults: Mapping[Fault, str], classes: Sequence[str]) -> None:
        """Refuse to continue where every image of a class was skipped.

        Args:
            faults: What is wrong with the images that any process skipped.
            classes: Names of the classes.

        Raises:
            InputError: If a class has no image left to train on, or none to evaluate on.
        """
        for part in (self.train, self.held_out):
            skipped = [index for purpose, index in faults if purpose == part.purpose]
            lost = np.bincount(part.images.labels[skipped], minlength=len(classes))
            there = np.bincount(part.images.labels[part.indices], minlength=len(classes))
            gone = np.flatnonzero((lost >= there) & (there > 0))
            if len(gone):
                name = classes[gone[0]]
                raise InputError(f"data: of the class {name!r} no image to {part.purpose} can be decoded")


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
    """Open a source for one of the processes that train on it.

    Args:
        source: Where images come from. If it has no held-out part, a tenth of the training images is.
        input_size: Side of the images the network sees, in pixels.
        batch_size: Images a step, of this process.
        seed: Seed of the order, the augmentation and, where one is made, the split.
        workers: Processes that decode; 0 decodes in this one.
        rank: Number of this process.
        world_size: Processes that share every batch.
        pin_memory: Whether batches wait in page-locked memory, for a GPU.
        corrupt: What to do about images that cannot be decoded: "refuse" them, or "skip" them. Another image,
            drawn from all of them, then takes the place of a training image, so that every process has as
            many batches as before; an evaluation image is not counted.
        most_evaluated: Most evaluation images over all processes; of more images, each class gives a sample
            in proportion to its size.

    Raises:
        InputError: If there are too few images, or `corrupt` is unknown.
    """
    if corrupt not in CORRUPT:
        raise InputError(f"corrupt-images: unknown {corrupt!r}; allowed: {', '.join(CORRUPT)}")
    train, held_out, images = divide(source, seed)
    if len(train) < batch_size * world_size:
        raise InputError(
            f"batch_size: {batch_size * world_size} is more than the {len(train)} training images"
        )
    order = EpochOrder(train, seed, rank, world_size)
    evaluated = held_out
    if most_evaluated is not None and most_evaluated < len(held_out):
        evaluated = held_out[_stratified(images.labels[held_out], most_evaluated, seed)]

    def loader(views: _Views, sampler: Sampler[Key] | list[Key], drop_last: bool) -> DataLoader[_Example]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")  # as many as asked for
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
    """Return how many processes decode for this one: its share of the cores it may use, at most four."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sharing = os.environ.get("LOCAL_WORLD_SIZE", "1")  # processes that torchrun started on this machine
    return min(_MOST_WORKERS, max(1, cores // max(1, int(sharing) if sharing.isdecimal() else 1)))


def divide(source: Source, seed: int) -> tuple[Indices, Indices, Images]:
    """Return the indices to train on and to evaluate on, and the images that the latter are indices of.

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


def evaluated_part(source: Source) -> str:
    """Return what evaluation images are called: held-out, or validation if split from those to train on."""
    return "validation" if source.held_out is None else "held-out"


def training_transform(source: Source, input_size: int) -> _Transform:
    """Return a random flip and crop: any part of a large image, a small one moved by up to an eighth."""
    flip = [v2.RandomHorizontalFlip()] if source.flips else []
    if source.native_size is None:
        return _chain(v2.RandomResizedCrop(input_size), *flip)
    size = source.native_size
    crop = v2.RandomCrop(size, padding=size // 8, padding_mode="reflect")
    return _chain(crop, *flip, *_scale(size, input_size))


def evaluation_transform(source: Source, input_size: int) -> _Transform:
    """Return a crop of a large image's centre, seven eighths of its shorter side; keep a small one whole."""
    if source.native_size is None:
        return _chain(v2.Resize(round(input_size * 256 / 224)), v2.CenterCrop(input_size))
    return _chain(*_scale(source.native_size, input_size))


def normalise(images: Tensor) -> Tensor:
    """Scale uint8 images (N, 3, H, W) to about zero mean and unit deviation a channel, as float32."""
    mean, std = _statistics(images.device)
    return (images - mean) / std


class _Views(Dataset[_Example]):
    """Images as the network sees them; the same key gives the same pixels, in whichever process.

    Args:
        images: All images of the source that the keys are indices of.
        transform: What turns an image into pixels.
        skip: Whether to leave out images that cannot be decoded, and not refuse them.
        substitutes: Indices of the images to draw from in place of a skipped one; None puts nothing there.
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
            with torch.random.fork_rng(
                devices=[]
            ):  # torchvision's transforms draw from the global generator only
                torch.default_generator.manual_seed(seed)
                return self._transform(image), int(self._images.labels[candidate]), faults
        if self._substitutes is None:
            return None, 0, faults
        raise InputError(f"data: too many images cannot be decoded, among them {faults[index]}")

    def _candidates(self, index: int, seed: int) -> Iterator[int]:
        """Yield the image that is meant, then those that may stand in its place."""
        yield index
        if self._substitutes is not None:
            yield from np.random.default_rng(seed).choice(self._substitutes, _SUBSTITUTES).tolist()


def _collate(examples: list[_Example]) -> tuple[Tensor, Tensor, dict[int, str]]:
    """Return a batch of what could be decoded, and what is wrong with the rest."""
    faults = {index: fault for *_, found in examples for index, fault in found.items()}
    views = [(image, label) for image, label, _ in examples if image is not None]
    images, labels = default_collate(views) if views else (torch.empty(0), torch.empty(0))
    return images, labels, faults


def _stratified(labels: Labels, count: int, seed: int) -> Indices:
    """Return the sorted positions of `count` labels, of each class in proportion to its size."""
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
