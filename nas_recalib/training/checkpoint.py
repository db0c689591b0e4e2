"""Files of a training: the checkpoint it resumes from, the history of its results, weights, a lock."""

import contextlib
import fcntl
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import nn

from nas_recalib.data.streaming import MEAN, STD
from nas_recalib.errors import InputError, input_errors
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.training.recipe import Recipe

_FORMAT = "nas-recalib/checkpoint/1"
CHECKPOINT = "checkpoint.pt"
HISTORY = "history.json"
BEST = "best.safetensors"
WEIGHTS = "weights.safetensors"
_OPTIONS = {  # command-line options by key of a run
    "recipe.name": "--recipe",
    "recipe.epochs": "--epochs",
    "recipe.batch_size": "--batch-size",
    "fingerprint": "--data",
    "classes": "--data",
    "seed": "--seed",
    "limit_batches": "--limit-batches",
}


@dataclass(frozen=True)
class EpochResult:
    """Results of an epoch; comparisons ignore the duration.

    Attributes:
        epoch: Number of the epoch, from 1.
        rate: Learning rate of the last step.
        loss: Mean training loss.
        top1: Top-1 accuracy on the evaluation images, 0 to 1.
        top5: Top-5 accuracy; 1 if there are at most five classes.
        seconds: Duration of training and evaluation.
        images: Number of evaluation images; None in checkpoints of versions that did not record it.
        skipped: Names of images that were skipped for the first time, each with the reason.
    """

    epoch: int
    rate: float
    loss: float
    top1: float
    top5: float
    seconds: float = field(compare=False)
    images: int | None = None
    skipped: tuple[str, ...] = ()


def skipped_images(history: Sequence[EpochResult]) -> list[str]:
    """Return the names of the images that were skipped so far, each with the reason."""
    return [name for result in history for name in result.skipped]


_HISTORY = TypeAdapter(list[EpochResult])


