"""The benchmarks of many workers' costs run whole on a few trials."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def benchmark(name, output, *options):
    command = [sys.executable, BENCHMARKS / name, *options, f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text())


def test_the_overhead_of_ray_runs_whole_on_a_few_trials(tmp_path):
    told = benchmark("ray_overhead.py", tmp_path / "out.json", "--trials=6", "--seconds=0.2")
    assert told["bare_seconds"] == 0.6
    alone, whole = told["results"]
    assert alone["most_at_once"] == 2
    assert min(alone["seconds"], whole["seconds"]) > 0.6


def test_the_costs_of_storages_run_whole_with_a_few_running(tmp_path):
    told = benchmark("thousand_workers.py", tmp_path / "out.json", "--running", "2", "5", "--times=2")
    rows = told["results"]
    names = [name for name in ("sqlite", "postgresql", "grpc", "journal") for _ in range(2)]
    assert [row["storage"] for row in rows] == names
    assert [row["running"] for row in rows] == [2, 5] * 4
    assert all(0 < row["look_ms"] < row["trial_ms"] for row in rows)
