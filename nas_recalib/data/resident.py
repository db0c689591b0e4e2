"""Images as tensors on a device, for proxy training: decoded once, split once, never copied again."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nas_recalib.data.sources import Images, Labels, Source
from nas_recalib.errors import InputError

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Resident:
    """Training and validation images, uint8 on one device.

    Attributes:
        train_images: (N, 3, R, R).
        train_labels: (N,).
        val_images: (M, 3, R, R), from the training part of the source; test images are never here.
        val_labels: (M,).
        num_classes: Classes.
        mean: Of each channel over the training images, 0 to 255, (3,).
        std: Likewise.
        flips: Whether mirror images may be trained on.
    """

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    num_classes: int
    mean: Tensor
    std: Tensor
    flips: bool

    @property
    def resolution(self) -> int:
        return self.train_images.shape[-1]

    def to(self, device: torch.device) -> "Resident":
        """The same on another device."""
        tensors = {
            name: getattr(self, name).to(device)
            for name in ("train_images", "train_labels", "val_images", "val_labels", "mean", "std")
        }
        return Resident(**tensors, num_classes=self.num_classes, flips=self.flips)


def split_indices(labels: Labels, images: int | None, validation: int, seed: int) -> tuple[Indices, Indices]:
    """Draws validation images, then training images from the rest, each class in proportion.

    Args:
        labels: Of all images.
        images: How many to train on; None takes the rest.
        validation: How many to validate on.
        seed: Of the draw.

    Returns:
        Indices of the training and of the validation images, sorted.

    Raises:
        InputError: If there are not enough images of some class.
    """
    counts = np.bincount(labels)
    for_validation = _proportional(counts, validation)
    left = counts - for_validation
    if images is not None and images > left.sum():
        raise InputError(
            f"images: {images} is more than the {left.sum()} that are left beside {validation} for validation"
        )
    for_training = left if images is None else _proportional(left, images)
    if for_validation.min() < 1 or for_training.min() < 1:
        raise InputError(
            f"data: {len(labels)} images of {len(counts)} classes are too few to train on "
            f"{'the rest' if images is None else images} and validate on {validation}, one a class at least"
        )
    random = np.random.default_rng(seed)
    train, val = [], []
    for label, (n_val, n_train) in enumerate(zip(for_validation, for_training, strict=True)):
        drawn = random.permutation(np.flatnonzero(labels == label))
        val.append(drawn[:n_val])
        train.append(drawn[n_val : n_val + n_train])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def load_resident(
    source: Source, resolution: int, images: int | None, validation: int, seed: int
) -> Resident:
    """Decodes what a proxy needs of a source, at its resolution.

    Args:
        source: Where images come from.
        resolution: Side of the square images; others are scaled to it by the shorter side and cropped.
        images: How many to train on; None takes all but the validation images.
        validation: How many to validate on.
        seed: Of the split.

    Raises:
        InputError: If an image cannot be decoded (it is named) or there are too few.
    """
    train, val = split_indices(source.train.labels, images, validation, seed)
    train_images = _decode(source.train, train, resolution)
    pixels = train_images.transpose(0, 1).flatten(1).float()
    return Resident(
        train_images=train_images,
        train_labels=torch.from_numpy(source.train.labels[train]),
        val_images=_decode(source.train, val, resolution),
        val_labels=torch.from_numpy(source.train.labels[val]),
        num_classes=len(source.classes),
        mean=pixels.mean(1),
        std=pixels.std(1).clamp_min(1.0),
        flips=source.flips,
    )


def _decode(images: Images, indices: Indices, resolution: int) -> Tensor:
    def one(index: int) -> NDArray[np.uint8]:
        return np.asarray(fit_square(images.open(index), resolution))

    with ThreadPoolExecutor() as pool:
        pixels: Sequence[NDArray[np.uint8]] = list(pool.map(one, indices.tolist(), chunksize=256))
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def fit_square(image: Image.Image, side: int) -> Image.Image:
    """Scales the shorter side to `side` and cuts out the centre."""
    if image.size == (side, side):
        return image
    scale = side / min(image.size)
    size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    resized = image.resize(size, Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + side, top + side))


def _proportional(counts: Indices, total: int) -> Indices:
    """Splits `total` in proportion to counts, rounding by largest remainder; at most what there is."""
    available = int(counts.sum())
    exact = counts * min(total, available) / max(1, available)
    shares: Indices = np.floor(exact).astype(np.int64)
    missing = min(total, available) - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    return shares
