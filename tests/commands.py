"""`nas-recalib` in processes of its own, with the smallest of trainings."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from nas_recalib.study.storage import connect

SPACE = """
format: nas-recalib/space/2
name: tiny
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv, psconv]
recalibration: [none, ab]
proxy: {width: 0.5}
"""
QUICK = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--strategy=random"]
SEARCH = ["search", "--space=tiny.yaml", "--study=s", "--threads=1", *QUICK]
_WATCHED = """
import sys, time
from nas_recalib.cli import main
from nas_recalib.proxy.objective import Proxy

steps = Proxy.steps

def watched(proxy, architecture, start=None, parts=1):
    for training in steps(proxy, architecture, start, parts):
        with open("trained.log", "a") as log:
            log.write(f"{training.curve[-1].number} {architecture}\\n")
        yield training
        time.sleep(PAUSE)

Proxy.steps = watched
main()
"""


def watched(pause: float) -> list[str]:
    """The command, but that each epoch trained is a line of trained.log, and that a pause follows it."""
    return [sys.executable, "-c", _WATCHED.replace("PAUSE", str(pause))]


@contextmanager
def started(folder: Path, *command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the context."""
    (folder / "tiny.yaml").write_text(SPACE)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, **pipes, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str]:
    """Exit status and what was said on standard error."""
    said = process.communicate(timeout=seconds)[1]
    return process.returncode, said


def trials(storage: str) -> list[FrozenTrial]:
    """Those of the study s; none where it is only being made."""
    try:
        return optuna.load_study(study_name="s", storage=connect(storage)).trials
    except (KeyError, OperationalError):  # its tables are not there, or only being made
        return []


def running(storage: str, epochs: int = 1) -> list[FrozenTrial]:
    """Trials that have reported so many epochs."""
    return [t for t in trials(storage) if t.state == TrialState.RUNNING and (t.last_step or 0) >= epochs]


def wait_until(true: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + 240
    while not true():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it does not come to that"
        time.sleep(0.05)


def epochs_trained(*folders: Path) -> Counter[str]:
    """How often each epoch of each architecture was trained."""
    logs = [folder / "trained.log" for folder in folders]
    return Counter(line for log in logs if log.exists() for line in log.read_text().splitlines())
