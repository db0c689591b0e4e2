"""The benchmark of operators runs whole on small inputs, and every target is for something that it times."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from examples import soaked
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.operators import psconv_triton
from nas_recalib.timing.run import Mean

QUICK = ["--device=cpu", "--sizes=cifar", "--batch-size=2", "--seconds=0.02", "--threads=1"]
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "operators.py"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(SCRIPT.parent))  # as running the script does
    spec = importlib.util.spec_from_file_location("benchmark_of_operators", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    yield module
    del sys.modules[spec.name]


def test_one_part_runs_whole(benchmark, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(psconv_triton, "ENABLED", psconv_triton.ENABLED)  # the script turns it on
    one = [part for part in benchmark.PARTS["cpu"] if (part.sizes, part.mode) == ("cifar", "forward")]
    monkeypatch.setattr(benchmark, "PARTS", {"cpu": one})
    monkeypatch.setattr("sys.argv", ["operators.py", *QUICK, f"--output={tmp_path / 'out.json'}"])
    benchmark.main()
    told = capsys.readouterr()
    content = json.loads((tmp_path / "out.json").read_text())
    assert [(part["mode"], len(part["cases"])) for part in content["parts"]] == [("forward", 4)]
    assert len(content["summary"]) == len(told.err.splitlines()) == 4
    assert len(told.out.splitlines()) == 2 + 4


@pytest.mark.soak
@pytest.mark.parametrize("which", [[], ["--bare"]])
def test_it_runs_whole_on_small_inputs(tmp_path, which):
    command = [sys.executable, SCRIPT, *which, *QUICK, f"--output={tmp_path / 'out.json'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    assert [part["mode"] for part in content["parts"]] == ["train", "train", "forward"]
    assert {(part["dtype"], part["memory_format"]) for part in content["parts"]} == {
        ("float32", "channels_last")
    }
    assert [len(part["cases"]) for part in content["parts"]] == [3 * 3, 3 * 6, 4]
    assert len(content["summary"]) == 3 + 6 + 4
    assert len(done.stdout.splitlines()) == 2 + len(content["summary"])
    assert len(done.stderr.splitlines()) == sum(len(part["cases"]) for part in content["parts"])


@pytest.mark.parametrize("device", soaked(["cpu", "cuda"], ["cpu"]))
def test_every_target_is_for_something_that_is_timed(benchmark, device):
    timed = {
        (part.set, part.sizes, part.mode, case.batch, str(case.choice))
        for part in benchmark.PARTS[device]
        for case in part.cases()
    }
    assert {target.key() for target in benchmark.TARGETS[device]} <= timed


@pytest.mark.parametrize(
    ("each", "ratio", "worst", "met"),
    [(False, 1.10, 1.9, True), (False, 1.11, 1.9, False), (True, 1.0, 1.10, True), (True, 1.0, 1.11, False)],
)
def test_a_target_is_for_the_mean_or_for_each_place(benchmark, each, ratio, worst, met):
    target = benchmark.Target("blocks", "cifar", "train", 128, "ab", 1.10, each=each)
    mean = Mean("blocks", "cifar", 128, "vanilla+ab", 3, ratio, worst)
    aimed, inference, other = benchmark.compare(
        [("train", mean), ("forward", mean), ("train", Mean("blocks", "cifar", 128, "psconv", 3, 1.0, 1.0))],
        (target,),
    )
    of = "each place" if each else "geometric mean"
    assert aimed["target"] == {"at_most": 1.10, "of": of, "met": met}
    assert inference["target"] is None
    assert other["target"] is None


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--device=tpu", "device: 'tpu' does not exist here"),
        ("--seconds=0", "seconds: 0 is not"),
        ("--threads=9999", "threads: 9999 is not"),
        ("--output=no/such/folder.json", "no/such/folder.json: cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_timed(benchmark, monkeypatch, option, named):
    monkeypatch.setattr(psconv_triton, "ENABLED", psconv_triton.ENABLED)  # the script turns it on
    monkeypatch.setattr("sys.argv", ["operators.py", "--device=cpu", option])
    with pytest.raises(SystemExit, match=f"^error: {named}"):
        benchmark.main()


@pytest.mark.parametrize(
    "choice", ["scconv", "psconv", "vanilla+msar", "vanilla+ab", "vanilla+ab-plus", "vanilla+se"]
)
def test_bare_calls_are_the_multiply_accumulates_of_the_operator(benchmark, choice):
    (case,) = (
        case
        for part in benchmark.PARTS["cpu"]
        if (part.set, part.sizes, part.mode) == ("networks", "cifar", "forward")
        for case in replace(part, choices=(choice,)).cases()
    )
    bare = benchmark.bare_case(case).place.build(case.choice).eval()
    whole = case.place.build(case.choice).eval()
    counts = []
    for network in (whole, bare):
        with torch.no_grad():
            network(torch.zeros(1, *case.place.shape))  # a stand-in readies its inputs at its first call
            with FlopCounterMode(display=False) as counter:
                network(torch.zeros(1, *case.place.shape))
        counts.append(counter.get_total_flops() // 2)
    booster = 3 * (16 + 32 + 64) if choice == "vanilla+ab" else 0  # one product a channel: no call of its own
    assert counts[1] == counts[0] - booster
