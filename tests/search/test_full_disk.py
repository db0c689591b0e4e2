import resource
import signal
import subprocess
import sys

import optuna
import pytest

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
FIRST_CHECKPOINT = 660_000  # bytes, with some room; that of the second trial, scconv, is larger


def search(folder, *options, largest_file=None):
    def limit():
        signal.signal(
            signal.SIGXFSZ, signal.SIG_IGN
        )  # a write beyond the limit then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    start = limit if largest_file else None
    command = [sys.executable, "-m", "nas_recalib", *SEARCH, *options]
    return subprocess.run(command, cwd=folder, preexec_fn=start, capture_output=True, text=True, check=False)


def trials(folder):
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder}/runs/tiny/study.db").trials


@pytest.mark.parametrize(("room", "status"), [(3_000, 1), (-60_000, 2)])
def test_a_disk_that_fills_up_ends_the_search_in_one_line_and_room_lets_it_go_on(tmp_path, room, status):
    (tmp_path / "tiny.yaml").write_text(SPACE)
    stopped = search(tmp_path, "--trials=12", largest_file=EMPTY_STUDY + room)
    assert stopped.returncode == status
    assert "Traceback" not in stopped.stderr
    assert "storage: runs/tiny/study.db" in stopped.stderr.splitlines()[-1]
    assert search(tmp_path, "--trials=12").returncode == 0
    complete = [trial for trial in trials(tmp_path) if trial.state.name == "COMPLETE"]
    assert len({trial.user_attrs["architecture"] for trial in complete}) == len(complete) == 12


def test_a_disk_without_room_for_a_checkpoint_gives_the_trial_back_and_names_the_file(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPACE)
    asked = ["--trials=3", "--epochs=2"]
    stopped = search(tmp_path, *asked, largest_file=FIRST_CHECKPOINT)
    assert stopped.returncode == 1, stopped.stderr
    file = tmp_path / "runs/tiny/checkpoints/00001.pt"
    assert stopped.stderr.splitlines()[-1] == f"failed: {file}: cannot be written: File too large"
    assert "Traceback" not in stopped.stderr
    assert [trial.user_attrs.get("failure") for trial in trials(tmp_path)] == [None, "interrupted"]
    assert list(file.parent.iterdir()) == [], "nor half a checkpoint"
    assert search(tmp_path, *asked).returncode == 0
    states = [trial.user_attrs.get("failure", trial.state.name) for trial in trials(tmp_path)]
    assert states == ["COMPLETE", "interrupted", "COMPLETE", "COMPLETE"]
    assert trials(tmp_path)[2].user_attrs["continues"] == 1


@pytest.mark.parametrize("place", ["a file", "a file/below", "memoryy://bucket"])
def test_a_place_that_cannot_keep_checkpoints_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys, place
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    (tmp_path / "a file").touch()
    assert run([*SEARCH, "--trials=1", f"--checkpoints={place}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert place in line
    assert not list(tmp_path.rglob("study.db*"))
    assert {path.name for path in tmp_path.iterdir()} <= {"tiny.yaml", "a file", "runs"}
