"""Time that each storage takes for a trial while many others are running.

    python benchmarks/thousand_workers.py --running 10 100 1000

A study is filled with running trials; then a worker runs one trial after the other, with trainings that take
no time. Measured are a complete trial (proposed, written, checked for conflicts, two epochs reported with
checkpoints, finished), writing a trial (a database locks the study meanwhile), reading all trials, a
heartbeat, and the processor time of the database server. Prints and writes JSON.
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
TICKS = 100  # ticks of the kernel's clock in a second


@contextmanager
def storages(folder: Path, names: list[str]) -> Iterator[dict[str, tuple[str, Postgres | None]]]:
    """Provide the URL of each storage by name, and the database server behind it if there is one."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres()) if {"postgresql", "grpc"} & set(names) else None
        urls: dict[str, tuple[str, Postgres | None]] = {
            "sqlite": (sqlite_url(folder / "study.db"), None),
            "journal": (f"journal://{folder}/study.log", None),
        }
        if server:
            urls["postgresql"] = (server.new("direct"), server)
        if server and "grpc" in names:
            port = free_port()
            stack.enter_context(served(server.new("proxied"), port))
            urls["grpc"] = (f"grpc://127.0.0.1:{port}", server)
        yield {name: urls[name] for name in names}


def processor_seconds(server: Postgres | None) -> float:
    """Return the processor time of a database server with all of its processes."""
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
        seed=0,
        common_attrs={"fidelity": {"validation": 100}, "device": "none", "versions": versions()},
        checkpoints=Checkpoints(folder / "checkpoints"),
        worker="here/0",
        shared=True,
        heartbeat=StorageHeartbeat(study._storage, folder),
        first=(),
    )


def fill(search: Search, running: int) -> None:
    """Add running trials of another worker until there are so many."""
    count = sum(trial.state.name == "RUNNING" for trial in search.study.get_trials(deepcopy=False))
    architectures = search.feasible.enumerate(np.random.default_rng(0))
    for _ in range(running - count):
        search._writer.create(TrialSpec(next(architectures), {"worker": "elsewhere/1"}))


def trial(search: Search) -> None:
    job = search.next_job()
    assert job is not None
    for step in train(search.proxy, job, search.checkpoints):
        search.report(job.number, step)  # type: ignore[arg-type]
    search.finish(job.number)


def median_ms(action: Callable[[], object], times: int) -> float:
    milliseconds = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        milliseconds.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(milliseconds), 2)


def measure(search: Search, server: Postgres | None, running: int, times: int) -> dict[str, Any]:
    fill(search, running)
    search.begin(10**9, Silent())
    trial(search)
    before = processor_seconds(server)
    complete = median_ms(lambda: trial(search), times)
    used = 1000 * (processor_seconds(server) - before) / times
    read = median_ms(lambda: search.study.get_trials(deepcopy=False), times)
    random = np.random.default_rng(running)
    draws = [TrialSpec(search.feasible.sample(random), {"worker": "elsewhere/2"}) for _ in range(times)]
    written = median_ms(lambda: search._writer.create(draws.pop()), times)
    job = search.next_job()
    assert job is not None
    beat = median_ms(search.heartbeat.beat, times)  # type: ignore[attr-defined]
    search.requeue_running()
    row = {"running": running, "trial_ms": complete, "write_ms": written, "look_ms": read, "sign_ms": beat}
    return {**row, "server_ms": round(used, 1)} if server else row


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
    with TemporaryDirectory() as temporary, storages(Path(temporary), given.storages) as urls:
        for name, (url, server) in urls.items():
            search = make(url, Path(temporary) / name)
            for running in sorted(given.running):
                results.append({"storage": name, **measure(search, server, running, given.times)})
                print(results[-1], flush=True)
    where = {"device": device_name(torch.device("cpu")), "versions": versions()}
    content = {"running": given.running, "times": given.times, **where, "results": results}
    write_atomically(given.output, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
