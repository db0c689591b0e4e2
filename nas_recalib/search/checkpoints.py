"""Trainings that were left at a rung, on disk or under a URL."""

import io
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch

from nas_recalib.proxy.train import State
from nas_recalib.search.stores import Store, open_store, require_writable

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
