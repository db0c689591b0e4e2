"""CIFAR-10 and CIFAR-100: read from the cache folder, and downloaded if missing."""

import contextlib
import hashlib
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas_recalib.errors import InputError

CIFAR = ("cifar10", "cifar100")
Pixels = tuple[NDArray[np.uint8], NDArray[np.int64]]
_CHUNK = 1 << 20


def cached(name: str, cache: Path) -> bool:
    """Return whether a data set has been unpacked in the cache folder."""
    return (cache / str(_dataset(name).base_folder)).is_dir()


def load_cifar(
    name: str, cache: Path, seconds: float | None
) -> tuple[tuple[str, ...], tuple[Pixels, Pixels]]:
    """Read a data set, and download it first if the cache folder lacks it.

    Args:
        name: Name of the data set, cifar10 or cifar100.
        cache: Cache folder.
        seconds: Greatest expected duration of a download; None for any.

    Returns:
        Names of the classes, and pixels (N, 32, 32, 3) with labels (N,) of the training and the test images.

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
    train, test = ((part.data, np.array(part.targets, dtype=np.int64)) for part in parts)
    return tuple(parts[0].classes), (train, test)


def _dataset(name: str) -> Any:
    from torchvision.datasets import CIFAR10, CIFAR100

    return CIFAR10 if name == "cifar10" else CIFAR100


def _download(name: str, dataset: Any, cache: Path, seconds: float | None) -> None:
    """Download the archive unless the cache folder has it, and unpack it."""
    archive = cache / str(dataset.filename)
    partial = archive.with_suffix(".part")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not _is_complete(archive, dataset):
            _stream(str(dataset.url), partial, seconds)
            if not _is_complete(partial, dataset):
                raise OSError("the checksum of the downloaded archive is wrong")
            partial.replace(archive)
        dataset(root=cache, download=True)  # finds the archive and unpacks it
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise InputError(f"data: {name} is not in {cache} and cannot be downloaded ({reason})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _is_complete(archive: Path, dataset: Any) -> bool:
    if not archive.is_file():
        return False
    with archive.open("rb") as file:
        return bool(hashlib.file_digest(file, "md5").hexdigest() == dataset.tgz_md5)


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
