"""Downsampled ImageNet (Chrabaszcz et al., 2017) from the files that it is published in.

Nothing in a file is executed: arrays are read from .npz without pickle, and pickled batches by an unpickler
that knows numbers, texts, lists, dictionaries and arrays of numbers, and nothing else.
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
    """Reads ten training batches and the validation images, from the folder or folders in it.

    Args:
        root: Where train_data_batch_1 to train_data_batch_10 and val_data are, pickled or as .npz.
        side: Of the images, in pixels.
        classes: How many are wanted, from the first: ImageNet16-120 of NAS-Bench-201 has 120 of 1,000.

    Returns:
        Pixels (N, S, S, 3) with labels (N,) of the training and of the validation images.

    Raises:
        InputError: If a file is missing or holds something else; it is named.
    """
    if not 2 <= classes <= _CLASSES:
        raise InputError(f"data: {classes} classes of {root} are not from 2 to {_CLASSES}")
    files = [_find(root, name) for name in (*_TRAIN, _VAL)]  # all, before any is read
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
    """Rows (N, 3 * S * S) and labels from 0 of the wanted classes."""
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
        strange = labels[(labels < 1) | (labels > _CLASSES)][0]
        raise InputError(f"data: {file} has the label {strange}, which is not from 1 to {_CLASSES}")
    wanted = labels <= classes
    return (rows if wanted.all() else rows[wanted]), labels[wanted].astype(np.int64) - 1


def _joined(parts: list[Pixels]) -> Pixels:
    """One array of all the images, giving back each part's memory once it is copied."""
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
            raise ValueError("no dictionary")
        return {key: value.array if isinstance(value, _Array) else value for key, value in loaded.items()}
    except Exception as error:  # a file that is not a pickle can end in any
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"data: {file} is not a batch of images: {reason.splitlines()[0]}") from error


class _DType:
    """Stands for numpy.dtype, whose own state is not for strangers to set."""

    def __init__(self, code: str, *_: Any) -> None:
        self._code, self._order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    def checked(self) -> np.dtype[Any]:
        if not _NUMBERS.fullmatch(f"{self._order}{self._code}"):
            raise pickle.UnpicklingError(f"it has an array of {self._code!r}, not of numbers")
        return np.dtype(f"{self._order}{self._code}")


class _Array:
    """Stands for numpy.ndarray."""

    array: NDArray[Any]

    def __setstate__(self, state: tuple[int, tuple[int, ...], _DType, bool, bytes | str]) -> None:
        _, shape, dtype, by_column, content = state
        raw = _latin1(content) if isinstance(content, str) else content  # as Python 2 wrote it
        self.array = np.frombuffer(raw, dtype.checked()).reshape(shape, order="F" if by_column else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _scalar(dtype: _DType, content: bytes | str) -> int:
    raw = _latin1(content) if isinstance(content, str) else content
    return int(np.frombuffer(raw, dtype.checked())[0])


def _latin1(text: str, *_: str) -> bytes:
    return text.encode("latin1")


_KNOWN = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _latin1,
}


class _NumbersUnpickler(pickle.Unpickler):
    """Builds nothing but what arrays of numbers need, out of this file's own stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}".replace("numpy.core.", "numpy._core.")
        if asked not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks to run {module}.{name}, and is not to be trusted")
        return _KNOWN[asked]
