"""Images as tensors on a device, for proxy training: decoded once, split once, never copied again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_recalib.data.decoded import Decoded, decode
from nas_recalib.data.sources import Labels, Source
from nas_recalib.errors import InputError

CORRUPT = ("refuse", "skip")
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
        split: A hash of which images of the source are where.
        skipped: Images that were left out, each by name with what is wrong.
        remarks: Lines for the user on what else was left out or may not be as expected.
    """

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    num_classes: int
    mean: Tensor
    std: Tensor
    flips: bool
    split: str
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def resolution(self) -> int:
        return self.train_images.shape[-1]

    def to(self, device: torch.device) -> "Resident":
        """The same on another device."""
        tensors = {
            name: getattr(self, name).to(device)
            for name in ("train_images", "train_labels", "val_images", "val_labels", "mean", "std")
        }
        return replace(self, **tensors)


def split_indices(
    labels: Labels, images: int | None, validation: int, seed: int, classes: Sequence[str] = ()
) -> tuple[Indices, Indices]:
    """Draws validation images, then training images from the rest.

    Each class is drawn from in proportion to its size, but one image at least is drawn for either part.

    Args:
        labels: Of all images.
        images: How many to train on; None takes the rest.
        validation: How many to validate on.
        seed: Of the draw.
        classes: Their names, if they have any.

    Returns:
        Indices of the training and of the validation images, sorted.

    Raises:
        InputError: If there are not enough images, or not enough of some class.
    """
    counts = np.bincount(labels, minlength=len(classes))
    _refuse_too_few(counts, images, validation, classes)
    for_validation = _proportional(counts, validation, counts - 1)
    left = counts - for_validation
    for_training = left if images is None else _proportional(left, images, left)
    random = np.random.default_rng(seed)
    train, val = [], []
    for label, (n_val, n_train) in enumerate(zip(for_validation, for_training, strict=True)):
        drawn = random.permutation(np.flatnonzero(labels == label))
        val.append(drawn[:n_val])
        train.append(drawn[n_val : n_val + n_train])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def load_resident(
    source: Source,
    resolution: int,
    images: int | None,
    validation: int,
    seed: int,
    *,
    cache: Path | None = None,
    corrupt: str = "refuse",
) -> Resident:
    """Decodes what a proxy needs of a source, at its resolution.

    Args:
        source: Where images come from.
        resolution: Side of the square images; others are scaled to it by the shorter side and cropped.
        images: How many to train on; None takes all but the validation images.
        validation: How many to validate on.
        seed: Of the split.
        cache: Folder that decoded pixels of files are kept in.
        corrupt: What to do about images that cannot be decoded: "refuse" them, or "skip" them, which leaves
            them out of the split and changes nothing else in it.

    Raises:
        InputError: If an image cannot be decoded (it is named) or there are too few.
    """
    if corrupt not in CORRUPT:
        raise InputError(f"corrupt-images: unknown {corrupt!r}; allowed: {', '.join(CORRUPT)}")
    split = split_indices(source.train.labels, images, validation, seed, source.classes)
    decoded = [decode(source.train, part.tolist(), resolution, cache) for part in split]
    faults = tuple(fault for part in decoded for fault in part.faults.values())
    if faults and corrupt == "refuse":
        others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0]}{others}; --corrupt-images skip leaves such images out")
    (train_images, train_labels), (val_images, val_labels) = (
        _sound(part, source.train.labels[indices], source.classes, purpose)
        for part, indices, purpose in zip(decoded, split, ("train", "validate"), strict=True)
    )
    pixels = train_images.transpose(0, 1).flatten(1).float()
    return Resident(
        train_images=train_images,
        train_labels=torch.from_numpy(train_labels),
        val_images=val_images,
        val_labels=torch.from_numpy(val_labels),
        num_classes=len(source.classes),
        mean=pixels.mean(1),
        std=pixels.std(1).clamp_min(1.0),
        flips=source.flips,
        split=hashlib.sha256(b"|".join(part.tobytes() for part in split)).hexdigest()[:16],
        skipped=faults,
        remarks=source.remarks,
    )


def _sound(decoded: Decoded, labels: Labels, classes: Sequence[str], purpose: str) -> tuple[Tensor, Labels]:
    """The images that could be decoded, with their labels; raises InputError if a class has none."""
    if not decoded.faults:
        return decoded.pixels, labels
    sound = np.delete(np.arange(len(labels)), list(decoded.faults))
    absent = set(range(len(classes))) - set(labels[sound].tolist())
    if absent:
        name = classes[min(absent)]
        raise InputError(f"data: of the class {name!r} no image to {purpose} on can be decoded")
    return decoded.pixels[torch.from_numpy(sound)], labels[sound]


def _refuse_too_few(counts: Indices, images: int | None, validation: int, classes: Sequence[str]) -> None:
    """Raises InputError unless every class can have an image in either part."""
    total, smallest = int(counts.sum()), int(counts.argmin())
    if counts[smallest] < 2:
        name = repr(classes[smallest]) if len(classes) else smallest
        raise InputError(
            f"data: too few images of the class {name}: it has {counts[smallest]} and needs 2, one to train "
            "on and one to validate on; add some or leave the class out"
        )
    left = max(0, total - validation)
    if images is not None and images > left:
        raise InputError(
            f"images: {images} is more than the {left} that are left beside {validation} for validation"
        )
    each = f"too few for one of each of the {len(counts)} classes"
    if validation < len(counts):
        raise InputError(f"validation: {validation} images are {each}")
    if images is None and left < len(counts):
        raise InputError(f"validation: {validation} of the {total} images leave {left} to train on, {each}")
    if images is not None and images < len(counts):
        raise InputError(f"images: {images} are {each}")


def _proportional(counts: Indices, total: int, most: Indices) -> Indices:
    """Splits `total` in proportion to counts by largest remainder, each share between 1 and `most`."""
    exact = counts * total / counts.sum()
    shares: Indices = np.floor(exact).astype(np.int64).clip(1, most)
    while shares.sum() < total:
        shares[np.where(shares < most, exact - shares, -np.inf).argmax()] += 1
    while shares.sum() > total:
        shares[np.where(shares > 1, shares - exact, -np.inf).argmax()] -= 1
    return shares
