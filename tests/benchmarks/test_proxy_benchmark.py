"""The benchmark of proxies runs whole on a few digits, and times the loop that searches run."""

import argparse
import importlib
import json
import re
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.architecture import Architecture, build
from nas_recalib.data import load_resident, open_source
from nas_recalib.device import fast_dtype
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.space import SearchSpace
from nas_recalib.timing.cases import Settings

FOLDER = Path(__file__).parents[2] / "benchmarks"
SIDE = 64
SPACE = """
name: tiny
backbone: resnet20
granularity: network
convolution: [vanilla, psconv]
recalibration: [none]
proxy: {width: 0.25}
"""
QUICK = "--data digits --device cpu --resolution 8 --batch 16 --steps 2 --rounds 3 --threads 1 --seed 5"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))  # as running the script does
    names = ("plain_recipe", "proxy_sides", "proxy_trials", "proxy")
    yield argparse.Namespace(**{name: importlib.import_module(name) for name in names})
    sys.path.remove(str(FOLDER))
    for name in names:
        del sys.modules[name]


@pytest.fixture
def here(modules, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    monkeypatch.setattr(modules.proxy_sides, "PRODUCT_SIDE", {"cpu": SIDE})
    monkeypatch.setattr(modules.proxy, "REST", 0.0)
    return tmp_path


def run(modules, monkeypatch, *options):
    quick = [*QUICK.split(), "--workers", "1", "--spaces", "tiny.yaml", "--architectures", "2"]
    monkeypatch.setattr("sys.argv", ["proxy.py", *quick, "--output", "out.json", *options])
    modules.proxy.main()


@pytest.fixture(scope="module")
def source():
    return open_source("digits", Path())


@pytest.fixture(scope="module")
def few(source):
    return load_resident(source, 8, 64, 20, seed=0)


def quartiles(ratios):
    lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    return pytest.approx({"median": median, "lower": lower, "upper": upper})


def test_it_runs_whole_and_its_sums_are_right(modules, here, monkeypatch, capsys):
    run(modules, monkeypatch)
    told = capsys.readouterr()
    content = json.loads((here / "out.json").read_text())
    assert content["command"].startswith("python benchmarks/proxy.py --data digits --device cpu")
    assert (content["data"], content["seed"], content["threads"]) == ("digits", 5, 1)
    assert {"nas-recalib", "torch", "torchvision", "python"} <= content["versions"].keys()
    assert len(told.err.splitlines()) == 3 + 3
    assert "Targets" in told.out

    network = build(Architecture.of("resnet20", "vanilla")).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 8, 8))
    assert content["macs_a_run"] == 3 * 32 * counter.get_total_flops() // 2

    rounds = content["rounds_seconds"]
    plain, ours = rounds["plain recipe"], content["sides"][0]
    fast = str(fast_dtype(CPU)).removeprefix("torch.")
    assert ours["name"] == f"{fast}, channels_last"
    assert {side["name"] for side in content["sides"]} == {
        *(
            f"{dtype}, {told}"
            for dtype in ("float32", "bfloat16")
            for told in ("channels_last", "contiguous")
        ),
        *("plain recipe", "one fixed batch"),
    }
    for side in content["sides"]:
        seconds = rounds[side["name"]]
        assert side["images_a_second"] == pytest.approx(32 / statistics.median(seconds))
        assert side["against_plain"] == quartiles([p / s for p, s in zip(plain, seconds, strict=True)])
        dtype = fast if side["name"] == "one fixed batch" else side["name"].partition(",")[0]
        product = rounds[f"{'float32' if side['name'] == 'plain recipe' else dtype} product"]
        share = content["macs_a_run"] / (modules.proxy_sides.PRODUCTS * SIDE**3)
        assert side["share_of_peak"] == quartiles(
            [share * p / s for p, s in zip(product, seconds, strict=True)]
        )
    pairs = zip(rounds[ours["name"]], rounds["one fixed batch"], strict=True)
    assert content["loop_against_fixed_batch"] == quartiles([whole / fixed for whole, fixed in pairs])

    faster, loop, quick = content["targets"]
    assert (faster["seen"], faster["at_least"]) == (ours["against_plain"]["median"], 3.0)
    assert (loop["seen"], loop["at_most"]) == (content["loop_against_fixed_batch"]["median"], 1.03)
    assert (quick["seen"], quick["at_most"]) == (content["trials"][0]["seconds"], 20.0)

    assert [row["fidelity"] for row in content["trials"]] == ["quick", "standard", "thorough"]
    for row in content["trials"]:
        assert row["trials_an_hour"] * row["seconds"] == pytest.approx(3600)
        assert row["seconds"] == pytest.approx(statistics.mean(trial["seconds"] for trial in row["trials"]))
        assert len(row["trials"]) == 2
        for trial in row["trials"]:
            once = trial["set_up"] + trial["first_piece"] - trial["piece"]
            steps = row["epochs"] * (row["images"] // 32)
            whole = once + steps * trial["piece"] / 2 + row["epochs"] * trial["validation"]
            assert trial["seconds"] == pytest.approx(whole)


def test_whole_trials_are_run_whole(modules, here, source, monkeypatch):
    trials = modules.proxy_trials
    fidelity = Fidelity(64, 20, resolution=8, width=0.25, epochs=3)
    monkeypatch.setattr(trials, "find_fidelity", lambda *_: fidelity)
    monkeypatch.setattr(trials, "FIDELITIES", ("quick",))
    run_whole, curves = trials.Proxy.train, []

    def train(self, *told):
        curves.append(run_whole(self, *told))
        return curves[-1]

    monkeypatch.setattr(trials.Proxy, "train", train)
    space = SearchSpace.load("tiny.yaml")
    (row,) = trials.time_ladder(space, source, Settings(CPU), 2, 1, whole=True)
    assert not row["multiplied_out"]
    assert [trial.keys() for trial in row["trials"]] == [{"architecture", "seconds"}] * 2
    assert [len(curve) for curve in curves] == [3, 3]
    (row,) = trials.time_ladder(space, source, Settings(CPU), 1, 1, whole=False)
    assert row["multiplied_out"]
    assert row["trials"][0]["pieces"] == 3 * 2, "of one step of 32 images each"
    assert len(curves) == 2


def piece(modules, **changes):
    architecture = Architecture.of("resnet20", "vanilla", input_size=8, num_classes=10)
    return replace(modules.proxy_sides.Slice(architecture, 16, 2, 1, False), **changes)


def conv_inputs(monkeypatch, side):
    """What the convolutions of a side are given in one run."""
    seen = []
    forward = nn.Conv2d.forward

    def record(self, x):
        y = forward(self, x)
        seen.append((x, y))
        return y

    with monkeypatch.context() as patched:
        patched.setattr(nn.Conv2d, "forward", record)
        side.run()
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_side_computes_in_its_dtype_and_layout(modules, few, monkeypatch, dtype, memory_format):
    data = replace(few, train_images=few.train_images[:32], train_labels=few.train_labels[:32])
    side = modules.proxy_sides.our_side(piece(modules), data, Settings(CPU), dtype, memory_format)
    seen = conv_inputs(monkeypatch, side)
    assert len(seen) == 2 * 21
    assert all(len(x) == 16 and x.is_contiguous(memory_format=memory_format) for x, _ in seen)
    assert {y.dtype for _, y in seen} == {dtype}


def test_each_block_is_compiled_where_that_is_asked_for(modules, source, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: compiled.append(self))
    sides = modules.proxy_sides.list_sides(piece(modules, compile=True), source, Settings(CPU))
    assert len(compiled) == 9
    assert [side.name for side in sides if "compiled" in side.name] == [f"{sides[0].name}, compiled"]


def test_the_plain_recipe_serves_whole_batches_of_the_same_pixels(modules, few):
    loader = modules.plain_recipe.plain_loader(replace(few, flips=False), 24, 1, CPU, 0)
    batches = list(loader)
    assert [tuple(images.shape) for images, _ in batches] == [(24, 3, 8, 8)] * 2
    pixels = modules.plain_recipe.Pixels(few, lambda image: image)
    assert len(pixels) == 64
    mean, std = few.mean[:, None, None], few.std[:, None, None]
    originals = nn.functional.pad(few.train_images, (1,) * 4).unfold(2, 8, 1).unfold(3, 8, 1)
    shifted = originals.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
    for images, labels in batches:
        served = (images * std + mean).round().flatten(1)
        nearest = (served[:, None] - shifted).abs().amax(2).min(1)
        assert nearest.values.max() == 0, "a shifted training image, by a pixel at most"
        assert few.train_labels[nearest.indices // 9].equal(labels)


def test_the_plain_recipe_goes_on_from_one_epoch_to_the_next(modules, few):
    network = build(Architecture.of("resnet20", "vanilla"))
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loader = modules.plain_recipe.plain_loader(few, 24, 1, CPU, 0)
    train = modules.plain_recipe.plain_training(network, loader, CPU)
    before = network.fc.weight.clone()
    for steps in (1, 2, 2):
        train(steps)
    assert [len(images) for images in seen] == [24] * 5
    assert all(images.dtype == torch.float32 and images.is_contiguous() for images in seen)
    assert not network.fc.weight.equal(before)


def test_rounds_turn_round_and_preparing_is_not_timed(modules, monkeypatch):
    monkeypatch.setattr(modules.proxy, "REST", 0.0)
    told = []

    def side(name, seconds):
        def wait():
            told.append(name)
            time.sleep(seconds)

        def prepare():
            told.append(f"before {name}")
            time.sleep(0.2)

        return modules.proxy_sides.Side(name, torch.float32, wait, 1, prepare)

    first, times = modules.proxy.interleave([side("a", 0.01), side("b", 0.03)], 2, CPU)
    assert told == ["a", "b", "before a", "a", "before b", "b", "before b", "b", "before a", "a"]
    assert len(first) == 2
    for a, b in times.rounds:
        assert 0.01 <= a < 0.2
        assert 0.03 <= b < 0.2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--device", "tpu"], "device: 'tpu' does not exist here"),
        (["--data", "digit"], "data: unknown set 'digit'"),
        (["--data", "folder:nowhere"], "data: .*nowhere is not a folder"),
        (["--backbone", "resnet21"], "unknown backbone 'resnet21'"),
        (["--choice", "vanila"], "layer1.0: "),
        (["--spaces", "resnet51"], "unknown space 'resnet51'"),
        (["--rounds", "1"], "rounds: 1 is not at least 2"),
        (["--steps", "90"], "steps: 90 of 16 images exceed the data set"),
        (["--threads", "9999"], "threads: 9999 is not"),
        (["--output", "no/such/folder.json"], "no/such/folder.json: cannot be written"),
        (["--output", "."], r"\.: "),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(modules, here, monkeypatch, capsys, options, named):
    with pytest.raises(SystemExit) as left:
        run(modules, monkeypatch, *options)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: {named}", line)
    assert not (here / "out.json").exists()
