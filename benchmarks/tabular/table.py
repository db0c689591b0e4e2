"""Tabular benchmark: every architecture of a small space with its recorded trainings."""

import gzip
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nas_recalib.errors import InputError
from nas_recalib.files import write_atomically
from nas_recalib.space import SearchSpace

FORMAT = "nas-recalib/tabular/1"
LARGEST = 5_000_000  # bytes of a packed table
INDICES = "picks"  # key of the architecture in a row of the journal
Indices = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """One recorded training.

    Attributes:
        seed: Seed of the weights, batches and augmentation.
        accuracies: Accuracies on the validation images after each epoch, 0 to 1.
        losses: Mean training losses of the epochs.
        seconds: Seconds of each epoch with validation, of the first with building the network; for a failed
            training also those until it failed.
        origin: Index of the machine, versions and commit in the table's `origins`.
        failure: Kind of the failure, or None if the training was completed.
    """

    seed: int
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    origin: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class Table:
    """Table of all trainings of a space, in which a simulated search looks up its results.

    Attributes:
        space: Search space.
        header: Options of the trainings, and quantiles of the costs.
        origins: Machines, versions and commits that trained them.
        runs: Trainings of every architecture, by its indices; the first has the seed common to all.
    """

    space: SearchSpace
    header: dict[str, Any]
    origins: tuple[dict[str, Any], ...]
    runs: dict[Indices, tuple[Run, ...]]

    @property
    def epochs(self) -> int:
        return int(self.header["fidelity"]["epochs"])

    @cached_property
    def seconds(self) -> float:
        """Mean seconds of a complete training."""
        return statistics.mean(sum(run.seconds) for runs in self.runs.values() for run in runs)

    @cached_property
    def best(self) -> float:
        """Greatest quality of an architecture."""
        return max(map(self.quality, self.runs))

    @cached_property
    def top(self) -> float:
        """Least quality of the best hundredth of architectures."""
        qualities = sorted(map(self.quality, self.runs), reverse=True)
        return qualities[math.ceil(len(qualities) / 100) - 1]

    def observe(self, indices: Indices, seed: int) -> Run:
        """Return one of an architecture's trainings, which depends on the seed of the search."""
        runs = self.runs[indices]
        return runs[int(np.random.default_rng((seed, *indices)).integers(len(runs)))]

    def quality(self, indices: Indices) -> float:
        """Return the mean accuracy over the seeds at the last epoch; 0 where every training failed."""
        ends = [run.accuracies[-1] for run in self.runs[indices] if run.failure is None]
        return statistics.fmean(ends) if ends else 0.0

    def pack(self, path: Path) -> int:
        """Write the table as one compressed JSON file.

        Returns:
            Size of the file in bytes.

        Raises:
            InputError: If it would be larger than `LARGEST`, or cannot be written.
        """
        content = {
            "format": FORMAT,
            **self.header,
            "origins": self.origins,
            "runs": [
                [indices, [astuple(run) for run in runs]] for indices, runs in sorted(self.runs.items())
            ],
        }
        packed = gzip.compress(json.dumps(content, allow_nan=False).encode(), mtime=0)
        if len(packed) > LARGEST:
            raise InputError(f"{path}: {len(packed):,} bytes are more than {LARGEST:,}")
        write_atomically(path, packed)
        return len(packed)

    @classmethod
    def load(cls, path: Path) -> "Table":
        """Read a table that `pack` wrote.

        Raises:
            InputError: If the file cannot be read, or is not such a table.
        """
        try:
            content = json.loads(gzip.decompress(path.read_bytes()))
        except FileNotFoundError as error:
            raise InputError(f"{path}: not found; run benchmarks/tabular/make_table.py to make it") from error
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as a packed table: {error}") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise InputError(f"{path}: is not of the format {FORMAT}")
        runs = {tuple(indices): tuple(map(_read_run, rows)) for indices, rows in content.pop("runs")}
        origins = tuple(content.pop("origins"))
        return cls(SearchSpace.parse(content["space"], str(path)), content, origins, runs)


def every_architecture(space: SearchSpace) -> list[Indices]:
    """Return the indices of every different network of a space."""
    combinations = product(*(range(len(position.choices)) for position in space.positions))
    return list({space.from_indices(indices): indices for indices in combinations}.values())


def spread_of_costs(space: SearchSpace, indices: Sequence[Indices]) -> dict[str, list[int]]:
    """Return the least value, the quartiles and the greatest value of each cost."""
    spread = np.quantile(
        space.table.costs(np.array(indices)), (0, 0.25, 0.5, 0.75, 1), axis=0, method="nearest"
    )
    return {name: spread[:, column].tolist() for column, name in enumerate(space.table.names)}


def gather(
    space: SearchSpace,
    header: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    wanted: Sequence[tuple[Indices, int]],
) -> Table:
    """Collect the rows of a journal in a table.

    Args:
        space: Search space.
        header: Header of the journal.
        rows: Rows of the journal, as `row_of` makes them.
        wanted: Indices and seed of each training, the seeds of an architecture in their order.

    Raises:
        InputError: If a training is missing.
    """
    trained = {(tuple(row[INDICES]), row["seed"]): row for row in rows}
    missing = [one for one in wanted if one not in trained]
    if missing:
        raise InputError(f"table: {len(missing)} of {len(wanted)} trainings are not done")
    origins = list({json.dumps(row["origin"], sort_keys=True): row["origin"] for row in rows}.values())
    runs: dict[Indices, list[Run]] = {}
    for indices, seed in wanted:
        row = trained[indices, seed]
        curves = (row["accuracies"], row["losses"], row["seconds"])
        run = _read_run((seed, *curves, origins.index(row["origin"]), row["failure"]))
        runs.setdefault(indices, []).append(run)
    costs = spread_of_costs(space, list(runs))
    return Table(
        space,
        {**header, "networks": len(runs), "costs": costs},
        tuple(origins),
        {indices: tuple(found) for indices, found in runs.items()},
    )


def row_of(indices: Indices, run: Run, origin: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the journal for a training."""
    return {INDICES: indices, **asdict(run), "origin": origin}


def _read_run(values: Sequence[Any]) -> Run:
    seed, accuracies, losses, seconds, origin, failure = values
    return Run(seed, tuple(accuracies), tuple(losses), tuple(seconds), origin, failure)
