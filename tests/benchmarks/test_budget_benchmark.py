"""The benchmark of budgets runs whole on small inputs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "budget.py"


def test_it_runs_whole_on_small_inputs(tmp_path):
    output = tmp_path / "out.json"
    quick = [
        "--space=resnet20",
        "--budget=38M",
        "--count=50",
        "--draws=50",
        "--rounds=1",
        "--seed=3",
        "--direct=1",
    ]
    command = [sys.executable, SCRIPT, *quick, f"--output={output}"]  # it keeps its process to one core
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    assert content["command"] == " ".join(["python", "benchmarks/budget.py", *quick, f"--output={output}"])
    assert (content["space"], content["budget"], content["seed"]) == ("resnet20", "38.000M MACs", 3)
    assert {"nas-recalib", "torch", "numpy", "python"} <= content["versions"].keys()
    assert content["device"]
    assert (content["counted_directly"], content["counted_differently"]) == (1, 0)
    assert 0 < content["within_budget"] < 24**9
    figures = [value for name, value in content.items() if "second" in name]
    assert len(figures) == 5
    assert all(value > 0 for value in figures)
    assert len(done.stdout.splitlines()) == 3 + len(figures)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--budget=1M", "budget: 1.000M MACs is below the least possible cost"),
        ("--rounds=0", "count, draws and rounds: each is at least 1"),
        ("--output=no/such/folder.json", "no/such/folder.json: cannot be written"),
    ],
)
def test_what_cannot_be_is_refused(benchmark, option, named):
    done = benchmark("budget.py", "--space=resnet20", "--count=2", "--draws=2", option)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {named}")
    assert done.stdout == ""
