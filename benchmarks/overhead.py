"""Overhead of a search besides training, on each kind of storage.

    python benchmarks/overhead.py --strategies predictor random

A study in memory and one on SQLite are filled in turn, trial by trial, with trainings that take no time. The
result is the time of the last hundred trials, with two reports each. Prints a table and writes JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from rich.table import Table
from stand_in_worker import Silent

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, Feasible
from nas_recalib.device import device_name, versions
from nas_recalib.errors import InputError
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.proxy.evaluation import State
from nas_recalib.proxy.train import Epoch
from nas_recalib.report.terminal import print_table
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.local import run_here
from nas_recalib.search.pruning import DEFAULT_PRUNER
from nas_recalib.search.samplers import DEFAULT, STRATEGIES
from nas_recalib.search.search import Search
from nas_recalib.space import SearchSpace
from nas_recalib.study.location import StudyLocation, create_study

RESULTS = Path(__file__).parents[1] / "docs" / "results"
LAST = 100


@dataclass
class Training:
    curve: list[Epoch]

    def state_dict(self) -> State:
        return {}


@dataclass
class NoTraining:
    """Proxy that returns random accuracies at once."""

    seed: int
    epochs: int = 2

    fingerprint = "none"

    def steps(
        self, architecture: Architecture, start: State | None = None, parts: int = 1
    ) -> Iterator[Training]:
        random = np.random.default_rng(abs(hash(str(architecture))) % 2**32)
        curve = [Epoch(1, 1.0, random.uniform(0.2, 0.4)), Epoch(2, 0.9, random.uniform(0.3, 0.5))]
        for number in (1, 2):
            yield Training(curve[:number])


def make(study: optuna.Study, space: SearchSpace, feasible: Feasible, strategy: str, folder: Path) -> Search:
    return Search(
        study=study,
        space=space,
        feasible=feasible,
        proxy=NoTraining(0),  # type: ignore[arg-type]
        strategy=strategy,
        pruner=DEFAULT_PRUNER,
        seed=0,
        common_attrs={"fidelity": {"epochs": 2}, "device": "none", "versions": versions()},
        checkpoints=Checkpoints(folder),
        worker="here",
    )


def milliseconds(searches: dict[str, Search], trials: int) -> dict[str, list[float]]:
    """Return the milliseconds that each of the last trials took, by the name of the search."""
    times: dict[str, list[float]] = {name: [] for name in searches}
    for target in range(1, trials + 1):
        for name, search in searches.items():
            start = time.perf_counter()
            run_here(search, target, Silent())
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: all_times[-LAST:] for name, all_times in times.items()}


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    space = SearchSpace.load(arguments.space)
    feasible = Feasible(space.table, Budget.parse(arguments.budget, None))
    results = []
    for strategy in arguments.strategies:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            location = StudyLocation("s", Path(folder))
            studies = {"memory": optuna.create_study(direction="maximize"), "sqlite": create_study(location)}
            searches = {
                name: make(study, space, feasible, strategy, Path(folder)) for name, study in studies.items()
            }
            for name, times in milliseconds(searches, arguments.trials).items():
                low, middle, high = np.percentile(times, (25, 50, 75)).tolist()
                row = {"strategy": strategy, "storage": name, "trials": arguments.trials}
                results.append({**row, "milliseconds": middle, "quartiles": [low, high]})
    return results


def shown(results: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("strategy", "storage", "ms a trial", "quartiles"):
        table.add_column(heading, no_wrap=True)
    for row in results:
        quartiles = " to ".join(f"{value:.1f}" for value in row["quartiles"])
        table.add_row(row["strategy"], row["storage"], f"{row['milliseconds']:.1f}", quartiles)
    return table


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--space", default="resnet50", help="name or file")
    parser.add_argument("--budget", default="4G", help="limit on multiply-accumulates")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=[DEFAULT])
    parser.add_argument("--trials", type=int, default=1000, help="that a study is filled up to")
    parser.add_argument("--folder", type=Path, help="where databases are made (default: the system's)")
    parser.add_argument("--output", type=Path, default=RESULTS / "overhead.json", help="JSON")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if arguments.trials < 1:
            raise InputError(f"trials: {arguments.trials} is not at least 1")
        require_writable(arguments.output)
        results = measure(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    content = {
        "command": " ".join(["python", "benchmarks/overhead.py", *sys.argv[1:]]),
        "device": device_name(torch.device("cpu")),
        "versions": versions(),
        "space": arguments.space,
        "budget": arguments.budget,
        "results": results,
    }
    write_atomically(arguments.output, json.dumps(content, indent=1) + "\n")
    print_table(shown(results))


if __name__ == "__main__":
    main()
