"""Stress test that kills a search at random moments, restarts it each time, and checks its study.

    python benchmarks/kill_search.py --kills 10 --trials 12 --seed 0

Prints one JSON object; exit status 1 if a trial was lost, counted twice or trained twice, or if a kill cost
more than the running epoch.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna

from nas_recalib.study.storage import sqlite_url

SPACE = """
name: small
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv]
recalibration: [none, ab, se]
proxy: {width: 0.5}
"""
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
QUICK = ["--data=digits", "--images=600", "--validation=100", "--resolution=16", "--epochs=3"]
PROGRAM = """
from nas_recalib.cli import main
from nas_recalib.proxy.objective import Proxy

steps = Proxy.steps

def logged(proxy, architecture, *arguments):
    for training in steps(proxy, architecture, *arguments):
        with open("trained.log", "a") as log:
            log.write(f"{training.curve[-1].number} {architecture}\\n")
        yield training

Proxy.steps = logged
main()
"""  # the command, with a log of the epochs that it trains


def search(trials: int) -> list[str]:
    command = ["search", "--space=small.yaml", "--study=s", f"--trials={trials}", *QUICK]
    return [sys.executable, "-c", PROGRAM, *command]


def database(folder: Path) -> str:
    return sqlite_url(folder / "runs/s/study.db")


def finished(folder: Path) -> list[optuna.trial.FrozenTrial]:
    if not (folder / "runs/s/study.db").exists():
        return []
    try:
        trials = optuna.load_study(study_name="s", storage=database(folder)).trials
    except KeyError:  # killed before the study had a name
        return []
    return [trial for trial in trials if trial.state.is_finished() and trial.state.name != "FAIL"]


def soak(folder: Path, kills: int, trials: int, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    (folder / "small.yaml").write_text(SPACE)
    before: dict[int, object] = {}
    lost, progress = 0, []
    for _ in range(kills):
        with subprocess.Popen(search(trials), cwd=folder, **QUIET) as process:
            time.sleep(draw.uniform(3, 14))
            process.kill()
        now = {trial.number: (trial.params, trial.value) for trial in finished(folder)}
        lost += sum(now.get(number) != known for number, known in before.items())
        before = now
        progress.append(len(now))
    done = subprocess.run(search(trials), cwd=folder, check=False, **QUIET)
    ended = finished(folder)
    counts = Counter(trial.user_attrs["architecture"] for trial in ended)
    every = optuna.load_study(study_name="s", storage=database(folder)).trials
    states = Counter(trial.user_attrs.get("failure", trial.state.name.lower()) for trial in every)
    epochs = Counter((folder / "trained.log").read_text().splitlines())
    return {
        "kills": kills,
        "asked": trials,
        "finished": len(ended),
        "finished_after_each_kill": progress,
        "finished_trials_lost": lost,
        "trained_twice": sum(count > 1 for count in counts.values()),
        "epochs_trained": len(epochs),
        "epochs_trained_again": sum(epochs.values()) - len(epochs),
        "states": dict(states),
        "exit_status": done.returncode,
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), arguments.kills, arguments.trials, arguments.seed)
    print(json.dumps(result, indent=2))
    complete = result["finished"] == arguments.trials and result["exit_status"] == 0
    lost = result["finished_trials_lost"] or result["trained_twice"]
    sys.exit(not complete or bool(lost) or result["epochs_trained_again"] > arguments.kills)


if __name__ == "__main__":
    main()
