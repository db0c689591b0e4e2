"""Worker of a real search whose trainings are a formula and a pause, for the other benchmarks.

    python benchmarks/stand_in_worker.py --storage URL --folder FOLDER --trials 2000

Every epoch is logged to FOLDER/trained-PROCESS.log, a line with its number and the architecture.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import optuna
import torch

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, Feasible
from nas_recalib.proxy.evaluation import State
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.heartbeat import StorageHeartbeat
from nas_recalib.search.local import run_here
from nas_recalib.search.search import Search
from nas_recalib.space import SearchSpace
from nas_recalib.study.location import StudyLocation, create_study, locked_worker

NAME = "many"
BUDGET = Budget(macs=41_000_000)  # about half of the space
SPACE = """
name: many
backbone: resnet20
granularity: block
convolution: [vanilla, scconv, psconv]
recalibration: [none, ab]
"""
_SCORES = {"vanilla": 0.0, "scconv": 0.2, "psconv": 0.6, "none": 0.0, "ab": 0.3}


@dataclass
class Training:
    curve: list[Epoch]

    def state_dict(self) -> State:
        return {"curve": [astuple(epoch) for epoch in self.curve], "weights": torch.zeros(10_000)}


@dataclass(frozen=True)
class StandIn:
    """Proxy that waits in every epoch, logs it and returns an accuracy by formula."""

    folder: Path
    seconds: float
    epochs: int = 2
    seed: int = 0
    fingerprint: str = "a formula"

    def to(self, device: torch.device) -> "StandIn":
        return self

    def steps(
        self, architecture: Architecture, start: State | None = None, parts: int = 1
    ) -> Iterator[Training | Failure]:
        training = Training([Epoch(*values) for values in start["curve"]] if start else [])
        score = sum(_SCORES[c.convolution.name] + _SCORES[c.recalibration.name] for c in architecture.choices)
        for number in range(len(training.curve) + 1, self.epochs + 1):
            time.sleep(self.seconds)
            accuracy = score / len(architecture.choices) * number / self.epochs
            training.curve.append(Epoch(number, 1.0, accuracy))
            self._log(f"{number}\t{architecture}\n")
            yield training

    def _log(self, line: str) -> None:
        with (self.folder / f"trained-{os.getpid()}.log").open("a") as log:
            log.write(line)


class Silent:
    """Observer that does nothing."""

    def started(self, number: int, architecture: Architecture) -> None: ...

    def epoch(self, number: int, epoch: Epoch) -> None: ...

    def ended(self, trial: optuna.trial.FrozenTrial) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--ray", help="address of a cluster to train on")
    parser.add_argument("--strategy", default="predictor")
    parser.add_argument("--beat", type=float, default=2.0)
    parser.add_argument("--grace", type=float, default=6.0)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    location = StudyLocation(NAME, given.folder, given.storage)
    space = SearchSpace.parse(SPACE, NAME)
    study = create_study(location)
    with (
        locked_worker(given.folder, exclusive=False) as worker,
        StorageHeartbeat(study._storage, given.folder, given.beat, given.grace) as heartbeat,
    ):
        search = Search(
            study=study,
            space=space,
            feasible=Feasible(space.table, BUDGET),
            proxy=StandIn(given.folder, given.seconds, given.epochs),  # type: ignore[arg-type]
            strategy=given.strategy,
            pruner="none",
            seed=0,
            common_attrs={"fidelity": {"validation": 100}, "device": "none", "versions": {}},
            checkpoints=Checkpoints(given.folder / "checkpoints"),
            worker=worker,
            shared=True,
            heartbeat=heartbeat,
            retries=1000,  # workers are killed at random, which says nothing of the architecture
        )
        if given.ray:
            from nas_recalib.cluster import Resources, connect, run_there  # late: it takes seconds

            with connect(given.ray):
                run_there(search, given.trials, Silent(), Resources())
        else:
            run_here(search, given.trials, Silent())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
