"""Reading of one image file as 8-bit RGB: supported formats, bit depths, and which value is white."""

import contextlib
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas_recalib.errors import InputError

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_NETPBM = (".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset((*_JPEG, *_NETPBM, ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"))

_NEWER = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".apng")
_OLDER = (".jif", ".jfi", ".tga", ".pcx", ".psd", ".eps", ".ico", ".svg")
_SENSORS = (".raw", ".dng", ".cr2", ".nef", ".arw", ".dcm", ".exr", ".hdr", ".pfm")
UNREAD_SUFFIXES = frozenset((*_NEWER, *_OLDER, *_SENSORS))

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_MAX_SAMPLE_VALUES = (281, 341)  # TIFF tags MaxSampleValue and SMaxSampleValue
_DEPTHS = frozenset(2**bits - 1 for bits in range(8, 33))


def open_rgb(path: Path) -> Image.Image:
    """Return an image file in RGB; of several frames or pages, the first.

    Raises:
        InputError: If the file cannot be decoded, or does not declare which value is white; it is named.
    """
    try:
        with _SILENT_PILLOW, Image.open(path) as image:
            return _in_rgb(image)
    except Exception as error:  # Pillow's decoders may raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path}: not an image that can be decoded: {reason.splitlines()[0]}") from error


def is_nearly_black(path: Path) -> bool | None:
    """Return whether a 16-bit image has no value above 4095, as if it had 12 bits and did not declare it.

    Returns:
        None for an image of another depth, one that declares its depth, and one that cannot be decoded.
    """
    with contextlib.suppress(Exception), _SILENT_PILLOW, Image.open(path) as image:
        if _bits(image) == 16 and not _is_signed(image) and _declared_white(image) is None:
            brightest = 4095 if image.mode.startswith("I") else 15  # Pillow keeps the upper 8 bits of colours
            return bool(np.asarray(image).max() <= brightest)
    return None


def _in_rgb(image: Image.Image) -> Image.Image:
    """Convert an image as torchvision's ImageFolder does, but scale greys of more than 8 bits to 8.

    Transparency is dropped, and EXIF orientation is ignored.

    Raises:
        ValueError: If it is unknown which value is white.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):
        return _scale_grey(image).convert("RGB")
    declared = _declared_white(image)
    if _bits(image) == 16 and declared and declared < 65_535:  # Pillow keeps the upper 8 bits
        raise ValueError(f"its colours have 16 bits but end at {declared}; convert them to 8 bits")
    return image.convert("RGB")


def _scale_grey(image: Image.Image) -> Image.Image:
    """Scale greys of 12, 16 or 32 bits to 8, by the white value that this file declares.

    White is the value of the TIFF tag MaxSampleValue if that is the greatest of some bit depth (other values
    are a statistic of the image, and ignored), else the greatest value of the file's 12 or 16 unsigned bits.
    Signed and 32-bit samples without the tag are used unscaled from 0 to 255, and refused beyond.

    Raises:
        ValueError: If a value is below 0 or above white.
    """
    grey, bits, declared = np.asarray(image).astype(np.int64), _bits(image), _declared_white(image)
    if image.format == "TIFF" and bits == 32 and not _is_signed(image):
        grey &= 2**32 - 1  # Pillow stores them as signed
    white = declared or (2**bits - 1 if bits <= 16 and not _is_signed(image) else 255)
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > white:
        known = f"although its MaxSampleValue is {white}" if declared else "and white is not declared"
        raise ValueError(
            f"its values run from {low} to {high}, {known}; convert it to 8 bits, or set the TIFF tag "
            "MaxSampleValue to the greatest value of its depth, such as 4095"
        )
    if _tag(image, _PHOTOMETRIC) == 0:  # white is zero, which Pillow handles only up to 8 bits
        grey = white - grey
    return Image.fromarray(((grey * 255 + white // 2) // white).astype(np.uint8))


def _bits(image: Image.Image) -> int:
    """Return the bits per sample; 16 in formats whose greys of more than 8 bits Pillow scales to 16."""
    if image.format == "TIFF":
        return int(_tag(image, _BITS_PER_SAMPLE) or 1)
    deep = 16 if image.mode != "I" or image.format in ("PNG", "PPM") else 32
    return deep if image.mode.startswith("I") else 8


def _is_signed(image: Image.Image) -> bool:
    return bool(_tag(image, _SAMPLE_FORMAT) == 2)


def _declared_white(image: Image.Image) -> int | None:
    declared = (_tag(image, tag) for tag in _MAX_SAMPLE_VALUES)
    return next((int(value) for value in declared if value in _DEPTHS), None)


def _tag(image: Image.Image, tag: int) -> Any:
    """Return the value, or the first of several values, of a TIFF tag; None if the image lacks it."""
    value = getattr(image, "tag_v2", {}).get(tag)
    return value[0] if isinstance(value, tuple) and value else value


class _SilentPillow:
    """Context that suppresses Pillow's warnings (damaged EXIF data, many pixels), which name no image.

    Warning filters are global: the first thread to enter the context sets them, the last to leave restores
    them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._threads:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._filters.close()


_SILENT_PILLOW = _SilentPillow()
