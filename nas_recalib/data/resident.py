"""Training and validation images as tensors on a device, for proxy training: split, decoded and cached."""

import contextlib
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nas_recalib.data.folder import FileImages
from nas_recalib.data.sources import Images, Labels, Source
from nas_recalib.errors import InputError
from nas_recalib.files import write_atomically

CORRUPT = ("refuse", "skip")  # treatments of images that cannot be decoded
Indices = NDArray[np.int64]
Bytes = NDArray[np.uint8]
_METHOD = f"rgb (2), bilinear by the shorter side, centre; Pillow {PIL.__version__}"  # part of the cache key
_HASH_BYTES = 32  # SHA-256
_MAX_ASPECT = 16  # longer side over shorter side of an image that is scaled


@dataclass(frozen=True, eq=False)
class Resident:
    """Training and validation images, uint8 on one device.

    Attributes:
        train_images: Training images (N, 3, R, R).
        train_labels: Labels of the training images (N,).
        val_images: Validation images (M, 3, R, R), split from the training part of the source.
        val_labels: Labels of the validation images (M,).
        num_classes: Number of classes.
        mean: Mean of each channel over the training images, 0 to 255, (3,).
        std: Standard deviation of each channel over the training images, (3,).
        flips: Whether horizontal flips may be used as augmentation.
        split: Hash of the indices of the training and the validation images.
        skipped: Names of images that could not be decoded, each with the reason.
        remarks: Sentences for the user about the source.
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
        """Return a copy on another device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Decoded:
    """Square images of one size.

    Attributes:
        pixels: Pixels (N, 3, S, S), uint8.
        faults: Error message of each image that could not be decoded, by its position among the N.
    """

    pixels: Tensor
    faults: dict[int, str]


