"""Checkpoints of trials, in a folder or under a URL that every machine reaches."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import torch

from nas_recalib.errors import InputError, in_one_line
from nas_recalib.files import write_atomically
from nas_recalib.proxy.train import State
from nas_recalib.study.storage import hide_password, scrub

_LOCAL = ("file://", "local://")


class Store(Protocol):
    """Where contents lie; what goes wrong is an InputError that names the place."""

    def write(self, name: str, content: bytes) -> None:
        """Keeps a content; an older one of the name stays whole until this one is."""

    def read(self, name: str) -> bytes | None:
        """What was kept, or None where there is nothing of that name."""

    def delete(self, name: str) -> None:
        """Forgets a content, if there is one."""


def open_store(place: Path | str) -> Store:
    """The store at a path or a URL; nothing is looked at or made yet."""
    if isinstance(place, Path) or "://" not in place:
        return Folder(Path(place))
    scheme = next((scheme for scheme in _LOCAL if place.startswith(scheme)), None)
    return Folder(Path(place.removeprefix(scheme))) if scheme else Remote(place)


def require_writable(store: Store) -> None:
    """Finds out before long work whether its results could be kept, by writing and deleting something small.

    Raises:
        InputError: If they could not.
    """
    name = f"writable-{uuid4().hex}"  # no other's, who finds out at the same time
    store.write(name, b"yes")
    store.delete(name)


@dataclass(frozen=True)
class Folder:
    """Files in a folder, which is made where it is missing."""

    path: Path

    def write(self, name: str, content: bytes) -> None:
        with _told(self.path, "written"):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / name, content)

    def read(self, name: str) -> bytes | None:
        with _told(self.path / name, "read"):
            try:
                return (self.path / name).read_bytes()
            except FileNotFoundError:
                return None

    def delete(self, name: str) -> None:
        with _told(self.path / name, "deleted"):
            (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Remote:
    """Objects under a URL of any scheme that fsspec knows; object stores take each whole or not at all."""

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
        with self._object(name, "deleted") as (filesystem, path):
            try:
                filesystem.rm_file(path)
            except FileNotFoundError:
                return

    @contextmanager
    def _object(self, name: str, attempt: str) -> Iterator[tuple[Any, str]]:
        from fsspec.core import url_to_fs  # late: few have a use for it

        shown = hide_password(self.url).rstrip("/")
        with _told(f"{shown}/{name}", attempt, lambda reason: scrub(reason, self.url)):
            try:
                filesystem, root = url_to_fs(self.url)  # which fsspec keeps for the next time
            except ImportError as error:
                scheme = self.url.partition("://")[0]
                raise InputError(f"{shown}: {scheme}:// needs another package: {error}") from error
            yield filesystem, f"{root.rstrip('/')}/{name}"


@contextmanager
def _told(
    place: Path | str, attempt: str, shown: Callable[[str], str] = lambda reason: reason
) -> Iterator[None]:
    """Names the place in whatever goes wrong; drivers raise exceptions of their own kinds."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or in_one_line(error)
        raise InputError(f"{place}: cannot be {attempt}: {shown(reason)}") from error


_DIGEST = sha256().digest_size


@dataclass(frozen=True)
class Checkpoints:
    """One file for each trial that was left: what torch writes, and its SHA-256 behind it.

    Attributes:
        folder: Where they are, made where it is missing; or a URL of any scheme that fsspec has a driver for,
            as s3://bucket/study, so that other machines can go on with them.
    """

    folder: Path | str

    def require_writable(self) -> None:
        """Finds out before a search whether its checkpoints could be kept.

        Raises:
            InputError: If they could not, or the URL's scheme has no driver here.
        """
        require_writable(self._store)

    def save(self, number: int, state: State) -> None:
        """Keeps a trial's training.

        Raises:
            InputError: If it cannot be written; an older one stays whole.
        """
        content = io.BytesIO()
        torch.save(dict(state), content)
        written = content.getvalue()
        self._store.write(_name(number), written + sha256(written).digest())

    def load(self, number: int) -> State | None:
        """What was kept, or None where it is gone or damaged: such a training begins anew.

        Raises:
            InputError: If it cannot be known whether it is gone, as when a URL is out of reach.
        """
        content = self._store.read(_name(number))
        return None if content is None else _read(content)

    def drop(self, number: int) -> None:
        """Forgets a trial's training, if there is one.

        Raises:
            InputError: If it cannot be deleted.
        """
        self._store.delete(_name(number))

    @cached_property
    def _store(self) -> Store:
        return open_store(self.folder)


def _name(number: int) -> str:
    return f"{number:05d}.pt"


def _read(content: bytes) -> State | None:
    """The state in a file's content; None unless it is as it was written, tensors and plain values."""
    written, digest = content[:-_DIGEST], content[-_DIGEST:]
    if sha256(written).digest() != digest:  # torch compares no checksums, and takes much for an archive
        return None
    try:
        state = torch.load(io.BytesIO(written), map_location="cpu", weights_only=True)
        return state if all(len(epoch) == 3 for epoch in state["curve"]) else None
    except Exception:  # of another's file torch raises whatever it stumbles over
        return None
