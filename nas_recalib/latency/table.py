"""LatencyTable: the latency of every choice at every position of a space on one machine, measured in rounds.

Each round is saved, so that an unfinished file can be resumed.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from nas_recalib.architecture import Architecture
from nas_recalib.costs.table import Integers
from nas_recalib.device import device_name, versions
from nas_recalib.errors import InputError, input_errors
from nas_recalib.files import StrictModel, read_json, require_writable, write_atomically
from nas_recalib.latency.conditions import Conditions
from nas_recalib.latency.fit import (
    Entry,
    Fit,
    Round,
    fit_networks,
    make_entries,
    max_choices,
    reference_seconds,
    round_indices,
    run_rounds,
)
from nas_recalib.latency.measure import PairedTimer, Timer
from nas_recalib.space import SearchSpace
from nas_recalib.timing.cases import Settings

MAX_ROUNDS = 100_000
_ROUNDS_PER_CHOICE = 3


class _TableFile(StrictModel):
    format: Literal["nas-recalib/latency/1"]
    space: str
    conditions: Conditions
    wanted: int = Field(ge=1, le=MAX_ROUNDS)
    table: dict[str, Any] | None  # computed from the rounds, for other programs
    rounds: list[Round]


@dataclass(frozen=True)
class LatencyTable:
    """A constant and an entry for each choice at each position; a network's latency is their sum.

    Attributes:
        space: Search space of the table.
        conditions: Machine and settings of the timings.
        wanted: Number of rounds of the finished table.
        rounds: Rounds that have been measured.
    """

    space: SearchSpace
    conditions: Conditions
    wanted: int
    rounds: tuple[Round, ...]

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a finished table.

        Raises:
            InputError: If the file is no table, or not finished.
        """
        table = cls.load_unfinished(Path(path))
        if not table.finished:
            raise InputError(
                f"{path}: not finished, {len(table.rounds)} of {table.rounds_needed} rounds; run the same "
                "'nas-recalib latency' again to resume"
            )
        return table

    @classmethod
    def load_unfinished(cls, path: Path) -> "LatencyTable":
        """Read a table that may have fewer rounds than wanted.

        Raises:
            InputError: If the file is no table.
        """
        file = read_json(path, _TableFile)
        space = SearchSpace.parse(file.space, f"{path}: space")
        blocks = sum(len(position.blocks) for position in space.positions)
        for number, measured in enumerate(file.rounds):
            expected = round_indices(space, file.conditions.seed, number)
            if tuple(measured.indices) != expected or len(measured.blocks_ns) != blocks:
                raise InputError(f"{path}: rounds.{number} is not of this space and seed; was it edited?")
        return cls(space, file.conditions, file.wanted, tuple(file.rounds))

    def save(self, path: Path) -> None:
        """Write the table atomically.

        Raises:
            InputError: If the file cannot be written.
        """
        write_atomically(path, _as_text(self.as_dict()) + "\n")

    @property
    def rounds_needed(self) -> int:
        """Number of rounds of the finished table, in which each choice is timed at each position."""
        return max(self.wanted, max_choices(self.space))

    @property
    def finished(self) -> bool:
        """Whether all rounds are measured."""
        return len(self.rounds) >= self.rounds_needed

    @cached_property
    def entries(self) -> tuple[tuple[Entry, ...], ...]:
        """Entry of each choice, for each position of the space."""
        return make_entries(self.space, self.rounds)

    @cached_property
    def fit(self) -> Fit:
        """Fit of whole networks to the sums of their entries."""
        return fit_networks(self.rounds, self.entries)

    @property
    def reference(self) -> Architecture:
        """Network that every other was timed with alternately: the first choice at every position."""
        return self.space.from_indices((0,) * len(self.space.positions))

    @property
    def reference_ms(self) -> float:
        """Median latency of the reference in milliseconds; all times of the table are relative to it."""
        return reference_seconds(self.rounds) * 1e3

    def require(self, space: SearchSpace, device: torch.device, *, threads: int | None = None) -> None:
        """Raise InputError unless the table is of a space and of a device of this machine.

        Args:
            space: Search space whose latencies are wanted.
            device: Device whose latencies are wanted.
            threads: Number of CPU threads, if the table has to have the same (default: any).

        Raises:
            InputError: If the space, the device, a version or the number of threads differs.
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
            raise InputError(f"latency table: made with {difference}; run 'nas-recalib latency' here")

    def column(self, space: SearchSpace) -> tuple[int, tuple[Integers, ...]]:
        """Return the table in whole nanoseconds, for a column of a cost table.

        Returns:
            The constant, and for each position of the space the latencies of its choices, shape (choices,).

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
        """Return the milliseconds of a forward pass with the table's batch size.

        Raises:
            InputError: If the architecture is not of the table's space.
        """
        constant, entries = self.column(self.space)
        indices = self.space.indices_of(architecture)
        return (constant + sum(int(row[index]) for row, index in zip(entries, indices, strict=True))) / 1e6

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {
            "format": "nas-recalib/latency/1",
            "space": self.space.describe(),
            "conditions": self.conditions.model_dump(),
            "wanted": self.wanted,
            "table": self._summary() if self.finished else None,
            "rounds": [measured.model_dump(by_alias=True) for measured in self.rounds],
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
    """Return JSON with a line for every round and every entry."""
    if depth >= 2 and not (isinstance(value, dict) and any(isinstance(v, dict) for v in value.values())):
        return json.dumps(value)
    if not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(k)}: {_as_text(v, inner, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _as_text(v, inner, depth + 1) for v in value) + f"\n{indent}]"


def resolve_rounds(space: SearchSpace, rounds: int | None = None) -> int:
    """Return the number of rounds of a table.

    Args:
        space: Search space of the table.
        rounds: Number that the user wants (default: three for every choice of the position with most).

    Raises:
        InputError: If there are too few for every choice to be timed at every position, or too many.
    """
    least = max_choices(space)
    rounds = _ROUNDS_PER_CHOICE * least if rounds is None else rounds
    if not least <= rounds <= MAX_ROUNDS:
        raise InputError(
            f"rounds: {rounds} is not from {least} (so that every choice is timed) to {MAX_ROUNDS:,}"
        )
    return rounds


def default_path(folder: Path, space: SearchSpace, settings: Settings, batch: int) -> Path:
    """Return the default file of a table, and make its folder.

    Raises:
        InputError: If the folder cannot be made.
    """
    compiled = "-compile" if settings.compile else ""
    device = str(settings.device).replace(":", "")
    with input_errors(f"{folder}: cannot be written", OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{space.name}-{device}-b{batch}-{settings.dtype}{compiled}.json"


def build_table(
    path: Path,
    space: SearchSpace,
    settings: Settings,
    batch: int,
    *,
    rounds: int | None = None,
    progress: Callable[[LatencyTable], None] = lambda _: None,
    timer: Timer | None = None,
) -> LatencyTable:
    """Measure a latency table, or resume the one in the file; the file is written after every round.

    Args:
        path: File of the table.
        space: Search space whose choices are timed.
        settings: Device, dtype and so on; `seconds` is the time of one round without warm-up.
        batch: Batch size.
        rounds: Number of rounds of the table (default: that of the file, or three for each choice); a file
            that has more keeps them.
        progress: Function that is called with the table after each round.
        timer: Replacement of a `PairedTimer`.

    Raises:
        InputError: If the file cannot be written or is of other conditions, or there are too few rounds.
    """
    wanted = resolve_rounds(space, rounds)
    require_writable(path)
    table = _resume(path, LatencyTable(space, Conditions.of(settings, batch), wanted, ()), rounds is None)
    missing = range(len(table.rounds), table.wanted)
    if missing and timer is None:
        timer = partial(PairedTimer(table.reference, settings, batch).time, blocks=True)
    for measured in run_rounds(space, settings.seed, missing, timer) if timer else ():
        table = replace(table, rounds=(*table.rounds, measured))
        table.save(path)
        progress(table)
    return table


def _resume(path: Path, new: LatencyTable, keep_wanted: bool) -> LatencyTable:
    """Return the table in the file, if it has the conditions of the new one, else the new one.

    Args:
        path: File of the table.
        new: Table without rounds.
        keep_wanted: Whether the number of rounds is that of the file instead of the new table's.
    """
    if not path.exists():
        return new
    found = LatencyTable.load_unfinished(path)
    if found.space.describe() != new.space.describe():
        raise InputError(f"{path}: made for another space, {found.space.name}; name another file with -o")
    difference = found.conditions.difference(new.conditions)
    if difference:
        raise InputError(f"{path}: made with {difference}; name another file with -o")
    wanted = found.wanted if keep_wanted else new.wanted
    table = replace(found, wanted=max(wanted, len(found.rounds)))
    if table.finished and not found.finished:
        table.save(path)
    return table
