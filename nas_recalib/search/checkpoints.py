"""Trainings that were left at a rung, on disk."""

import io
from dataclasses import dataclass
from pathlib import Path

import torch

from nas_recalib.files import write_atomically
from nas_recalib.proxy.train import State


@dataclass(frozen=True)
class Checkpoints:
    """One file for each trial that was left.

    Attributes:
        folder: Where they are; made where it is missing.
    """

    folder: Path

    def save(self, number: int, state: State) -> None:
        """Keeps a trial's training.

        Raises:
            InputError: If the file cannot be written; an older one stays whole.
        """
        content = io.BytesIO()
        torch.save(dict(state), content)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(number), content.getvalue())

    def load(self, number: int) -> State | None:
        """What was kept, or None where it is gone or cannot be read: such a training begins anew."""
        try:
            state: State = torch.load(self._path(number), map_location="cpu", weights_only=True)
        except Exception:  # of torn files torch raises whatever it stumbles over
            return None
        return state

    def drop(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.pt"
