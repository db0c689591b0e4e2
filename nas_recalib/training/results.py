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
    """What an epoch came to; equal if it trained alike, however long it took.

    Attributes:
        epoch: From 1.
        rate: Learning rate of its last step.
        loss: Mean training loss.
        top1: Share of the evaluation images that are named right, 0 to 1.
        top5: Share whose name is among the five likeliest, or all if there are fewer classes.
        seconds: It took, with evaluation.
    """

    epoch: int
    rate: float
    loss: float
    top1: float
    top5: float
    seconds: float = field(compare=False)


def best_top1(history: Sequence[EpochResult]) -> float:
    """Greatest accuracy so far; -1 before the first epoch."""
    return max((result.top1 for result in history), default=-1.0)


def write_history(path: Path, run: Mapping[str, Any], history: Sequence[EpochResult]) -> None:
    """Writes what was trained and every epoch's result as JSON.

    Raises:
        InputError: If the folder cannot be written to.
    """
    content = {"run": dict(run), "epochs": [asdict(result) for result in history]}
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def write_weights(path: Path, network: nn.Module, metadata: Mapping[str, str]) -> None:
    """Writes a network's weights and buffers as safetensors.

    Raises:
        InputError: If the folder cannot be written to.
    """
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, safetensors.torch.save(tensors, dict(metadata)))
