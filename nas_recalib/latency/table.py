"""LatencyTable: what every choice takes at every position of a space, on one machine."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from nas_recalib.architecture import Architecture
from nas_recalib.costs.table import Integers
from nas_recalib.device import device_name, versions
from nas_recalib.errors import InputError
from nas_recalib.files import StrictModel, read_json, write_atomically
from nas_recalib.latency.conditions import Conditions
from nas_recalib.latency.fit import (
    Entry,
    Fit,
    Round,
    fit_networks,
    make_entries,
    most_choices,
    reference_seconds,
    round_indices,
)
from nas_recalib.space import SearchSpace

MOST_ROUNDS = 100_000


class _TableFile(StrictModel):
    format: Literal["nas-recalib/latency/1"]
    space: str
    conditions: Conditions
    wanted: int = Field(ge=1, le=MOST_ROUNDS)
    table: dict[str, Any] | None  # follows from the rounds; for other programs
    rounds: list[Round]


@dataclass(frozen=True)
class LatencyTable:
    """A constant and an entry for every position and choice; a network's latency is their sum.

    Attributes:
        space: Of which architectures.
        conditions: Under which they were timed.
        wanted: Rounds that the table is to have.
        rounds: Those it has.
    """

    space: SearchSpace
    conditions: Conditions
    wanted: int
    rounds: tuple[Round, ...]

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Reads a table that is finished.

        Raises:
            InputError: If the file is none, or not finished; what is wrong is named.
        """
        table = cls.load_unfinished(Path(path))
        if not table.finished:
            done = f"{len(table.rounds)} of {max(table.wanted, most_choices(table.space))} rounds"
            raise InputError(f"{path}: not finished, {done}; the same command goes on")
        return table

    @classmethod
    def load_unfinished(cls, path: Path) -> "LatencyTable":
        """Reads a table with whatever rounds it has.

        Raises:
            InputError: If the file is none; what is wrong is named.
        """
        file = read_json(path, _TableFile)
        space = SearchSpace.parse(file.space, f"{path}: space")
        blocks = sum(len(position.blocks) for position in space.positions)
        for number, told in enumerate(file.rounds):
            right = tuple(told.indices) == round_indices(space, file.conditions.seed, number)
            if not right or len(told.blocks_ns) != blocks:
                raise InputError(f"{path}: rounds.{number} is not of this space and seed; was it edited?")
        return cls(space, file.conditions, file.wanted, tuple(file.rounds))

    def save(self, path: Path) -> None:
        """Writes the table, whole or not at all.

        Raises:
            InputError: If it cannot be written.
        """
        write_atomically(path, _as_text(self.as_dict()) + "\n")

    @property
    def finished(self) -> bool:
        """Whether all rounds are done and each choice has stood everywhere."""
        return len(self.rounds) >= max(self.wanted, most_choices(self.space))

    @cached_property
    def entries(self) -> tuple[tuple[Entry, ...], ...]:
        """For each position of the space an entry for each choice."""
        return make_entries(self.space, self.rounds)

    @cached_property
    def fit(self) -> Fit:
        """How whole networks follow from entries."""
        return fit_networks(self.rounds, self.entries)

    @property
    def reference(self) -> Architecture:
        """The network that stood beside every other: the first choice everywhere."""
        return self.space.from_indices((0,) * len(self.space.positions))

    @property
    def reference_ms(self) -> float:
        """What the reference took, in milliseconds; all times of the table are relative to it."""
        return reference_seconds(self.rounds) * 1e3

    def require(self, space: SearchSpace, device: torch.device, *, threads: int | None = None) -> None:
        """Refuses a table that says nothing about a space on a device.

        Args:
            space: Whose architectures are meant.
            device: Where they are to run.
            threads: Of the CPU, where it matters that they are as many.

        Raises:
            InputError: If the space, the device, a version or the threads differ; it is named.
        """
        self._require_space(space)
        known = versions()
        here = {
            "device": device_name(device, threads or self.conditions.threads),
            "nas_recalib": known["nas-recalib"],
            "torch": known["torch"],
            **({"threads": threads} if threads else {}),
        }
        difference = self.conditions.difference(self.conditions.model_copy(update=here))
        if difference:
            raise InputError(f"latency table: made with another {difference}; make one here")

    def column(self, space: SearchSpace) -> tuple[int, tuple[Integers, ...]]:
        """The table in whole nanoseconds, as a cost table takes it.

        Returns:
            What no choice changes, and for each position of the space its choices' latencies, (choices,).

        Raises:
            InputError: If the table is of another space.
        """
        self._require_space(space)
        scale = self.fit.slope * 1e9
        entries = tuple(
            np.array([round(entry.median * scale) for entry in row], dtype=np.int64) for row in self.entries
        )
        return round(self.fit.intercept * 1e9), entries

    def predict(self, architecture: Architecture) -> float:
        """Milliseconds of one forward pass with the table's batch.

        Raises:
            InputError: If the architecture is not of the table's space.
        """
        constant, entries = self.column(self.space)
        indices = self.space.indices_of(architecture)
        return (constant + sum(int(row[pick]) for row, pick in zip(entries, indices, strict=True))) / 1e6

    def as_dict(self) -> dict[str, Any]:
        """What the file holds."""
        return {
            "format": "nas-recalib/latency/1",
            "space": self.space.describe(),
            "conditions": self.conditions.model_dump(),
            "wanted": self.wanted,
            "table": self._summary() if self.finished else None,
            "rounds": [told.model_dump() for told in self.rounds],
        }

    def _summary(self) -> dict[str, Any]:
        return {
            "reference_ms": self.reference_ms,
            "fit": asdict(self.fit),
            "entries": {
                position.name: {
                    str(choice): {
                        "median_us": round(entry.median * 1e6, 3),
                        "quartiles_us": [round(entry.lower * 1e6, 3), round(entry.upper * 1e6, 3)],
                        "samples": entry.samples,
                    }
                    for choice, entry in zip(position.choices, row, strict=True)
                }
                for position, row in zip(self.space.positions, self.entries, strict=True)
            },
        }

    def _require_space(self, space: SearchSpace) -> None:
        if space.describe() != self.space.describe():
            same = " (one with other choices)" if space.name == self.space.name else ""
            raise InputError(f"latency table: made for the space {self.space.name}{same}, not {space.name}")


def _as_text(value: Any, indent: str = "", depth: int = 0) -> str:
    """JSON with one line for every round and every entry."""
    if depth >= 2 and not (isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())):
        return json.dumps(value)
    if not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(k)}: {_as_text(v, inner, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _as_text(v, inner, depth + 1) for v in value) + f"\n{indent}]"
