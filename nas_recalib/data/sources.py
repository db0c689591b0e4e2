"""Labelled images by name: `digits`, `cifar10`, `cifar100`, `folder:PATH`, `imagenet:PATH`, `auto`."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas_recalib.data.cifar import CIFAR, cached, load_cifar
from nas_recalib.errors import InputError

Labels = NDArray[np.int64]
SPECS = "auto, digits, cifar10, cifar100, folder:PATH, imagenet:PATH"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class Images(Protocol):
    """Images with their labels, opened one at a time."""

    @property
    def labels(self) -> Labels: ...

    def open(self, index: int) -> Image.Image:
        """The image, in RGB.

        Raises:
            InputError: If it cannot be decoded; it is named.
        """
        ...

    def describe(self) -> Iterable[bytes]:
        """What tells these images from others."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, (N, H, W, 3) or (N, H, W)."""

    pixels: NDArray[np.uint8]
    labels: Labels

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def describe(self) -> Iterable[bytes]:
        return (self.pixels.tobytes(), self.labels.tobytes())


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files."""

    paths: tuple[Path, ...]
    labels: Labels

    def open(self, index: int) -> Image.Image:
        try:
            with Image.open(self.paths[index]) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.paths[index]}: not an image that can be decoded: {error}") from error

    def describe(self) -> Iterable[bytes]:
        for path, label in zip(self.paths, self.labels, strict=True):
            yield f"{label}/{path.parent.name}/{path.name}:{path.stat().st_size}\n".encode(
                errors="surrogateescape"
            )


@dataclass(frozen=True, eq=False)
class Source:
    """A data set.

    Attributes:
        spec: How it was asked for; `auto` is replaced by what it became.
        classes: Names, in the order of the labels.
        train: Images to train on, and to take validation images from.
        held_out: Test images, never seen by a search; None where the set has none.
        native_size: Side of the images in pixels, where all have one.
        flips: Whether an image and its mirror image mean the same.
        note: One line on how it was chosen.
    """

    spec: str
    classes: tuple[str, ...]
    train: Images
    held_out: Images | None
    native_size: int | None
    flips: bool
    note: str = ""

    def fingerprint(self) -> str:
        """A hash that changes when the training images do; files are told by class, name and size."""
        digest = hashlib.sha256("\n".join(self.classes).encode(errors="surrogateescape"))
        for piece in self.train.describe():
            digest.update(piece)
        return digest.hexdigest()[:16]


def open_source(spec: str, cache: Path) -> Source:
    """Opens a data set by name.

    Args:
        spec: One of `SPECS`. `auto` takes CIFAR-10 if it is on disk or can be had within a few seconds, and
            the digits otherwise; its `note` says which.
        cache: Folder that downloads are kept in.

    Raises:
        InputError: If the name is unknown or the data cannot be used; the message says why.
    """
    kind, _, path = spec.partition(":")
    if kind in ("folder", "imagenet") and path:
        try:
            return _folder(kind, Path(path).expanduser().resolve())
        except (OSError, RuntimeError) as error:
            raise InputError(f"data: {path} cannot be read: {error}") from error
    if spec == "auto":
        return _auto(cache)
    if spec == "digits":
        return _digits()
    if spec in CIFAR:
        return _cifar(spec, cache)
    raise InputError(f"data: unknown set {spec!r}; allowed: {SPECS}")


def _digits() -> Source:
    """scikit-learn's 1,797 handwritten digits; every fifth of each class is held out."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    rank = np.zeros(len(labels), dtype=np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    held_out = rank % 5 == 4
    train, test = (ArrayImages(pixels[part], labels[part]) for part in (~held_out, held_out))
    return Source("digits", tuple("0123456789"), train, test, native_size=8, flips=False)


def _cifar(name: str, cache: Path, seconds: float | None = None) -> Source:
    classes, (train, test) = load_cifar(name, cache, seconds)
    return Source(name, classes, ArrayImages(*train), ArrayImages(*test), native_size=32, flips=True)


def _auto(cache: Path) -> Source:
    found = cached("cifar10", cache)
    try:
        source = _cifar("cifar10", cache, seconds=20)
    except InputError as error:
        note = f"auto chose digits: {str(error).removeprefix('data: ')}"
        return replace(_digits(), note=note)
    return replace(source, note=f"auto chose cifar10, {'found' if found else 'downloaded'} in {cache}")


def _folder(kind: str, root: Path) -> Source:
    if not root.is_dir():
        raise InputError(f"data: {root} is not a folder")
    if not (root / "train").is_dir():
        raise InputError(f"data: {root} has no folder train/ with one folder a class in it")
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    train = _read_tree(root / "train", classes)
    empty = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if not len(train.labels):
        raise InputError(f"data: {root / 'train'} has no images; expected train/CLASS/*.jpg and the like")
    if empty:
        raise InputError(f"data: the class {classes[empty[0]]!r} of {root / 'train'} has no images")
    if len(classes) < 2:
        raise InputError(f"data: {root / 'train'} has one class, {classes[0]!r}; at least 2 are needed")
    held_out = _held_out(root, ("val", "test") if kind == "imagenet" else ("test", "val"), classes)
    return Source(f"{kind}:{root}", tuple(classes), train, held_out, native_size=None, flips=True)


def _held_out(root: Path, parts: tuple[str, ...], classes: list[str]) -> FileImages | None:
    """The first of the parts that has labelled images (ILSVRC's test/ has none)."""
    for folder in (root / part for part in parts if (root / part).is_dir()):
        strange = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes))
        if strange:
            raise InputError(f"data: {folder} has the class {strange[0]!r}, which train/ has not")
        images = _read_tree(folder, classes)
        if len(images.labels):
            return images
    return None


def _read_tree(root: Path, classes: list[str]) -> FileImages:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
        paths += files
        labels += [label] * len(files)
    return FileImages(tuple(paths), np.array(labels, dtype=np.int64))
