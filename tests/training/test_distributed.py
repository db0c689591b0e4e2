import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from digits_run import ARCHITECTURE, CPU, small_digits
from safetensors.torch import load_file

from nas_recalib.architecture import build
from nas_recalib.data.streaming import open_stream
from nas_recalib.errors import InputError, OtherProcessEnded
from nas_recalib.training.distributed import World, join_world
from nas_recalib.training.loop import evaluate

ALONE = World(0, 1, CPU)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes left in a folder, the folder, and what they printed."""
    out = tmp_path_factory.mktemp("together")
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr",
        "127.0.0.1",
        "--nproc-per-node",
        "2",
    ]
    script = Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *launch, script, out], check=False, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    left = [torch.load(out / f"process{rank}.pt", weights_only=True) for rank in range(2)]
    return left, out, result


def count(state):
    network = build(ARCHITECTURE, seed=0)
    network.load_state_dict(state)
    held_out = open_stream(small_digits(), 8, 16, seed=0).evaluation()
    return evaluate(network, held_out, dtype=torch.float32, world=ALONE)


def test_both_processes_hold_the_same_network(together):
    (first, second), *_ = together
    assert first["state"].keys() == second["state"].keys()
    assert all(torch.equal(first["state"][name], second["state"][name]) for name in first["state"])
    assert first["loss"] == second["loss"]
    untrained = build(ARCHITECTURE, seed=0).state_dict()
    assert not torch.equal(first["state"]["fc.weight"], untrained["fc.weight"])


def test_counts_of_an_odd_number_of_images_equal_one_processs(together):
    (first, second), *_ = together
    alone = count(first["state"])
    assert alone.images == 33
    assert first["counts"] == second["counts"] == asdict(alone)


def test_all_processes_return_what_the_main_one_wrote(together):
    (first, second), out, _ = together
    assert without_seconds(first) == without_seconds(second)
    last = first["histories"][0][-1]
    alone = count(load_file(out / "whole" / "weights.safetensors"))
    assert (last["top1"], last["top5"]) == (alone.top1 / 33, alone.top5 / 33)
    assert (first["calls"], second["calls"]) == ([1, 2, 3], [])


def test_two_processes_resume_identically(together):
    (first, _), out, _ = together
    whole, resumed = without_seconds(first)
    assert whole == resumed
    expected, actual = (load_file(out / name / "weights.safetensors") for name in ("whole", "resumed"))
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_an_error_of_the_main_process_is_raised_in_all(together):
    assert [left["refused"] for left in together[0]] == ["no", "no"]


def test_sums_and_order(together):
    (first, second), *_ = together
    assert first["sum"] == second["sum"] == [2, 1]
    assert (first["order"], second["order"]) == ([], ["saw-0"])


def test_an_interruption_is_one_line_and_the_same_command_resumes(together):
    left, out, printed = together
    assert [process["statuses"] for process in left] == [[130, 0], [130, 0]]
    assert "Traceback" not in printed.stderr
    said = printed.stderr.splitlines()
    assert said.count("interrupted: run the same command again to resume") == 1
    assert [line.split(":")[0] for line in said if line.startswith("epoch ")] == [
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
    ]
    assert len(printed.stdout.splitlines()) == 2
    assert printed.stdout.splitlines()[-1].startswith(
        f"wrote {out}/commanded/weights.safetensors: last epoch 3, "
    )


def test_two_processes_skip_an_image_that_cannot_be_decoded_and_name_it_once(together):
    _, out, printed = together
    written = json.loads((out / "commanded" / "history.json").read_text())
    (skipped,) = written["skipped"]
    assert skipped.startswith(f"{out}/pictures/train/a/3.png: not an image that can be decoded")
    assert printed.stderr.count("skipped ") == 1
    assert [epoch["images"] for epoch in written["epochs"]] == [2, 2, 2]


def test_the_end_of_another_process_is_one_line(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(OtherProcessEnded, match="another of the 2 processes ended early"), join_world(CPU):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1234")
    with pytest.raises(RuntimeError, match="shapes"), join_world(CPU):
        raise RuntimeError("shapes differ")


def test_a_single_process_joins_no_group():
    with join_world(CPU) as world, world.main_first():
        assert world == ALONE
        assert world.is_main
        assert world.sum(torch.ones(2)).tolist() == [1, 1]
        assert world.from_main(lambda: 3) == 3
        assert world.union({1: "a"}) == {1: "a"}
        assert not torch.distributed.is_initialized()
        network = torch.nn.Linear(1, 1)
        assert world.replicate(network) is network


@pytest.mark.parametrize(
    ("variables", "message"),
    [({"WORLD_SIZE": "two"}, "WORLD_SIZE is not"), ({"WORLD_SIZE": "2"}, "RANK is not a number; .*torchrun")],
)
def test_incomplete_variables_of_torchrun_are_refused(monkeypatch, variables, message):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message), join_world(CPU):
        pass


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="this machine has 2 GPUs"), join_world(torch.device("cuda")):
        pass


def without_seconds(left):
    return [
        [{key: value for key, value in result.items() if key != "seconds"} for result in history]
        for history in left["histories"]
    ]