def split_indices(
    labels: Labels, images: int | None, validation: int, seed: int, classes: Sequence[str] = ()
) -> tuple[Indices, Indices]:
    """Draw a stratified random sample of validation images, then one of training images from the rest.

    Both parts have at least one image of each class.

    Args:
        labels: Labels of all images.
        images: Number of training images; None for the rest.
        validation: Number of validation images.
        seed: Seed of the sample.
        classes: Names of the classes for error messages, if they have names.

    Returns:
        Sorted indices of the training and of the validation images.

    Raises:
        InputError: If there are too few images, or too few of some class.
    """
    counts = np.bincount(labels, minlength=len(classes))
    _refuse_too_few(counts, images, validation, classes)
    val_counts = _proportional(counts, validation, counts - 1)
    remaining = counts - val_counts
    train_counts = remaining if images is None else _proportional(remaining, images, remaining)
    random = np.random.default_rng(seed)
    train, val = [], []
    for label, (n_val, n_train) in enumerate(zip(val_counts, train_counts, strict=True)):
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
    """Split the training images of a source and decode both parts at one resolution.

    Args:
        source: Data set.
        resolution: Side of the square images; others are scaled to it by the shorter side and cropped.
        images: Number of training images; None for all but the validation images.
        validation: Number of validation images.
        seed: Seed of the split.
        cache: Cache folder for decoded image files.
        corrupt: Treatment of images that cannot be decoded: "refuse" raises InputError, "skip" removes them
            from the split, which is otherwise unchanged.

    Raises:
        InputError: If an image cannot be decoded (it is named) or there are too few.
    """
    require_corrupt(corrupt)
    split = split_indices(source.train.labels, images, validation, seed, source.classes)
    decoded = [decode(source.train, part.tolist(), resolution, cache) for part in split]
    faults = tuple(fault for part in decoded for fault in part.faults.values())
    if faults and corrupt == "refuse":
        others = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0]}{others}; --corrupt-images skip leaves such images out")
    (train_images, train_labels), (val_images, val_labels) = (
        _decodable(part, source.train.labels[indices], source.classes, purpose)
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


def require_corrupt(corrupt: str) -> None:
    """Raise InputError unless a treatment of corrupt images is one of `CORRUPT`."""
    if corrupt not in CORRUPT:
        raise InputError(f"corrupt-images: unknown {corrupt!r}; allowed: {', '.join(CORRUPT)}")


def _decodable(
    decoded: Decoded, labels: Labels, classes: Sequence[str], purpose: str
) -> tuple[Tensor, Labels]:
    """Return the images that could be decoded and their labels; raise InputError if a class has none."""
    if not decoded.faults:
        return decoded.pixels, labels
    kept = np.delete(np.arange(len(labels)), list(decoded.faults))
    absent = set(range(len(classes))) - set(labels[kept].tolist())
    if absent:
        name = classes[min(absent)]
        raise InputError(f"data: no image of the class {name!r} to {purpose} on can be decoded")
    return decoded.pixels[torch.from_numpy(kept)], labels[kept]


def _refuse_too_few(counts: Indices, images: int | None, validation: int, classes: Sequence[str]) -> None:
    """Raise InputError unless every class can have an image in both parts."""
    total, smallest = int(counts.sum()), int(counts.argmin())
    if counts[smallest] < 2:
        name = repr(classes[smallest]) if len(classes) else smallest
        raise InputError(
            f"data: too few images of the class {name}: it has {counts[smallest]} and needs 2, one to train "
            "on and one to validate on; add images or remove the class"
        )
    remaining = max(0, total - validation)
    if images is not None and images > remaining:
        raise InputError(f"images: {images} is more than the {remaining} besides {validation} for validation")
    each = f"too few for one of each of the {len(counts)} classes"
    if validation < len(counts):
        raise InputError(f"validation: {validation} images are {each}")
    if images is None and remaining < len(counts):
        raise InputError(
            f"validation: {validation} of the {total} images leave {remaining} to train on, {each}"
        )
    if images is not None and images < len(counts):
        raise InputError(f"images: {images} are {each}")


def _proportional(counts: Indices, total: int, most: Indices) -> Indices:
    """Divide `total` in proportion to counts by the largest remainder method, each share from 1 to `most`."""
    exact = counts * total / counts.sum()
    shares: Indices = np.floor(exact).astype(np.int64).clip(1, most)
    while shares.sum() < total:
        shares[np.where(shares < most, exact - shares, -np.inf).argmax()] += 1
    while shares.sum() > total:
        shares[np.where(shares > 1, shares - exact, -np.inf).argmax()] -= 1
    return shares


def decode(images: Images, indices: Sequence[int], side: int, cache: Path | None = None) -> Decoded:
    """Decode images and scale them to squares, or read them from the cache.

    The name of a cache file is a hash of everything that its content depends on (path, size and times of each
    image file, the side, the scaling method). A damaged file is replaced, and errors of writing are ignored.

    Args:
        images: Images that the indices refer to.
        indices: Indices of the N images to decode.
        side: Side of the squares in pixels.
        cache: Cache folder, used for images that are files.
    """
    path = _cache_path(images, indices, side, cache)
    cached = _read(path, len(indices), side) if path else None
    content = np.zeros(len(indices) * (1 + 3 * side * side), np.uint8) if cached is None else cached
    is_decoded, pixels = content[: len(indices)], content[len(indices) :].reshape(-1, 3, side, side)
    missing = np.flatnonzero(is_decoded == 0).tolist()
    faults: dict[int, str] = {}

    def decode_one(position: int) -> None:
        try:
            square = fit_square(images.open(indices[position]), side)
        except InputError as error:
            faults[position] = str(error)
            return
        pixels[position] = np.asarray(square).transpose(2, 0, 1)
        is_decoded[position] = 1

    with ThreadPoolExecutor() as pool:
        list(pool.map(decode_one, missing))
    if path and len(faults) < len(missing):
        with contextlib.suppress(InputError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _digest(path, content) + content.tobytes())
    return Decoded(torch.from_numpy(pixels), dict(sorted(faults.items())))


def fit_square(image: Image.Image, side: int) -> Image.Image:
    """Return an image scaled by its shorter side to `side`, and cropped to a square around its centre."""
    if image.size == (side, side):
        return image
    image = limit_aspect(image)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    return _crop_centre(image.resize((width, height), Image.Resampling.BILINEAR), side, side)


def limit_aspect(image: Image.Image) -> Image.Image:
    """Return an image cropped to an aspect ratio of at most 16:1, which fits in memory when enlarged."""
    longest = _MAX_ASPECT * min(image.size)
    if max(image.size) <= longest:
        return image
    return _crop_centre(image, min(image.width, longest), min(image.height, longest))


def _crop_centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _cache_path(images: Images, indices: Sequence[int], side: int, cache: Path | None) -> Path | None:
    if cache is None or not isinstance(images, FileImages):
        return None
    digest = hashlib.sha256(f"{_METHOD}\0{side}\0".encode())
    for index in indices:
        digest.update(images.stamp(index))
    return cache / "decoded" / f"{digest.hexdigest()[:32]}-{side}px"


def _read(path: Path, count: int, side: int) -> Bytes | None:
    """Return the content of a cache file: 1 for each image that was decoded, else 0; then the pixels.

    Returns:
        None if there is no such file, or it is damaged.
    """
    try:
        stored = np.fromfile(path, np.uint8)
    except OSError:
        return None
    digest, content = stored[:_HASH_BYTES], stored[_HASH_BYTES:]
    intact = len(content) == count * (1 + 3 * side * side) and digest.tobytes() == _digest(path, content)
    return content if intact else None


def _digest(path: Path, content: Bytes) -> bytes:
    digest = hashlib.sha256(path.name.encode())
    digest.update(content.data)
    return digest.digest()
