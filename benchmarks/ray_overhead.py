"""Overhead of a search on Ray, with trainings that are a pause each.

    python benchmarks/ray_overhead.py --trials 200 --seconds 1 --workers 2

Measured twice: with jobs that cost nothing to propose, for the overhead of Ray alone, and with a search on
SQLite, for all overhead. Ray is started before, its actors are not. Prints and writes JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import torch
from stand_in_worker import BUDGET, NAME, SPACE, Silent, StandIn

from nas_recalib.architecture import Architecture
from nas_recalib.cluster import Resources, connect, run_on_ray, run_there
from nas_recalib.costs import Feasible
from nas_recalib.device import device_name, versions
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.job import Job, Step
from nas_recalib.search.pruning import DEFAULT_PRUNER
from nas_recalib.search.samplers import DEFAULT
from nas_recalib.search.search import Search
from nas_recalib.space import SearchSpace
from nas_recalib.study.location import StudyLocation, create_study

RESULTS = Path(__file__).parents[1] / "docs" / "results"


@dataclass
class FreeJobs:
    """Job source whose jobs cost nothing to propose."""

    trials: int
    epochs: int = 1
    started: int = 0
    running: set[int] = field(default_factory=set)
    most: int = 0

    @property
    def done(self) -> bool:
        return self.started == self.trials and not self.running

    def next_job(self) -> Job | None:
        if self.started == self.trials:
            return None
        self.running.add(self.started)
        self.started += 1
        self.most = max(self.most, len(self.running))
        return Job(self.started - 1, Architecture.of("resnet20", "vanilla"))

    def report(self, number: int, step: Step) -> bool:
        return False

    def finish(self, number: int, attrs: object) -> None:
        self.running.remove(number)

    def fail(self, number: int, failure: Failure) -> None:
        raise RuntimeError(failure.details or failure.message)

    def mark_lost(self, number: int, message: str) -> None:
        raise RuntimeError(message)


def pausing(seconds: float, _: torch.device) -> Callable[[Job], Iterator[Step]]:
    def train(_: Job) -> Iterator[Step]:
        time.sleep(seconds)
        yield Step(Epoch(1, 1.0, 0.5), seconds)

    return train


def ray_alone(given: argparse.Namespace) -> dict[str, Any]:
    source = FreeJobs(given.trials)
    seconds = timed(
        lambda: run_on_ray(source, partial(pausing, given.seconds), Resources(), workers=given.workers)
    )
    return {"what": "Ray alone", "seconds": seconds, "most_at_once": source.most}


def whole_search(given: argparse.Namespace) -> dict[str, Any]:
    space = SearchSpace.parse(SPACE, NAME)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        search = Search(
            study=create_study(StudyLocation(NAME, folder)),
            space=space,
            feasible=Feasible(space.table, BUDGET),
            proxy=StandIn(folder, given.seconds, epochs=1),  # type: ignore[arg-type]
            strategy=DEFAULT,
            pruner=DEFAULT_PRUNER,
            seed=0,
            common_attrs={},
            checkpoints=Checkpoints(folder / "checkpoints"),
            worker="here",
        )
        run = partial(run_there, search, given.trials, Silent(), Resources(), workers=given.workers)
        return {"what": f"a search on SQLite by {DEFAULT}", "seconds": timed(run)}


def timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return round(time.perf_counter() - begun, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a trial")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "ray-overhead.json")
    given = parser.parse_args()
    require_writable(given.output)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with connect("local"):
        results = [ray_alone(given), whole_search(given)]
    bare = given.trials * given.seconds / given.workers
    for result in results:
        result["overhead_percent"] = round(100 * (result["seconds"] / bare - 1), 1)
    asked = {name: value for name, value in vars(given).items() if name != "output"}
    where = {"device": device_name(torch.device("cpu")), "versions": versions()}
    text = json.dumps({"asked_for": asked, "bare_seconds": bare, "results": results, **where}, indent=2)
    write_atomically(given.output, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
