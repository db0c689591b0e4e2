"""The benchmarks of Ray's and of storages' overhead run on a few trials."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def benchmark(name, output, *options):
    command = [sys.executable, BENCHMARKS / name, *options, f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


@pytest.mark.soak
def test_ray_overhead_runs_on_a_few_trials(tmp_path):
    content = benchmark("ray_overhead.py", tmp_path / "out.json", "--trials=6", "--seconds=0.25")
    assert content["bare_seconds"] == 0.75
    ray_only, search = content["results"]
    assert ray_only["most_at_once"] == 2
    assert min(ray_only["seconds"], search["seconds"]) > 0.75


@pytest.mark.soak
def test_thousand_workers_runs_with_a_few_running_trials(tmp_path):
    few = ["--storages", "sqlite", "journal", "--running", "2", "5", "--times=2"]
    rows = benchmark("thousand_workers.py", tmp_path / "out.json", *few)["results"]
    assert [row["storage"] for row in rows] == ["sqlite", "sqlite", "journal", "journal"]
    assert [row["running"] for row in rows] == [2, 5] * 2
    assert all(0 < row["look_ms"] < row["trial_ms"] for row in rows)
