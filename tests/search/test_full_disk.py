"""A search on a disk that is full, or that checkpoints cannot be written to."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from examples import soaked

from nas_recalib.cli import run

SPACE = """
name: tiny
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv]
recalibration: [none, ab]
"""
QUICK = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--width=0.5", "--epochs=1"]
SEARCH = ["search", "--space=tiny.yaml", "--strategy=random", *QUICK]
EMPTY_STUDY = 114_688  # bytes of a database that holds its tables and little else
FIRST_CHECKPOINT = 960_000  # bytes, with some room; that of the second trial, scconv, is larger


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SPACE)


def search(*options, largest_file):
    """Run a search in a new process with a limit on the size of files, in bytes."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    command = [sys.executable, "-B", "-m", "nas_recalib", *SEARCH, *options]  # -B: no half-written bytecode
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)


def trials():
    return optuna.load_study(study_name="tiny", storage="sqlite:///runs/tiny/study.db").trials


@pytest.mark.parametrize(("room", "status"), soaked([(3_000, 1), (-60_000, 2)], [(3_000, 1)]))
def test_a_full_disk_ends_the_search_with_one_line_and_it_can_be_resumed(here, room, status):
    stopped = search("--trials=12", largest_file=EMPTY_STUDY + room)
    assert stopped.returncode == status
    assert "Traceback" not in stopped.stderr
    assert "storage: runs/tiny/study.db" in stopped.stderr.splitlines()[-1]
    assert run([*SEARCH, "--trials=12"]) == 0
    complete = [trial for trial in trials() if trial.state.name == "COMPLETE"]
    assert len({trial.user_attrs["architecture"] for trial in complete}) == len(complete) == 12


@pytest.mark.soak
def test_a_disk_without_room_for_a_checkpoint_interrupts_the_trial_and_names_the_file(here):
    asked = ["--trials=3", "--epochs=2"]
    stopped = search(*asked, largest_file=FIRST_CHECKPOINT)
    assert stopped.returncode == 1, stopped.stderr
    file = Path("runs/tiny/checkpoints/00001.pt").absolute()
    assert stopped.stderr.splitlines()[-1] == f"failed: {file}: cannot be written: File too large"
    assert "Traceback" not in stopped.stderr
    assert [trial.user_attrs.get("failure") for trial in trials()] == [None, "interrupted"]
    assert list(file.parent.iterdir()) == [], "no incomplete checkpoint"
    assert run([*SEARCH, *asked]) == 0
    states = [trial.user_attrs.get("failure", trial.state.name) for trial in trials()]
    assert states == ["COMPLETE", "interrupted", "COMPLETE", "COMPLETE"]
    assert trials()[2].user_attrs["continues"] == 1


@pytest.mark.parametrize("place", ["a file", "a file/below", "memoryy://bucket"])
def test_an_unusable_location_of_checkpoints_is_refused_before_anything_is_written(
    here, tmp_path, capsys, place
):
    (tmp_path / "a file").touch()
    assert run([*SEARCH, "--trials=1", f"--checkpoints={place}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert place in line
    assert not list(tmp_path.rglob("study.db*"))
    assert {path.name for path in tmp_path.iterdir()} <= {"tiny.yaml", "a file", "runs"}
