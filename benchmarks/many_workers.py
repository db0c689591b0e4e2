"""Stress test of many workers on one study in PostgreSQL, with trainings that are a formula and with faults.

    python benchmarks/many_workers.py --workers 16 --trials 2000
    python benchmarks/many_workers.py --workers 16 --trials 2000 --kill 8 --restarts 2
    python benchmarks/many_workers.py --workers 4 --seconds 0.5 --minutes 30 --kill 2 --restarts 6

Some of the workers (the first `--kill`) are killed with SIGKILL at random moments and restarted, and the
database server is restarted `--restarts` times, every other time as if by a crash. With `--minutes` the study
has no target until they are over, and memory, threads and open files of the workers that are never killed are
recorded. In the end every trial is checked. Prints and writes JSON; exit status 1 if a trial was lost,
trained twice or over budget.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.trial import TrialState

BENCHMARKS = Path(__file__).parent
sys.path[:0] = [str(BENCHMARKS.parent / "tests")]
from postgres import Postgres, postgres  # noqa: E402
from stand_in_worker import BUDGET, NAME  # noqa: E402

from nas_recalib.device import versions  # noqa: E402
from nas_recalib.files import write_atomically  # noqa: E402
from nas_recalib.study.location import StudyLocation, open_study  # noqa: E402
from nas_recalib.study.trials import ATTEMPT, FAILURE, RESUMED_FROM, WITHDRAWN, finished  # noqa: E402

MANY = 10**9
_WATCHED = {"memory_mb": r"VmRSS:\s+(\d+) kB", "threads": r"Threads:\s+(\d+)"}


@dataclass
class Crew:
    """Worker processes, each of which can be killed and replaced."""

    command: list[str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    kills: int = 0
    begun_again: int = 0

    def start(self, count: int, trials: int) -> None:
        self.processes = [self._begin(trials) for _ in range(count)]

    def kill(self, index: int, trials: int) -> None:
        self.processes[index].kill()
        self.processes[index].wait()
        self.processes[index] = self._begin(trials)
        self.kills += 1

    def ended(self, trials: int) -> bool:
        """Whether all workers have ended; one that failed is restarted, as when the server was not up yet."""
        for index, process in enumerate(self.processes):
            if process.poll():
                self.processes[index] = self._begin(trials)
                self.begun_again += 1
        return all(process.poll() is not None for process in self.processes)

    def _begin(self, trials: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.command, f"--trials={trials}"], stdout=subprocess.DEVNULL)


def resource_usage(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Return the memory, threads and open files of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    usage = {name: float(re.search(pattern, status)[1]) for name, pattern in _WATCHED.items()}  # type: ignore[index]
    usage["memory_mb"] /= 1024
    return {**usage, "open_files": len(list(Path(f"/proc/{process.pid}/fd").iterdir()))}


def disturb(given: argparse.Namespace, crew: Crew, server: Postgres, samples: list[dict[str, Any]]) -> None:
    """Inject faults until the workers are done, or the minutes are over."""
    draw = random.Random(given.seed)
    begun = time.monotonic()
    span = 60 * given.minutes if given.minutes else given.span
    target = MANY if given.minutes else given.trials
    restarts = [span * (number + 0.5) / given.restarts for number in range(given.restarts)]
    kills = sorted(draw.uniform(0, span) for _ in range(given.kills if given.kill else 0))
    samplings = [10.0 * number for number in range(1, int(span / 10) + 1)] if given.minutes else []
    while not crew.ended(target) and (not given.minutes or time.monotonic() - begun < span):
        now = time.monotonic() - begun
        if restarts and now >= restarts[0]:
            server.restart("immediate" if len(restarts) % 2 else "fast")
            del restarts[0]
        if kills and now >= kills[0]:
            crew.kill(draw.randrange(given.kill), target)
            del kills[0]
        if samplings and now >= samplings[0]:
            steady = [resource_usage(process) for process in crew.processes[given.kill :]]
            samples.append({"seconds": round(now), "workers": steady, "processes": len(crew.processes)})
            del samplings[0]
        time.sleep(0.05)


def audit(storage: str, folder: Path) -> dict[str, Any]:
    """Compare the trials of the study with the epochs that the workers logged."""
    study = open_study(StudyLocation(NAME, folder, storage))
    trials, done = study.trials, finished(study)
    counts = Counter(trial.user_attrs["architecture"] for trial in done)
    started = [trial for trial in trials if trial.user_attrs.get(FAILURE) != WITHDRAWN]
    lines = [line for log in folder.glob("trained-*.log") for line in log.read_text().splitlines()]
    epochs = Counter(lines)
    seen = {line.partition("\t")[2] for line in lines}
    return {
        "finished": len(done),
        "lost": sum(trial.state == TrialState.RUNNING for trial in trials) + len(seen - counts.keys()),
        "finished_twice": sum(count > 1 for count in counts.values()),
        "epochs_trained": len(lines),
        "epochs_trained_again": sum(count - 1 for count in epochs.values()),
        "over_budget": sum(not BUDGET.allows({"macs": trial.user_attrs["macs"]}) for trial in done),
        "gone_on_with": sum(RESUMED_FROM in one.user_attrs for one in started),
        "most_attempts": max(trial.user_attrs.get(ATTEMPT, 1) for trial in trials),
        "states": dict(Counter(t.user_attrs.get("failure", t.state.name.lower()) for t in trials)),
        "checkpoints_left": len(list((folder / "checkpoints").glob("*.pt"))),
    }


def growth(samples: list[dict[str, Any]]) -> dict[str, float]:
    """Return the growth of the greatest usage of any steady worker over the second half, in per cent."""
    half = samples[len(samples) // 2 :]
    percent = {}
    for name in (*_WATCHED, "open_files"):
        most = [max(worker[name] for worker in sample["workers"]) for sample in half]
        tenth = max(1, len(most) // 10)
        before, after = sum(most[:tenth]) / tenth, sum(most[-tenth:]) / tenth
        percent[name] = round(100 * (after / before - 1), 2)
    return percent


def run(given: argparse.Namespace) -> dict[str, Any]:
    samples: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary, postgres() as server:
        folder, storage = Path(temporary), server.new("searches")
        program = [sys.executable, str(BENCHMARKS / "stand_in_worker.py")]
        options = [f"--storage={storage}", f"--folder={folder}", f"--seconds={given.seconds}"]
        crew = Crew([*program, *options, f"--strategy={given.strategy}"])
        begun = time.monotonic()
        crew.start(given.workers, MANY if given.minutes else given.trials)
        while not (crew.ended(given.trials) or any(folder.glob("trained-*.log"))):
            time.sleep(0.05)  # until the first epoch
        disturb(given, crew, server, samples)
        target = given.trials
        if given.minutes:
            for process in crew.processes:
                process.terminate()
            for process in crew.processes:
                process.wait()
            target = len(finished(open_study(StudyLocation(NAME, folder, storage)))) + len(crew.processes)
            crew.start(given.workers, target)  # resumes the trials that were interrupted
        statuses = [process.wait() for process in crew.processes]
        taken = time.monotonic() - begun
        found = {**audit(storage, folder), "kills": crew.kills, "begun_again": crew.begun_again}
    result = {**found, "asked": target, "exit_statuses": sorted(set(statuses)), "seconds": round(taken, 1)}
    return {**result, "growth_percent": growth(samples), "samples": samples} if samples else result


def passed(result: dict[str, Any]) -> bool:
    """Whether every trial was finished once, within the budget."""
    good = result["finished"] == result["asked"] and result["exit_statuses"] == [0]
    return good and not (result["lost"] or result["finished_twice"] or result["over_budget"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.0, help="of an epoch; a trial has two")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--kill", type=int, default=0, help="workers that are killed again and again")
    parser.add_argument("--kills", type=int, default=24, help="kills in all")
    parser.add_argument("--restarts", type=int, default=0, help="of the database server")
    parser.add_argument("--span", type=float, default=240.0, help="seconds that the faults are spread over")
    parser.add_argument("--strategy", default="predictor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    result = run(given)
    options = {name: value for name, value in vars(given).items() if name != "output"}
    content = {"asked_for": options, "versions": versions(), **result}
    print(json.dumps({key: value for key, value in content.items() if key != "samples"}, indent=2))
    if given.output:
        write_atomically(given.output, json.dumps(content) + "\n")
    sys.exit(not passed(result))


if __name__ == "__main__":
    main()
