"""What each storage takes for a trial while so many others are running.

    python benchmarks/thousand_workers.py --running 10 100 1000

A study is filled with running trials; then a worker ends one and begins one, again and again, with trainings
that take no time. Told are the seconds of a whole trial (proposed, written, claimed, two epochs reported with
checkpoints, ended), of writing it (a database locks the study meanwhile) and of one look at all trials in
it, of a sign of life, and the database server's part of the processor's time. Prints and writes JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
import torch
from many_workers import postgres
from postgres import Postgres, free_port, served
from stand_in_worker import BUDGET, NAME, SPACE, Silent, StandIn

from nas_recalib.costs import Feasible
from nas_recalib.device import device_name, versions
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.heartbeat import StorageHeartbeat
from nas_recalib.search.job import train
from nas_recalib.search.search import Search
from nas_recalib.search.trial_writer import TrialSpec
from nas_recalib.space import SearchSpace
from nas_recalib.study.location import StudyLocation, create_study
from nas_recalib.study.storage import sqlite_url

RESULTS = Path(__file__).parents[1] / "docs" / "results"
STORAGES = ("sqlite", "postgresql", "grpc", "journal")
TICKS = 100  # of the kernel's clock, a second


@contextmanager
def storages(folder: Path, names: list[str]) -> Iterator[dict[str, tuple[str, Postgres | None]]]:
    """URLs by name, and the servers behind them."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres()) if {"postgresql", "grpc"} & set(names) else None
        told: dict[str, tuple[str, Postgres | None]] = {
            "sqlite": (sqlite_url(folder / "study.db"), None),
            "journal": (f"journal://{folder}/study.log", None),
        }
        if server:
            told["postgresql"] = (server.new("direct"), server)
        if server and "grpc" in names:
            port = free_port()
            stack.enter_context(served(server.new("proxied"), port))
            told["grpc"] = (f"grpc://127.0.0.1:{port}", server)
        yield {name: told[name] for name in names}


def processor_seconds(server: Postgres | None) -> float:
    """Of a database server so far, with all of its processes."""
    if server is None:
        return 0.0
    first = int((server.data / "postmaster.pid").read_text().split()[0])
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        own, ended = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
        if int(path.parent.name) == first:
            ticks += own + ended
        elif int(fields[1]) == first:
            ticks += own
    return ticks / TICKS


def make(url: str, folder: Path) -> Search:
    folder.mkdir()
    space = SearchSpace.parse(SPACE, NAME)
    study = create_study(StudyLocation(NAME, folder, url))
    return Search(
        study=study,
        space=space,
        feasible=Feasible(space.table, BUDGET),
        proxy=StandIn(folder, 0.0),  # type: ignore[arg-type]
        strategy="random",
        pruner="none",
        common_attrs={"fidelity": {"validation": 100}, "device": "none", "versions": versions()},
        checkpoints=Checkpoints(folder / "checkpoints"),
        worker="here/0",
        shared=True,
        heartbeat=StorageHeartbeat(study._storage, folder),
        first=(),
    )


def fill(search: Search, running: int) -> None:
    """Has so many trials be running under others' hands."""
    there = sum(trial.state.name == "RUNNING" for trial in search.study.get_trials(deepcopy=False))
    architectures = search.feasible.enumerate(np.random.default_rng(0))
    for _ in range(running - there):
        draft = TrialSpec(next(architectures), {"worker": "elsewhere/1"})
        search._writer.begin(draft)


def trial(search: Search) -> None:
    job = search.next()
    assert job is not None
    for step in train(search.proxy, job, search.checkpoints):
        search.report(job.number, step)  # type: ignore[arg-type]
    search.end(job.number)


def median_ms(do: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        do()
        taken.append(1000 * (time.perf_counter() - begun))
    return round(statistics.median(taken), 2)


def measure(search: Search, server: Postgres | None, running: int, times: int) -> dict[str, Any]:
    fill(search, running)
    search.begin(10**9, Silent())
    trial(search)
    before = processor_seconds(server)
    whole = median_ms(lambda: trial(search), times)
    used = 1000 * (processor_seconds(server) - before) / times
    look = median_ms(lambda: search.study.get_trials(deepcopy=False), times)
    random = np.random.default_rng(running)
    draws = [TrialSpec(search.feasible.sample(random), {"worker": "elsewhere/2"}) for _ in range(times)]
    written = median_ms(lambda: search._writer.begin(draws.pop()), times)
    job = search.next()
    assert job is not None
    sign = median_ms(search.heartbeat.sign, times)  # type: ignore[attr-defined]
    search.requeue_running()
    told = {"running": running, "trial_ms": whole, "write_ms": written, "look_ms": look, "sign_ms": sign}
    return {**told, "server_ms": round(used, 1)} if server else told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--running", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--storages", nargs="+", default=list(STORAGES), choices=STORAGES)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "thousand-workers.json")
    given = parser.parse_args()
    require_writable(given.output)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    results = []
    with TemporaryDirectory() as temporary, storages(Path(temporary), given.storages) as places:
        for name, (url, server) in places.items():
            search = make(url, Path(temporary) / name)
            for running in sorted(given.running):
                results.append({"storage": name, **measure(search, server, running, given.times)})
                print(results[-1], flush=True)
    where = {"device": device_name(torch.device("cpu")), "versions": versions()}
    told = {"running": given.running, "times": given.times, **where, "results": results}
    write_atomically(given.output, json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
