"""Downsampled ImageNet (Chrabaszcz et al., 2017), read from its published files without executing code.

Arrays in .npz files are read without pickle, and pickled batches by an unpickler that is restricted to
numbers, texts, lists, dictionaries and arrays of numbers.
"""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_recalib.data.folder import is_hidden
from nas_recalib.errors import InputError

DOWNSAMPLED = re.compile(r"imagenet(8|16|32|64)(?:-([1-9]\d{0,3}))?")
_CLASSES = 1000
_TRAIN = tuple(f"train_data_batch_{number}" for number in range(1, 11))
_VAL = "val_data"
_NUMBERS = re.compile(r"[<>|=][iuf][1248]")

Pixels = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_downsampled(root: Path, side: int, classes: int = _CLASSES) -> tuple[Pixels, Pixels]:
    """Read the ten training batches and the validation images from a folder or its subfolders.

    Args:
        root: Folder with train_data_batch_1 to train_data_batch_10 and val_data, pickled or as .npz.
        side: Side of the images in pixels.
        classes: Number of classes to read, from the first: ImageNet16-120 of NAS-Bench-201 has 120 of 1,000.

    Returns:
        Pixels (N, S, S, 3) with labels (N,) of the training and of the validation images.

    Raises:
        InputError: If a file is missing or has other content; the message names it.
    """
    if not 2 <= classes <= _CLASSES:
        raise InputError(f"data: {classes} classes of {root} are not from 2 to {_CLASSES}")
    files = [_find(root, name) for name in (*_TRAIN, _VAL)]  # find all before reading any
    *train, val = (_read(file, side, classes) for file in files)
    return _joined(train), _joined([val])


def _find(root: Path, name: str) -> Path:
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    for folder in (root, *inner):
        for file in (folder / name, folder / f"{name}.npz"):
            if file.is_file():
                return file
    raise InputError(f"data: {root / name} is missing, also as {name}.npz and in the folders of {root}")


def _read(file: Path, side: int, classes: int) -> Pixels:
    """Return rows (N, 3 * S * S) and labels from 0 of the first classes in a file."""
    content = _content(file)
    absent = [key for key in ("data", "labels") if key not in content]
    if absent:
        raise InputError(f"data: {file} has no {absent[0]!r}")
    rows, labels = content["data"], _numbers(content["labels"])
    width = 3 * side * side
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != width:
        raise InputError(f"data: {file} has no images of {side} x {side}: expected bytes (N, {width})")
    if labels is None or labels.shape != rows.shape[:1]:
        raise InputError(f"data: {file} has not one label for each of its {len(rows)} images")
    if len(labels) and (labels.min() < 1 or labels.max() > _CLASSES):
        invalid = labels[(labels < 1) | (labels > _CLASSES)][0]
        raise InputError(f"data: {file} has the label {invalid}, which is not from 1 to {_CLASSES}")
    selected = labels <= classes
    return (rows if selected.all() else rows[selected]), labels[selected].astype(np.int64) - 1


def _joined(parts: list[Pixels]) -> Pixels:
    """Return all images in one array (N, S, S, 3), and free each part once it is copied."""
    labels = np.concatenate([labels for _, labels in parts])
    side = round((parts[0][0].shape[1] / 3) ** 0.5)
    pixels = np.empty((len(labels), side, side, 3), np.uint8)
    start = 0
    while parts:
        rows, _ = parts.pop(0)
        pixels[start : start + len(rows)] = rows.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
        start += len(rows)
    return pixels, labels


def _numbers(values: Any) -> NDArray[Any] | None:
    if isinstance(values, list) and all(type(value) is int for value in values):
        values = np.array(values)
    return values if isinstance(values, np.ndarray) and values.dtype.kind in "iu" else None


def _content(file: Path) -> dict[str, Any]:
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as content:
                return {key: content[key] for key in ("data", "labels") if key in content}
        with file.open("rb") as opened:
            loaded = _NumbersUnpickler(opened, encoding="latin1").load()
        if not isinstance(loaded, dict):
            raise ValueError("it has no dictionary")
        return {key: value.array if isinstance(value, _Array) else value for key, value in loaded.items()}
    except Exception as error:  # reading a file that is no pickle may raise anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"data: {file} is not a batch of images: {reason.splitlines()[0]}") from error


class _DType:
    """Replacement of numpy.dtype, which does not trust the state in the file."""

    def __init__(self, code: str, *_: Any) -> None:
        self._code, self._order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    def to_numpy(self) -> np.dtype[Any]:
        if not _NUMBERS.fullmatch(f"{self._order}{self._code}"):
            raise pickle.UnpicklingError(f"it has an array of {self._code!r}, not of numbers")
        return np.dtype(f"{self._order}{self._code}")


class _Array:
    """Replacement of numpy.ndarray."""

    array: NDArray[Any]

    def __setstate__(self, state: tuple[int, tuple[int, ...], _DType, bool, bytes | str]) -> None:
        _, shape, dtype, by_column, content = state
        array = np.frombuffer(_raw(content), dtype.to_numpy())
        self.array = array.reshape(shape, order="F" if by_column else "C")


def _from_buffer(content: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _scalar(dtype: _DType, content: bytes | str) -> int:
    return int(np.frombuffer(_raw(content), dtype.to_numpy())[0])


def _raw(content: bytes | str, *_: str) -> bytes:
    """Return bytes, also of text as Python 2 wrote it."""
    return content.encode("latin1") if isinstance(content, str) else content


_ALLOWED = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "numpy._core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _raw,
}


class _NumbersUnpickler(pickle.Unpickler):
    """Unpickler of arrays of numbers, which it builds from the replacements in this file."""

    def find_class(self, module: str, name: str) -> Any:
        qualified_name = f"{module}.{name}".replace("numpy.core.", "numpy._core.")
        if qualified_name not in _ALLOWED:
            raise pickle.UnpicklingError(f"it would run {module}.{name}, and cannot be trusted")
        return _ALLOWED[qualified_name]
