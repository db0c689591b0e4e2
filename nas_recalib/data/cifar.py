"""CIFAR-10 and CIFAR-100 from a cache folder, downloaded on first use."""

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
    """Whether the set has been unpacked in the cache."""
    return (cache / str(_dataset(name).base_folder)).is_dir()


def load_cifar(
    name: str, cache: Path, seconds: float | None
) -> tuple[tuple[str, ...], tuple[Pixels, Pixels]]:
    """Reads the set, downloading it first where the cache lacks it.

    Args:
        name: cifar10 or cifar100.
        cache: Folder to look in, and to keep it in.
        seconds: Give up when a download would take longer; None waits as long as data comes.

    Returns:
        The classes, and pixels (N, 32, 32, 3) with labels (N,) of the training and the test images.

    Raises:
        InputError: If it cannot be had.
    """
    dataset = _dataset(name)
    if not cached(name, cache):
        _download(name, dataset, cache, seconds)
    try:
        # torchvision compares checksums before it reads anything.
        parts = [
            dataset(root=cache, train=train, download=not cached(name, cache)) for train in (True, False)
        ]
    except (RuntimeError, OSError, EOFError) as error:
        raise InputError(
            f"data: {name} in {cache} is damaged; delete {cache / dataset.base_folder}"
        ) from error
    train, test = ((part.data, np.array(part.targets, dtype=np.int64)) for part in parts)
    return tuple(parts[0].classes), (train, test)


def _dataset(name: str) -> Any:
    from torchvision.datasets import CIFAR10, CIFAR100

    return CIFAR10 if name == "cifar10" else CIFAR100


def _download(name: str, dataset: Any, cache: Path, seconds: float | None) -> None:
    """Fetches the archive unless a whole one is there, and unpacks it."""
    archive = cache / str(dataset.filename)
    partial = archive.with_suffix(".part")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not _is_whole(archive, dataset):
            _stream(str(dataset.url), partial, seconds)
            if not _is_whole(partial, dataset):
                raise OSError("what came is not the archive: its checksum is another")
            partial.replace(archive)
        dataset(root=cache, download=True)  # finds the archive and unpacks it
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise InputError(f"data: {name} is not in {cache} and cannot be downloaded ({reason})") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _is_whole(archive: Path, dataset: Any) -> bool:
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
        while chunk := response.read1(_CHUNK):  # as much as has come, not waiting for all of it
            file.write(chunk)
            done += len(chunk)
            elapsed = time.monotonic() - start
            expected = max(size, done) / done * elapsed if elapsed > 2 else elapsed
            if seconds and expected > seconds:
                raise TimeoutError(f"it would take more than {seconds:.0f} s")
        if done < size:
            raise OSError("the connection ended early")
