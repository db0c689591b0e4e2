"""The stress test that kills a search runs with a few kills."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_search.py"


@pytest.mark.soak
def test_a_search_killed_at_random_moments_reaches_its_target():
    command = [sys.executable, SCRIPT, "--kills=2", "--trials=6", "--seed=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["finished"] == 6
    assert result["states"].keys() <= {"complete", "lost"}, "nothing is left running"
    assert result["states"].get("lost", 0) <= 2
    assert result["epochs_trained"] == 6 * 3
    assert result["epochs_trained_again"] <= 2
