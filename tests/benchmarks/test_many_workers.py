"""The stress test of many workers runs with a few faults."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "many_workers.py"


def many_workers(*options):
    command = [sys.executable, SCRIPT, "--strategy=random", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.soak
def test_killed_workers_and_a_restarted_server_lose_nothing_and_usage_is_recorded(tmp_path):
    output = tmp_path / "out.json"
    faults = ["--kill=1", "--kills=2", "--restarts=1"]
    result = many_workers("--workers=2", "--minutes=0.25", "--seconds=0.4", *faults, f"--output={output}")
    assert result["finished"] == result["asked"] > 1
    assert (result["kills"], result["exit_statuses"]) == (2, [0])
    assert (result["lost"], result["finished_twice"], result["over_budget"]) == (0, 0, 0)
    assert result["epochs_trained"] - result["epochs_trained_again"] == 2 * result["finished"]
    (sample,) = json.loads(output.read_text())["samples"]
    assert [worker.keys() for worker in sample["workers"]] == [{"memory_mb", "threads", "open_files"}]
    assert all(10 < worker["memory_mb"] < 10_000 for worker in sample["workers"])
    assert set(result["growth_percent"].values()) == {0.0}, "of one sample"
