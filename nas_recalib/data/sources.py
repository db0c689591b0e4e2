"""Data sets by name (`--data`): digits, CIFAR, downsampled ImageNet, folders of image files."""

import contextlib
import hashlib
import re
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, replace
from http.client import HTTPException
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas_recalib.data.downsampled import DOWNSAMPLED, load_downsampled
from nas_recalib.data.folder import read_folder
from nas_recalib.errors import InputError

Labels = NDArray[np.int64]
CIFAR = ("cifar10", "cifar100")
_CHUNK = 1 << 20
SPECS = (
    "auto, digits, cifar10, cifar100, folder:PATH, imagenet:PATH, imagenet8:PATH, imagenet16:PATH, "
    "imagenet32:PATH, imagenet64:PATH, and of these the first K classes, such as imagenet16-120:PATH"
)


class Images(Protocol):
    """Labelled images, opened one at a time."""

    @property
    def labels(self) -> Labels: ...

    def open(self, index: int) -> Image.Image:
        """Return an image in RGB.

        Raises:
            InputError: If the image cannot be decoded; it is named.
        """
        ...

    def describe(self) -> Iterable[bytes]:
        """Yield bytes that identify the images and their labels, for a hash."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, pixels (N, H, W, 3) or (N, H, W)."""

    pixels: NDArray[np.uint8]
    labels: Labels

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def describe(self) -> Iterable[bytes]:
        parts = max(1, self.pixels.nbytes >> 26)  # copy at most 64 MiB at once
        yield from (part.tobytes() for part in np.array_split(self.pixels, parts))
        yield self.labels.tobytes()


