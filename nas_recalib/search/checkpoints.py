"""Checkpoints of trials, in a folder or under a URL that every machine reaches."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from nas_recalib.errors import InputError, in_one_line
from nas_recalib.files import write_atomically
from nas_recalib.proxy.evaluation import State
from nas_recalib.study.storage import hide_password, scrub

_LOCAL_SCHEMES = ("file://", "local://")
_DIGEST_SIZE = sha256().digest_size


@dataclass(frozen=True)
class Folder:
    """Store in a local folder, created when something is written; errors are InputErrors that name the file.

    Attributes:
        path: Path of the folder.
    """

    path: Path

    def write(self, name: str, content: bytes) -> None:
        """Write a content atomically, so that an older one of the name stays complete if this fails."""
        with _errors_name(self.path, "written"):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / name, content)

    def read(self, name: str) -> bytes | None:
        """Return the content of a name, or None if there is none."""
        with _errors_name(self.path / name, "read"):
            try:
                return (self.path / name).read_bytes()
            except FileNotFoundError:
                return None

    def delete(self, name: str) -> None:
        """Delete the content of a name, if there is one."""
        with _errors_name(self.path / name, "deleted"):
            (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Remote:
    """Store under a URL of any scheme that fsspec supports; object stores write each object atomically.

    Attributes:
        url: URL of the store, with its password if it has one.
    """

    url: str

    def write(self, name: str, content: bytes) -> None:
        with self._object(name, "written") as (filesystem, path):
            filesystem.pipe_file(path, content)

    def read(self, name: str) -> bytes | None:
        with self._object(name, "read") as (filesystem, path):
            try:
                return bytes(filesystem.cat_file(path))
            except FileNotFoundError:
                return None

    def delete(self, name: str) -> None:
        with self._object(name, "deleted") as (filesystem, path), suppress(FileNotFoundError):
            filesystem.rm_file(path)

    @contextmanager
    def _object(self, name: str, verb: str) -> Iterator[tuple[Any, str]]:
        """Provide the filesystem and the path of an object."""
        from fsspec.core import url_to_fs  # imported late, since few searches need it

        shown = hide_password(self.url).rstrip("/")
        with _errors_name(f"{shown}/{name}", verb, self.url):
            try:
                filesystem, root = url_to_fs(self.url)  # cached by fsspec
            except ImportError as error:
                scheme = self.url.partition("://")[0]
                raise InputError(f"{shown}: {scheme}:// needs another package: {error}") from error
            yield filesystem, f"{root.rstrip('/')}/{name}"


@contextmanager
def _errors_name(location: Path | str, verb: str, url: str = "") -> Iterator[None]:
    """Raise any error of a driver as an InputError that names the location and hides the URL's password."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or in_one_line(error)
        raise InputError(f"{location}: cannot be {verb}: {scrub(reason, url)}") from error


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of trials and supernets, one file each: what `torch.save` writes, then its SHA-256.

    Attributes:
        folder: Folder of the files, created when one is written; or a URL of any scheme that fsspec has a
            driver for, such as s3://bucket/study, so that other machines can resume the trials.
    """

    folder: Path | str

    def require_writable(self) -> None:
        """Check before a search that checkpoints can be stored, by writing and deleting a small file.

        Raises:
            InputError: If they cannot be stored, or the URL's scheme has no driver here.
        """
        name = f"writable-{uuid4().hex}"  # different for workers that check at the same time
        self._store.write(name, b"yes")
        self._store.delete(name)

    def save(self, key: int | str, state: State) -> None:
        """Store a checkpoint under the number of its trial, or under the name of its supernet.

        Raises:
            InputError: If it cannot be written; an older one then stays complete.
        """
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        content = buffer.getvalue()
        self._store.write(_name(key), content + sha256(content).digest())

    def load(self, key: int | str) -> State | None:
        """Return the checkpoint of a trial, or None if it is missing or damaged and training must restart.

        Raises:
            InputError: If the store cannot be read, for example because its server is out of reach.
        """
        content = self._store.read(_name(key))
        return None if content is None else _parse(content)

    def drop(self, key: int | str) -> None:
        """Delete the checkpoint of a trial, if there is one.

        Raises:
            InputError: If it cannot be deleted.
        """
        self._store.delete(_name(key))

    @cached_property
    def _store(self) -> Folder | Remote:
        if isinstance(self.folder, Path) or "://" not in self.folder:
            return Folder(Path(self.folder))
        if self.folder.startswith(_LOCAL_SCHEMES):
            return Folder(Path(self.folder.partition("://")[2]))
        return Remote(self.folder)


def _name(key: int | str) -> str:
    return f"{key:05d}.pt" if isinstance(key, int) else f"{key}.pt"


def _parse(content: bytes) -> State | None:
    """Return the state in the content of a file, or None unless it is undamaged and of plain values."""
    archive, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    if sha256(archive).digest() != digest:  # torch verifies no checksums
        return None
    try:
        state = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
        return state if "supernet" in state or all(3 <= len(epoch) <= 5 for epoch in state["curve"]) else None
    except Exception:  # torch raises errors of many kinds for files that it did not write
        return None
