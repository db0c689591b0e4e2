"""The benchmark of a search's overhead runs on a small study."""

import json


def test_it_runs_on_a_small_study(benchmark, tmp_path):
    quick = ["--space=resnet20", "--budget=38M", "--trials=14", "--strategies", "predictor", "tpe"]
    output = tmp_path / "out.json"
    done = benchmark("overhead.py", *quick, f"--output={output}")
    assert done.returncode == 0, done.stderr
    content = json.loads(output.read_text())
    rows = [(row["strategy"], row["storage"], row["trials"]) for row in content["results"]]
    assert rows == [(name, storage, 14) for name in ("predictor", "tpe") for storage in ("memory", "sqlite")]
    for row in content["results"]:
        low, high = row["quartiles"]
        assert 0 < low <= row["milliseconds"] <= high
    assert len(done.stdout.splitlines()) == 1 + 4


def test_bad_input_gets_one_line(benchmark, tmp_path):
    done = benchmark("overhead.py", "--trials=0", f"--output={tmp_path}/out.json")
    assert (done.returncode, done.stderr) == (2, "error: trials: 0 is not at least 1\n")
