"""What the architectures of a space cost: MACs and parameters, and what a budget limits besides."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, TypeAdapter

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, CostTable, Feasible
from nas_recalib.device import default_threads, with_threads
from nas_recalib.errors import InputError
from nas_recalib.latency.conditions import Conditions
from nas_recalib.latency.table import LatencyTable
from nas_recalib.space import SearchSpace

Nanoseconds = Annotated[int, Field(ge=-(2**53), le=2**53)]
TABLES = Path("runs") / "latency"


@dataclass(frozen=True)
class Latencies:
    """A table of latencies as a study keeps it, so that it can go on wherever it is.

    Attributes:
        constant: Nanoseconds that no choice changes.
        entries: For each position of the space its choices' nanoseconds.
        reference: The network that stood beside all others.
        reference_ms: What it took.
        conditions: Under which they were measured.
    """

    constant: Nanoseconds
    entries: list[list[Nanoseconds]]
    reference: str
    reference_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    conditions: dict[str, Any]

    @classmethod
    def of(cls, table: LatencyTable, space: SearchSpace) -> "Latencies":
        """What a search needs of a table.

        Raises:
            InputError: If the table is of another space, device or version.
        """
        table.require(space, table.conditions.device_here())
        constant, entries = table.column(space)
        lists = [[int(entry) for entry in column] for column in entries]
        return cls(constant, lists, str(table.reference), table.reference_ms, table.conditions.model_dump())

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], space: SearchSpace) -> "Latencies":
        """Reads what a study keeps of a table.

        Raises:
            InputError: If it is of another form, or of another space.
        """
        try:
            kept = _FORM.validate_python(content)
            Conditions.model_validate(kept.conditions)
            Architecture.parse(kept.reference)
        except ValueError as error:
            raise InputError("latencies: what the study keeps of a table is not of its form") from error
        if [len(column) for column in kept.entries] != [
            len(position.choices) for position in space.positions
        ]:
            raise InputError(f"latencies: what the study keeps of a table is not of the space {space.name}")
        return kept


_FORM = TypeAdapter(Latencies)


def find_latencies(space: SearchSpace, path: Path | None, folder: Path = TABLES) -> Latencies:
    """The table of a space that was measured on this machine.

    Args:
        space: Whose.
        path: Of its file (default: the one in the folder that is of this space and a device of this machine).
        folder: To look in.

    Raises:
        InputError: If there is none, or more than one.
    """
    if path is not None:
        return Latencies.of(LatencyTable.load(path), space)
    found: dict[Path, Latencies] = {}
    unfit = ""
    for candidate in sorted(folder.glob(f"{space.name}-*.json")):
        try:
            found[candidate] = Latencies.of(LatencyTable.load(candidate), space)
        except InputError as error:  # of another machine, or not finished
            unfit = f"; {error}"
    if not found:
        raise InputError(
            f"latency: no table of {space.name} for this machine in {folder}; make one with "
            f"'nas-recalib latency' and the same --space{unfit}"
        )
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise InputError(f"latency: more than one table; name one with --latency-table: {names}")
    return next(iter(found.values()))


def meant_batch(asked: int | None, latencies: Latencies | None) -> int:
    """Images at once: those of the table of latencies, if there is one, else as asked, else 1.

    Raises:
        InputError: If another number is asked for than the table's.
    """
    measured = latencies.conditions["batch"] if latencies else None
    if None not in (asked, measured) and asked != measured:
        raise InputError(f"batch: {asked}, but the latencies are those of {measured}")
    return measured or asked or 1


def price(
    space: SearchSpace,
    budget: Budget,
    latencies: Latencies | None,
    batch: int,
    threads: int | None = None,
    objectives: Collection[str] = (),
) -> CostTable:
    """The cost table of a space with a column for everything that is limited or an objective.

    Args:
        space: Which.
        budget: What is limited.
        latencies: Of the device that is meant, if any.
        batch: Images at once, for the peak memory.
        threads: Of the CPU, for the same (default: half of its cores); the table's if there are latencies.
        objectives: What is to be low besides.
    """
    table = space.table
    if latencies is not None:
        entries = [np.array(column, dtype=np.int64) for column in latencies.entries]
        table = table.with_column("latency", latencies.constant, entries)
    if budget.memory is not None or "memory" in objectives:
        here = {"kind": "cpu", "dtype": "float32", "threads": threads or default_threads()}
        meant: dict[str, Any] = latencies.conditions if latencies else here
        dtype: torch.dtype = getattr(torch, meant["dtype"])
        with with_threads(meant["threads"]):
            peaks = space.peaks(batch, dtype, meant["kind"])
        table = table.with_column("memory", *peaks)
    return table


def feasible(space: SearchSpace, table: CostTable, budget: Budget) -> Feasible:
    """The architectures within a budget.

    Raises:
        InputError: If there is none; where all are too slow, the fastest is described.
    """
    if budget.latency is not None and budget.latency < table.least()["latency"]:
        column = table.names.index("latency")
        fastest = space.from_indices(tuple(int(rows[:, column].argmin()) for rows in table.entries))
        raise InputError(
            f"latency: {budget.latency / 1e6:g} ms is below the fastest architecture of {space.name}, "
            f"{table.least()['latency'] / 1e6:.3f} ms: {fastest.operators()}"
        )
    return Feasible(table, budget)
