"""Cheap signals of architectures, and the longer training that they are compared with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

KINDS = ("score", "training", "baseline")


@dataclass(frozen=True)
class Signal:
    """Something cheap that orders architectures.

    Attributes:
        name: As in `synflow` or `quick, epoch 2`.
        kind: "score" (without training), "training" or "baseline" (a cost).
        values: One for each architecture; higher is better.
        seconds: Median cost for one architecture.
        fidelity: Name of a training's fidelity.
        epoch: After which a training gives it.
    """

    name: str
    kind: str
    values: tuple[float, ...]
    seconds: float
    fidelity: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class Correlation:
    """Architectures, what cheap signals say of them, and what longer training does.

    Attributes:
        study: Its name.
        space: Where the architectures are from.
        budget: Within which.
        data: Trained on.
        device: On which machine.
        commands: That make this again.
        seed: Of everything drawn.
        architectures: In their canonical form.
        macs: Of each.
        params: Of each.
        reference: The fidelity of the longer training.
        reference_seconds: Median cost of one such training.
        runs: Accuracies of the longer training (architectures, seeds).
        signals: All that are compared with it.

    Raises:
        ValueError: If there is not one of everything for each architecture, a kind of signal is unknown, or
            two signals share a name.
    """

    study: str
    space: str
    budget: str
    data: str
    device: str
    commands: tuple[str, ...]
    seed: int
    architectures: tuple[str, ...]
    macs: tuple[int, ...]
    params: tuple[int, ...]
    reference: dict[str, Any]
    reference_seconds: float
    runs: tuple[tuple[float, ...], ...]
    signals: tuple[Signal, ...]

    def __post_init__(self) -> None:
        count = len(self.architectures)
        own: dict[str, Sequence[Any]] = {"macs": self.macs, "params": self.params, "runs": self.runs}
        for name, values in (*own.items(), *((signal.name, signal.values) for signal in self.signals)):
            if len(values) != count:
                raise ValueError(f"{name}: {len(values)} for {count} architectures")
        if len({len(row) for row in self.runs}) != 1 or not self.runs[0]:
            raise ValueError(
                "runs: expected the same number of seeds for every architecture, and one at least"
            )
        names = [signal.name for signal in self.signals]
        for signal in self.signals:
            if signal.kind not in KINDS:
                raise ValueError(f"{signal.name}: kind = {signal.kind!r} is not one of {', '.join(KINDS)}")
            if names.count(signal.name) > 1:
                raise ValueError(f"signals: {signal.name!r} is there twice")

    @cached_property
    def means(self) -> tuple[float, ...]:
        """Mean accuracy of each architecture over its seeds; not a number where a training diverged."""
        return tuple(float(np.mean(row)) if np.isfinite(row).all() else math.nan for row in self.runs)

    @property
    def seeds(self) -> int:
        """Longer trainings of each architecture."""
        return len(self.runs[0])
