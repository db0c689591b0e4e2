"""Decoding of images to squares of one size, with a cache on disk for image files."""

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
_METHOD = f"rgb (2), bilinear by the shorter side, centre; Pillow {PIL.__version__}"  # part of the cache key
_HASH_BYTES = 32  # SHA-256
_MAX_ASPECT = 16  # longer side over shorter side of an image that is scaled


@dataclass(frozen=True, eq=False)
class Decoded:
    """Square images of one size.

    Attributes:
        pixels: Pixels (N, 3, S, S), uint8.
        faults: Error message of each image that could not be decoded, by its position among the N.
    """

    pixels: Tensor
    faults: dict[int, str]


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