class Stateful(Protocol):
    """Anything with a state dictionary: a network, an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Run:
    """Settings that determine the result of a training; a checkpoint of other settings is refused.

    All random numbers are drawn from the seed and the number of the epoch, so no state of a generator is
    stored.

    Attributes:
        architecture: Architecture as text, with the size of the images and the number of classes.
        recipe: Hyperparameters of the training.
        data: Name of the data set.
        fingerprint: Hash of the training images; only the name of the data may differ between resumed runs.
        classes: Names of the classes, in the order of the labels.
        seed: Seed of weights, order and augmentation.
        limit_batches: Greatest number of training batches per epoch; None for all.

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
    """State of a training after an epoch.

    Attributes:
        history: Results of the epochs so far.
        states: State dictionaries by name, "model" and "optimizer".
    """

    history: tuple[EpochResult, ...]
    states: Mapping[str, dict[str, Any]]

    def restore(self, parts: Mapping[str, Stateful]) -> None:
        """Load the state dictionaries into the objects of the same names.

        Raises:
            InputError: If they do not fit, as after a change of the code that builds the objects.
        """
        try:
            for name, part in parts.items():
                part.load_state_dict(self.states[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"checkpoint: the state of its {name} does not fit this training") from error


@contextlib.contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Create the folder of a training and hold its lock while the context lasts.

    The kernel releases the lock when the process ends, however it ends.

    Args:
        out: Folder of the training; created if missing.

    Raises:
        InputError: If the folder cannot be written to, or another process trains in it.
    """
    path = out / "lock"
    with input_errors(f"{out}: cannot be created as a folder", OSError):
        out.mkdir(parents=True, exist_ok=True)
    with input_errors(f"{out}: cannot be written", OSError):
        handle = path.open("a")
    with handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{out}: another training is using this folder; choose another --output"
            ) from error
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def open_folder(out: Path, run: Run) -> Checkpoint | None:
    """Return the checkpoint that a training resumes from; None if its folder is new.

    Raises:
        InputError: If the folder has files of another training, or a file cannot be written there.
    """
    for name in (CHECKPOINT, HISTORY, BEST, WEIGHTS):
        require_writable(out / name)
    checkpoint = load_checkpoint(out / CHECKPOINT, run)
    existing = [name for name in (HISTORY, BEST, WEIGHTS) if (out / name).exists()]
    if existing and not checkpoint:
        _refuse_other_files(out, existing[0], run)
    return checkpoint


def _refuse_other_files(out: Path, name: str, run: Run) -> None:
    """Raise InputError for files without a checkpoint, unless the history shows that this run wrote them."""
    try:
        history = json.loads((out / HISTORY).read_text(encoding="utf-8"))
        difference = _difference(history["run"], json.loads(json.dumps(run.as_dict())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no history of ours
        problem = f"there is no {CHECKPOINT} beside it to resume from; choose another --output, or delete it"
        raise InputError(f"{out / name}: {problem}") from None
    if difference:
        raise _other_run(out / name, difference)


def _other_run(path: Path, difference: tuple[str, object, object]) -> InputError:
    option, *values = difference
    stored, current = ("no limit" if value is None else value for value in values)
    return InputError(
        f"{option}: {path} was made with {stored}, asked for {current}; choose another --output, or delete it"
    )


def save_checkpoint(
    path: Path, run: Run, history: Sequence[EpochResult], parts: Mapping[str, Stateful]
) -> None:
    """Write a checkpoint atomically.

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
    """Read the checkpoint that a run resumes from; return None if there is none.

    Raises:
        InputError: If the file is damaged, is no checkpoint, or has other settings; the message names them.
    """
    if not path.exists():
        return None
    try:
        if not path.is_file():  # reading a named pipe would block
            raise zipfile.BadZipFile
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch.load verifies no checksums
                raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises various exceptions
        raise InputError(
            f"{path}: damaged, or not a checkpoint; delete it to train from the start"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path}: not a checkpoint of nas-recalib; choose another --output, or delete it")
    try:
        difference = _difference(content["run"], run.as_dict())
        history = tuple(_HISTORY.validate_python(content["history"]))
        states = dict(content["states"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: an incomplete checkpoint; delete it to train from the start") from error
    if difference:
        raise _other_run(path, difference)
    return Checkpoint(history, states)


def _difference(
    stored: Mapping[str, Any], current: Mapping[str, Any], prefix: str = ""
) -> tuple[str, object, object] | None:
    """Return the option in which two runs differ first, and its values in both; None if they are equal."""
    for key, new in current.items():
        old = stored.get(key)
        if old == new or key == "data":
            continue
        if isinstance(new, dict) and isinstance(old, dict):
            return _difference(old, new, f"{key}.")
        if key == "fingerprint":
            old, new = f"{stored['data']} ({old})", f"{current['data']} ({new})"
        if key == "architecture":
            words = zip(str(old).split(), str(new).split(), strict=False)
            old, new = next(((a, b) for a, b in words if a != b), (old, new))
        return _OPTIONS.get(prefix + key, prefix + key), old, new
    return None


def write_history(path: Path, run: Mapping[str, Any], history: Sequence[EpochResult], epochs: int) -> None:
    """Write the settings of a training and the results of its epochs as JSON.

    Args:
        path: Path of the file.
        run: Settings of the training.
        history: Results of the epochs so far.
        epochs: Number of epochs of the training; the result of the last one is that of the training.

    Raises:
        InputError: If the folder cannot be written to.
    """
    content = {
        "run": dict(run),
        "result": asdict(history[-1]) if len(history) == epochs else None,
        "skipped": skipped_images(history),
        "epochs": [asdict(result) for result in history],
    }
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def write_weights(path: Path, network: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write the parameters and buffers of a network as a safetensors file.

    Raises:
        InputError: If the folder cannot be written to.
    """
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, safetensors.torch.save(tensors, dict(metadata)))


def write_epoch(
    out: Path, run: Run, states: Mapping[str, Any], history: Sequence[EpochResult], part: str
) -> None:
    # The history first: it identifies the training as long as there is no checkpoint.
    write_history(out / HISTORY, run.as_dict(), history, run.recipe.epochs)
    *earlier, latest = history
    if part == "validation" and all(latest.top1 > result.top1 for result in earlier):
        selection = f"highest top-1 of epochs so far on the {part} images, and so biased upwards"
        write_weights(out / BEST, states["model"], _metadata(run, latest, part, selection))
    save_checkpoint(out / CHECKPOINT, run, history, states)


def write_result(out: Path, run: Run, network: nn.Module, history: Sequence[EpochResult], part: str) -> None:
    """Write the history and the weights of a training that has ended."""
    write_history(out / HISTORY, run.as_dict(), history, run.recipe.epochs)
    write_weights(out / WEIGHTS, network, _metadata(run, history[-1], part, "none; the last epoch"))


def _metadata(run: Run, result: EpochResult, part: str, selection: str) -> dict[str, str]:
    """Return the metadata of a weights file: how to use the weights, and their accuracy."""
    return {
        "architecture": run.architecture,
        "classes": json.dumps(run.classes),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "epoch": str(result.epoch),
        "top1": str(result.top1),
        "evaluated_on": f"{part} images",
        "selection": selection,
    }
