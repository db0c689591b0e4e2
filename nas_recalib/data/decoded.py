"""Pixels of images as a proxy sees them: decoded once, and kept in the cache where they come from files."""

import contextlib
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nas_recalib.data.folder import FileImages
from nas_recalib.data.sources import Images
from nas_recalib.errors import InputError
from nas_recalib.files import write_atomically

Bytes = NDArray[np.uint8]
_WAY = f"rgb (2), bilinear by the shorter side, centre; Pillow {PIL.__version__}"
_HASH = 32  # bytes of a SHA-256
_WIDEST = 16  # times its shorter side, the longer side of an image that is scaled


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images at one size.

    Attributes:
        pixels: (N, 3, S, S), uint8.
        faults: Of those that could not be decoded, by their place among the N: what is wrong, by name.
    """

    pixels: Tensor
    faults: dict[int, str]


def decode(images: Images, indices: Sequence[int], side: int, cache: Path | None = None) -> Decoded:
    """Decodes images and makes them squares, or reads what was kept of the last time.

    What is kept is named by all that decides it (each file's path, size and times, the side, the way of
    scaling) and hashed; what is torn or altered is decoded again. A cache that cannot be written to is
    left alone.

    Args:
        images: Some of which are meant.
        indices: Of the N images meant.
        side: Of the squares, in pixels.
        cache: Folder to keep pixels of files in.
    """
    place = _place(images, indices, side, cache)
    kept = _read(place, len(indices), side) if place else None
    whole = np.zeros(len(indices) * (1 + 3 * side * side), np.uint8) if kept is None else kept
    done, pixels = whole[: len(indices)], whole[len(indices) :].reshape(-1, 3, side, side)
    todo = np.flatnonzero(done == 0).tolist()

    def fill(position: int) -> str:
        try:
            square = fit_square(images.open(indices[position]), side)
        except InputError as error:
            return str(error)
        pixels[position] = np.asarray(square).transpose(2, 0, 1)
        done[position] = 1
        return ""

    with ThreadPoolExecutor() as pool:
        told = dict(zip(todo, pool.map(fill, todo), strict=True))
    faults = {position: fault for position, fault in told.items() if fault}
    if place and len(faults) < len(todo):
        with contextlib.suppress(InputError, OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, _digest(place, whole) + whole.tobytes())
    return Decoded(torch.from_numpy(pixels), faults)


def fit_square(image: Image.Image, side: int) -> Image.Image:
    """Return a square: the shorter side scaled to `side`, the longer one cut around its centre."""
    if image.size == (side, side):
        return image
    image = limit_aspect(image)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    return _cut_centre(image.resize((width, height), Image.Resampling.BILINEAR), side, side)


def limit_aspect(image: Image.Image) -> Image.Image:
    """Return an image cut to at most 16:1 around its centre, which fits in memory once it is enlarged."""
    most = _WIDEST * min(image.size)
    if max(image.size) <= most:
        return image
    return _cut_centre(image, min(image.width, most), min(image.height, most))


def _cut_centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _place(images: Images, indices: Sequence[int], side: int, cache: Path | None) -> Path | None:
    if cache is None or not isinstance(images, FileImages):
        return None
    digest = hashlib.sha256(f"{_WAY}\0{side}\0".encode())
    for index in indices:
        digest.update(images.stamp(index))
    return cache / "decoded" / f"{digest.hexdigest()[:32]}-{side}px"


def _read(place: Path, count: int, side: int) -> Bytes | None:
    """For each image 1 if it could be decoded, then the pixels; None unless all is as it was written."""
    try:
        content = np.fromfile(place, np.uint8)
    except OSError:
        return None
    digest, whole = content[:_HASH], content[_HASH:]
    as_written = len(whole) == count * (1 + 3 * side * side) and digest.tobytes() == _digest(place, whole)
    return whole if as_written else None


def _digest(place: Path, whole: Bytes) -> bytes:
    digest = hashlib.sha256(place.name.encode())
    digest.update(whole.data)
    return digest.digest()
