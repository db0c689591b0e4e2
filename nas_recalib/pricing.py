"""Cost table of a search: MACs and parameters, with latency and peak memory where a budget needs them."""

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
    """Latencies as a study stores them, so that it can be resumed on another machine.

    Attributes:
        constant: Nanoseconds that no choice changes.
        entries: Nanoseconds of the choices at each position.
        reference: Network that all others were measured beside.
        reference_ms: Latency of the reference, in milliseconds.
        conditions: Conditions of the measurement.
    """

    constant: Nanoseconds
    entries: list[list[Nanoseconds]]
    reference: str
    reference_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    conditions: dict[str, Any]

    @classmethod
    def of(cls, table: LatencyTable, space: SearchSpace) -> "Latencies":
        """Return the latencies that a search needs from a table.

        Raises:
            InputError: If the table belongs to another space, device or version, or predicts a network
                without any latency.
        """
        table.require(space, table.conditions.device_here())
        constant, entries = table.column(space)
        fastest = constant + sum(int(column.min()) for column in entries)
        if fastest <= 0:
            raise InputError(
                f"latency: the table predicts {fastest / 1e6:.3f} ms for the fastest network, as its timings "
                "were disturbed; make it again on an idle machine or with more --rounds"
            )
        lists = [[int(entry) for entry in column] for column in entries]
        return cls(constant, lists, str(table.reference), table.reference_ms, table.conditions.model_dump())

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], space: SearchSpace) -> "Latencies":
        """Return the latencies that a study stores.

        Raises:
            InputError: If they are invalid, or belong to another space.
        """
        try:
            latencies = _LATENCIES.validate_python(content)
            Conditions.model_validate(latencies.conditions)
            Architecture.parse(latencies.reference)
        except ValueError as error:
            raise InputError("latencies: the study's latency table is invalid") from error
        sizes = [len(position.choices) for position in space.positions]
        if [len(column) for column in latencies.entries] != sizes:
            raise InputError(f"latencies: the study's latency table is not one of the space {space.name}")
        return latencies


_LATENCIES = TypeAdapter(Latencies)


def find_latencies(space: SearchSpace, path: Path | None, folder: Path = TABLES) -> Latencies:
    """Return the latencies of a space that were measured on this machine.

    Args:
        space: Search space.
        path: File of the latency table (default: the table in the folder for this space and a device of this
            machine).
        folder: Folder of latency tables.

    Raises:
        InputError: If there is no such table, or more than one.
    """
    if path is not None:
        return Latencies.of(LatencyTable.load(path), space)
    found: dict[Path, Latencies] = {}
    unfit = ""
    for candidate in sorted(folder.glob(f"{space.name}-*.json")):
        try:
            found[candidate] = Latencies.of(LatencyTable.load(candidate), space)
        except InputError as error:  # measured on another machine, or not complete
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


def resolve_batch(batch: int | None, latencies: Latencies | None) -> int:
    """Return the batch size of the latency table, if there is one, else the given one, else 1.

    Raises:
        InputError: If the given batch size is not that of the table.
    """
    measured = latencies.conditions["batch"] if latencies else None
    if None not in (batch, measured) and batch != measured:
        raise InputError(f"batch: {batch}, but the latency table was measured with a batch of {measured}")
    return measured or batch or 1


def cost_table(
    space: SearchSpace,
    budget: Budget,
    latencies: Latencies | None,
    batch: int,
    threads: int | None = None,
    objectives: Collection[str] = (),
) -> CostTable:
    """Return the cost table of a space with a column for every limit and objective.

    Args:
        space: Search space.
        budget: Limits on the costs.
        latencies: Latencies of the target device, if there are any.
        batch: Number of images at once, for the peak memory.
        threads: Number of CPU threads, for the peak memory (default: half of the cores; with latencies, those
            of their conditions).
        objectives: Costs to minimise.
    """
    table = space.table
    if latencies is not None:
        entries = [np.array(column, dtype=np.int64) for column in latencies.entries]
        table = table.with_column("latency", latencies.constant, entries)
    if budget.memory is not None or "memory" in objectives:
        here = {"kind": "cpu", "dtype": "float32", "threads": threads or default_threads()}
        target: dict[str, Any] = latencies.conditions if latencies else here
        dtype: torch.dtype = getattr(torch, target["dtype"])
        with with_threads(target["threads"]):
            peaks = space.peaks(batch, dtype, target["kind"])
        table = table.with_column("memory", *peaks)
    return table


def feasible(space: SearchSpace, table: CostTable, budget: Budget) -> Feasible:
    """Return the architectures within a budget.

    Raises:
        InputError: If there are none; if all are too slow, the fastest is described.
    """
    if budget.latency is not None and budget.latency < table.least()["latency"]:
        column = table.names.index("latency")
        fastest = space.from_indices(tuple(int(rows[:, column].argmin()) for rows in table.entries))
        raise InputError(
            f"latency: {budget.latency / 1e6:g} ms is below the fastest architecture of {space.name}, "
            f"{table.least()['latency'] / 1e6:.3f} ms: {fastest.operators()}"
        )
    return Feasible(table, budget)
