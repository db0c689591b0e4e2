"""A tabular benchmark: every architecture of a small space with its recorded trainings."""

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
Indices = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """One recorded training.

    Attributes:
        seed: Of the weights, batches and augmentation.
        accuracies: On the validation images after each epoch, 0 to 1.
        losses: Mean training loss of each epoch.
        seconds: Of each epoch with its validation, the first with the network's making; and until it failed.
        origin: Number of the machine, versions and commit in the table's `origins`.
        failure: Why it has no end.
    """

    seed: int
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: tuple[float, ...]
    origin: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class Table:
    """All trainings of a space; what a search would have seen is looked up.

    Attributes:
        space: Whose.
        header: How they were trained, and how costs are spread.
        origins: Machines, versions and commits.
        runs: Of every architecture, by its picks; the first seed is everyone's.
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
        """Of a whole training, in the mean."""
        return statistics.mean(sum(run.seconds) for runs in self.runs.values() for run in runs)

    @cached_property
    def best(self) -> float:
        """The greatest quality."""
        return max(map(self.quality, self.runs))

    @cached_property
    def top(self) -> float:
        """The least quality of the best hundredth."""
        qualities = sorted(map(self.quality, self.runs), reverse=True)
        return qualities[math.ceil(len(qualities) / 100) - 1]

    def observe(self, indices: Indices, seed: int) -> Run:
        """One of an architecture's trainings, which follows from the seed of the search."""
        runs = self.runs[indices]
        return runs[int(np.random.default_rng((seed, *indices)).integers(len(runs)))]

    def quality(self, indices: Indices) -> float:
        """Mean accuracy over the seeds at the last epoch; 0 where every training failed."""
        ends = [run.accuracies[-1] for run in self.runs[indices] if run.failure is None]
        return statistics.fmean(ends) if ends else 0.0

    def pack(self, path: Path) -> int:
        """Writes the table as one compressed file of JSON.

        Returns:
            Its bytes.

        Raises:
            InputError: If they are more than `LARGEST`, or cannot be written.
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
        """Reads what `pack` wrote.

        Raises:
            InputError: If it cannot be read or is something else.
        """
        try:
            content = json.loads(gzip.decompress(path.read_bytes()))
        except FileNotFoundError as error:
            raise InputError(f"{path}: not there; benchmarks/tabular/make_table.py makes it") from error
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as a packed table: {error}") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise InputError(f"{path}: is not of the format {FORMAT}")
        runs = {tuple(indices): tuple(map(_read_run, told)) for indices, told in content.pop("runs")}
        origins = tuple(content.pop("origins"))
        return cls(SearchSpace.parse(content["space"], str(path)), content, origins, runs)


def every_architecture(space: SearchSpace) -> list[Indices]:
    """The picks of every different network of a space."""
    all_picks = product(*(range(len(position.choices)) for position in space.positions))
    return list({space.from_indices(indices): indices for indices in all_picks}.values())


def spread_of_costs(space: SearchSpace, indices: Sequence[Indices]) -> dict[str, list[int]]:
    """The least, quartiles and greatest of each cost."""
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
    """A table of a journal's rows.

    Args:
        space: Whose.
        header: What the journal is about.
        rows: Of the journal: a `Run` each, with its picks and its origin as it is.
        wanted: Picks and seed of each training, the seeds of an architecture in their order.

    Raises:
        InputError: If a training is missing.
    """
    known = {(tuple(row["picks"]), row["seed"]): row for row in rows}
    missing = [one for one in wanted if one not in known]
    if missing:
        raise InputError(f"table: {len(missing)} of {len(wanted)} trainings are not done")
    origins = list({json.dumps(row["origin"], sort_keys=True): row["origin"] for row in rows}.values())
    runs: dict[Indices, list[Run]] = {}
    for indices, seed in wanted:
        row = known[indices, seed]
        told = (
            seed,
            *(row[key] for key in ("accuracies", "losses", "seconds")),
            origins.index(row["origin"]),
        )
        runs.setdefault(indices, []).append(_read_run((*told, row["failure"])))
    costs = spread_of_costs(space, list(runs))
    return Table(
        space,
        {**header, "networks": len(runs), "costs": costs},
        tuple(origins),
        {indices: tuple(found) for indices, found in runs.items()},
    )


def row_of(indices: Indices, run: Run, origin: dict[str, Any]) -> dict[str, Any]:
    """A training as the journal keeps it."""
    return {"picks": indices, **asdict(run), "origin": origin}


def _read_run(told: Sequence[Any]) -> Run:
    seed, accuracies, losses, seconds, origin, failure = told
    return Run(seed, tuple(accuracies), tuple(losses), tuple(seconds), origin, failure)
