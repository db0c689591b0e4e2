import resource
import signal
import subprocess
import sys

import optuna
import pytest

SPACE = """
name: tiny
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv]
recalibration: [none, ab]
"""
QUICK = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--width=0.5", "--epochs=1"]
COMMAND = [sys.executable, "-m", "nas_recalib", "search", "--space=tiny.yaml", "--trials=12", *QUICK]
EMPTY_STUDY = 114_688  # bytes of a database that holds its tables and little else


def search(folder, largest_file=None):
    def limit():
        signal.signal(
            signal.SIGXFSZ, signal.SIG_IGN
        )  # a write beyond the limit then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    start = limit if largest_file else None
    return subprocess.run(COMMAND, cwd=folder, preexec_fn=start, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("room", "status"), [(3_000, 1), (-60_000, 2)])
def test_a_disk_that_fills_up_ends_the_search_in_one_line_and_room_lets_it_go_on(tmp_path, room, status):
    (tmp_path / "tiny.yaml").write_text(SPACE)
    stopped = search(tmp_path, EMPTY_STUDY + room)
    assert stopped.returncode == status
    assert "Traceback" not in stopped.stderr
    assert "storage: runs/tiny/study.db" in stopped.stderr.splitlines()[-1]
    assert search(tmp_path).returncode == 0
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/runs/tiny/study.db")
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len({trial.user_attrs["architecture"] for trial in complete}) == len(complete) == 12
