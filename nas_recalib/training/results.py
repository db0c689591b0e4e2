"""What training came to, and the files that say so."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from nas_recalib.files import write_atomically


@dataclass(frozen=True)
class EpochResult:
    """Results of an epoch; equal if it trained alike, however long it took.

    Attributes:
        epoch: Number of the epoch, from 1.
        rate: Learning rate of the last step.
        loss: Mean training loss.
        top1: Share of the evaluation images that are named right, 0 to 1.
        top5: Share whose name is among the five likeliest, or all if there are fewer classes.
        seconds: Time that training and evaluation took.
        images: Number of evaluation images; None where a version that did not record it trained the epoch.
        skipped: Images that were left out for the first time, each by name with what is wrong.
    """

    epoch: int
    rate: float
    loss: float
    top1: float
    top5: float
    seconds: float = field(compare=False)
    images: int | None = None
    skipped: tuple[str, ...] = ()


def best_top1(history: Sequence[EpochResult]) -> float:
    """Return the greatest accuracy so far; -1 before the first epoch."""
    return max((result.top1 for result in history), default=-1.0)


def skipped_images(history: Sequence[EpochResult]) -> list[str]:
    """Return the images that were left out so far, each by name with what is wrong."""
    return [name for result in history for name in result.skipped]


def write_history(path: Path, run: Mapping[str, Any], history: Sequence[EpochResult], epochs: int) -> None:
    """Write what was trained and every epoch's result as JSON.

    Args:
        path: File to write.
        run: What decides the course of the training.
        history: Results of the epochs so far.
        epochs: Epochs of the whole training; the last one's result is the training's.

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
    """Write a network's weights and buffers as safetensors.

    Raises:
        InputError: If the folder cannot be written to.
    """
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, safetensors.torch.save(tensors, dict(metadata)))
