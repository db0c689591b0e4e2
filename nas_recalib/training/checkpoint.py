"""Checkpoints: all that a training needs to resume where it stopped, in one file of its folder."""

import contextlib
import fcntl
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter

from nas_recalib.errors import InputError
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.training.recipe import Recipe
from nas_recalib.training.results import EpochResult

_FORMAT = "nas-recalib/checkpoint/1"
_HISTORY = TypeAdapter(list[EpochResult])
CHECKPOINT = "checkpoint.pt"
HISTORY = "history.json"
BEST = "best.safetensors"
WEIGHTS = "weights.safetensors"


class Stateful(Protocol):
    """A network, an optimizer, or whatever else a training carries from epoch to epoch."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Run:
    """Everything that decides the course of a training; a checkpoint of another course is refused.

    All randomness is drawn afresh each epoch from the seed and the epoch's number, so no generator's state
    has to be kept.

    Attributes:
        architecture: Architecture as text, with the size of the images and the number of classes.
        recipe: Length, learning rates and batches of the training.
        data: Name of the data set.
        fingerprint: Hash of the training images; the name alone may differ, as it does when data are moved.
        classes: Names of the classes, in the order of the labels.
        seed: Seed of weights, order and augmentation.
        limit_batches: Most training batches an epoch.

    Raises:
        InputError: If the limit is below 1.
    """

    architecture: str
    recipe: Recipe
    data: str
    fingerprint: str
    classes: tuple[str, ...]
    seed: int
    limit_batches: int | None = None

    def __post_init__(self) -> None:
        if self.limit_batches is not None and self.limit_batches < 1:
            raise InputError(f"limit_batches: {self.limit_batches} is not at least 1")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training after some of its epochs.

    Attributes:
        history: Results of the epochs so far.
        states: State dictionaries, by what they belong to.
    """

    history: tuple[EpochResult, ...]
    states: Mapping[str, dict[str, Any]]

    def restore(self, parts: Mapping[str, Stateful]) -> None:
        """Load the states into the parts of a training.

        Raises:
            InputError: If they do not fit, as after a change of the code that builds them.
        """
        try:
            for name, part in parts.items():
                part.load_state_dict(self.states[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"checkpoint: its {name} does not fit what is trained here") from error


@contextlib.contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Make a folder and hold it for one training.

    The kernel releases the lock when the process ends, however it ends.

    Args:
        out: Folder of the training; made if missing.

    Raises:
        InputError: If the folder cannot be written to, or another process trains in it.
    """
    path = out / "lock"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made a folder: {error.strerror}") from error
    try:
        handle = path.open("a")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from error
    with handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{out}: another training runs in this folder; choose another one") from error
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def open_folder(out: Path, run: Run) -> Checkpoint | None:
    """Return the checkpoint that a training resumes from; None where its folder is new.

    Raises:
        InputError: If the folder holds another training, or a file cannot be written there.
    """
    for name in (CHECKPOINT, HISTORY, BEST, WEIGHTS):
        require_writable(out / name)
    checkpoint = load_checkpoint(out / CHECKPOINT, run)
    there = [name for name in (HISTORY, BEST, WEIGHTS) if (out / name).exists()]
    if there and not checkpoint:
        _refuse_another(out, there[0], run)
    return checkpoint


def _refuse_another(out: Path, name: str, run: Run) -> None:
    """Refuse files without a checkpoint, unless a history says that they are this very training's."""
    problem = f"there is no {CHECKPOINT} beside it to resume from"
    try:
        history = json.loads((out / HISTORY).read_text(encoding="utf-8"))
        difference = _difference(history["run"], json.loads(json.dumps(run.as_dict())))
        problem = f"belongs to another training: {difference}" if difference else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # no history, or not one of this program
    if problem:
        raise InputError(f"{out / name}: {problem}; choose another folder, or delete it")


def save_checkpoint(
    path: Path, run: Run, history: Sequence[EpochResult], parts: Mapping[str, Stateful]
) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        InputError: If the folder cannot be written to.
    """
    content = {
        "format": _FORMAT,
        "run": run.as_dict(),
        "history": [asdict(result) for result in history],
        "states": {name: part.state_dict() for name, part in parts.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, run: Run) -> Checkpoint | None:
    """Read the checkpoint that a run resumes from; return None where there is none.

    Raises:
        InputError: If the file is damaged, is no checkpoint, or is another run's; it says what differs.
    """
    if not path.exists():
        return None
    try:
        if not path.is_file():  # a pipe would be waited for
            raise zipfile.BadZipFile
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch compares no checksums
                raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged archive raises depends on where the damage is
        raise InputError(
            f"{path}: damaged, or not a checkpoint; delete it to train from the start"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path}: not a checkpoint of this program; choose another folder, or delete it")
    try:
        difference = _difference(content["run"], run.as_dict())
        history = tuple(_HISTORY.validate_python(content["history"]))
        states = dict(content["states"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not a whole checkpoint; delete it to train from the start") from error
    if difference:
        raise InputError(
            f"{path}: belongs to another training: {difference}; choose another folder, or delete it"
        )
    return Checkpoint(history, states)


def _difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return the first difference in words, or None."""
    for key, mine in here.items():
        theirs = there.get(key)
        if theirs == mine or key == "data":
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            return _difference(theirs, mine, f"{key}.")
        if key == "fingerprint":
            return f"data was {there['data']} ({theirs}), now {here['data']} ({mine})"
        if key == "architecture":
            theirs, mine = _first_word(str(theirs), str(mine))
        return f"{prefix}{key} was {theirs}, now {mine}"
    return None


def _first_word(there: str, here: str) -> tuple[str, str]:
    """Return the first words in which two texts differ, or the texts."""
    words = zip(there.split(), here.split(), strict=False)
    return next(((a, b) for a, b in words if a != b), (there, here))
