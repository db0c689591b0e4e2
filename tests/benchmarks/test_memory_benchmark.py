"""The benchmark of memory runs whole on small networks, and goes on where it stopped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory.py"


def run(output, *arguments):
    command = [sys.executable, SCRIPT, f"--output={output}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.soak
def test_it_runs_whole_on_small_networks_and_goes_on(tmp_path):
    output = tmp_path / "out.json"
    few = ["--backbones", "resnet20", "--choices", "vanilla", "psconv", "--batches", "2"]
    done = run(output, *few)
    assert done.returncode == 0, done.stderr
    first = json.loads(output.read_text())
    assert [(row["choice"], row["batch"]) for row in first["rows"]] == [("vanilla", 2), ("psconv", 2)]
    assert all(abs(row["error"]) < 0.15 for row in first["rows"])
    assert len(done.stdout.splitlines()) == 2

    assert run(output, *few[:-1], "2", "1").returncode == 0
    more = json.loads(output.read_text())
    assert more["rows"][:2] == first["rows"], "not measured again"
    assert len(more["rows"]) == 4


def test_what_cannot_be_is_refused(benchmark, tmp_path):
    refused = benchmark("memory.py", f"--output={tmp_path}/out.json", "--backbones", "resnet51")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: unknown backbone 'resnet51'; allowed: resnet18")