@dataclass(frozen=True, eq=False)
class Source:
    """A data set.

    Attributes:
        spec: Name of the data set as for `--data`; never `auto`.
        classes: Names of the classes in the order of the labels.
        train: Training images, from which validation images are split.
        held_out: Test images, never used by a search; None if the data set has none.
        native_size: Side of the images in pixels, if all have the same.
        flips: Whether horizontal flips keep the meaning of an image.
        note: Sentence on how `auto` chose the data set.
        remarks: Sentences for the user on ignored files and other peculiarities.
    """

    spec: str
    classes: tuple[str, ...]
    train: Images
    held_out: Images | None
    native_size: int | None
    flips: bool
    note: str = ""
    remarks: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Return a hash of the training images; image files are identified by class, name and size."""
        digest = hashlib.sha256("\n".join(self.classes).encode(errors="surrogateescape"))
        for piece in self.train.describe():
            digest.update(piece)
        return digest.hexdigest()[:16]


def open_source(spec: str, cache: Path) -> Source:
    """Open a data set by name.

    Args:
        spec: One of `SPECS`. `auto` is CIFAR-10 if it is on disk or can be downloaded within 20 seconds, else
            the digits.
        cache: Folder for downloads.

    Raises:
        InputError: If the name is unknown or the data cannot be used; the message says why.
    """
    kind, _, path = spec.partition(":")
    small = DOWNSAMPLED.fullmatch(kind)
    if path and (small or kind in ("folder", "imagenet")):
        try:
            root = Path(path).expanduser().resolve()
            return _downsampled(small, root) if small else _folder(kind, root)
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # ValueError: characters that no path may have
            raise InputError(f"data: {path} cannot be read: {error}") from error
    if spec == "auto":
        return _auto(cache)
    if spec == "digits":
        return _digits()
    if spec in CIFAR:
        return load_cifar(spec, cache)
    raise InputError(f"data: unknown set {spec!r}; allowed: {SPECS}")


def _digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits, of which every fifth of each class is held out.

    Their file is read without importing scikit-learn, which takes longer than a small training.
    """
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(path), delimiter=",")
    pixels = (table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    labels = table[:, -1].astype(np.int64)
    rank = np.zeros(len(labels), dtype=np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    held_out = rank % 5 == 4
    train, test = (ArrayImages(pixels[part], labels[part]) for part in (~held_out, held_out))
    return Source("digits", tuple("0123456789"), train, test, native_size=8, flips=False)


def _auto(cache: Path) -> Source:
    origin = "found" if cached("cifar10", cache) else "downloaded"
    try:
        source = load_cifar("cifar10", cache, seconds=20)
    except InputError as error:
        return replace(_digits(), note=f"auto chose digits: {str(error).removeprefix('data: ')}")
    return replace(source, note=f"auto chose cifar10, {origin} in {cache}")


def _folder(kind: str, root: Path) -> Source:
    classes, train, held_out, remarks = read_folder(kind, root)
    return Source(f"{kind}:{root}", classes, train, held_out, native_size=None, flips=True, remarks=remarks)


def _downsampled(kind: re.Match[str], root: Path) -> Source:
    """Return downsampled ImageNet; classes are named by its own numbers, unlike ImageNet's folders."""
    side, count = int(kind[1]), int(kind[2] or 1000)
    train, held_out = load_downsampled(root, side, count)
    classes = tuple(str(number + 1) for number in range(count))
    spec = f"{kind[0]}:{root}"
    return Source(spec, classes, ArrayImages(*train), ArrayImages(*held_out), native_size=side, flips=True)


def cached(name: str, cache: Path) -> bool:
    """Return whether a data set has been unpacked in the cache folder."""
    return (cache / str(_dataset(name).base_folder)).is_dir()


def load_cifar(name: str, cache: Path, seconds: float | None = None) -> Source:
    """Read a data set, and download it first if the cache folder lacks it.

    Args:
        name: Name of the data set, cifar10 or cifar100.
        cache: Cache folder.
        seconds: Greatest expected duration of a download; None for any.

    Raises:
        InputError: If the data set is damaged, or missing and cannot be downloaded.
    """
    dataset = _dataset(name)
    if not cached(name, cache):
        _download(name, dataset, cache, seconds)
    try:
        # torchvision verifies checksums before it reads anything.
        parts = [dataset(cache, train=train, download=not cached(name, cache)) for train in (True, False)]
    except (RuntimeError, OSError, EOFError) as error:
        message = f"data: {name} in {cache} is damaged; delete {cache / dataset.base_folder}"
        raise InputError(message) from error
    train, test = (ArrayImages(part.data, np.array(part.targets, dtype=np.int64)) for part in parts)
    return Source(name, tuple(parts[0].classes), train, test, native_size=32, flips=True)


def _dataset(name: str) -> Any:
    from torchvision.datasets import CIFAR10, CIFAR100

    return CIFAR10 if name == "cifar10" else CIFAR100


def _download(name: str, dataset: Any, cache: Path, seconds: float | None) -> None:
    """Download the archive unless the cache folder has it, and unpack it."""
    from torchvision.datasets.utils import check_integrity

    archive = cache / str(dataset.filename)
    partial = archive.with_suffix(".part")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not check_integrity(archive, dataset.tgz_md5):
            _stream(str(dataset.url), partial, seconds)
            if not check_integrity(partial, dataset.tgz_md5):
                raise OSError("the checksum of the downloaded archive is wrong")
            partial.replace(archive)
        dataset(root=cache, download=True)  # finds the archive and unpacks it
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise InputError(f"data: {name} is not in {cache} and cannot be downloaded ({reason})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _stream(url: str, target: Path, seconds: float | None) -> None:
    start = time.monotonic()
    timeout = min(5, seconds) if seconds else 60
    with urllib.request.urlopen(url, timeout=timeout) as response, target.open("wb") as file:
        size = int(response.headers.get("Content-Length", 0))
        done = 0
        while chunk := response.read1(_CHUNK):  # returns as soon as there are any data
            file.write(chunk)
            done += len(chunk)
            elapsed = time.monotonic() - start
            expected = max(size, done) / done * elapsed if elapsed > 2 else elapsed
            if seconds and expected > seconds:
                raise TimeoutError(f"the download would take more than {seconds:.0f} s")
        if done < size:
            raise OSError("the connection ended early")
