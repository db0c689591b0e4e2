import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_run import ARCHITECTURE, CPU, RECIPE, interrupted_digits, small_digits, train
from safetensors import safe_open

from nas_recalib.architecture import Architecture, build
from nas_recalib.data.sources import ArrayImages
from nas_recalib.data.streaming import open_stream
from nas_recalib.errors import Diverged, InputError, StopTraining
from nas_recalib.training import checkpoint, loop
from nas_recalib.training.distributed import World
from nas_recalib.training.loop import evaluate


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training without interruption: its history and its folder."""
    out = tmp_path_factory.mktemp("whole")
    return train(out), out


def read_weights(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def assert_same(out, history, whole):
    expected_history, expected_out = whole
    assert history == expected_history
    weights, metadata = read_weights(out / "weights.safetensors")
    expected, expected_metadata = read_weights(expected_out / "weights.safetensors")
    assert metadata == expected_metadata
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


class StopError(Exception):
    """Ends a training from outside."""


def stop(*_):
    raise StopError


def test_epochs_are_reported_and_written_as_they_come(tmp_path):
    reported = []

    def look(result):
        content = json.loads((tmp_path / "history.json").read_text())
        assert content["epochs"][-1]["epoch"] == result.epoch
        assert (content["result"] == content["epochs"][-1]) == (result.epoch == 3)
        assert (tmp_path / "checkpoint.pt").exists()
        assert not (tmp_path / "weights.safetensors").exists()
        reported.append(result)

    history = train(tmp_path, progress=look)
    assert reported == history
    assert [result.epoch for result in history] == [1, 2, 3]
    assert [result.rate for result in history] == pytest.approx([0.1, 0.1, 0.01])
    names = ["checkpoint.pt", "history.json", "weights.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_top5_is_at_least_top1(whole):
    assert all(0 <= result.top1 <= result.top5 <= 1 for result in whole[0])


def test_the_loss_of_a_short_training_decreases(whole):
    assert whole[0][-1].loss < whole[0][0].loss


@pytest.mark.soak
def test_the_loss_decreases(tmp_path):
    recipe = replace(RECIPE, schedule="cosine", milestones=(), base_rate=0.8)
    history = train(tmp_path, recipe=recipe, source=small_digits(240, 100))
    assert history[-1].loss < 0.7 * history[0].loss
    assert history[-1].top1 > 0.5


@pytest.mark.parametrize("epochs", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_a_training_that_stops_between_epochs_resumes_identically(tmp_path, whole, epochs):
    with pytest.raises(StopError):
        train(tmp_path, progress=lambda result: result.epoch == epochs and stop())
    seen = []
    history = train(tmp_path, progress=seen.append)
    assert [result.epoch for result in seen] == list(range(epochs + 1, 4))
    assert_same(tmp_path, history, whole)


def test_a_training_that_stops_within_an_epoch_repeats_that_epoch(tmp_path, whole):
    with pytest.raises(StopError):
        train(tmp_path, source=interrupted_digits(64 + 24, stop))
    assert_same(tmp_path, train(tmp_path, workers=1), whole)


@pytest.mark.soak
def test_a_killed_training_resumes_identically(tmp_path, whole):
    script = Path(__file__).with_name("killed_run.py")
    killed = subprocess.run([sys.executable, script, tmp_path], check=False)
    assert killed.returncode == -9
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"]) == 2
    assert_same(tmp_path, train(tmp_path), whole)


def test_a_finished_training_is_not_continued(whole):
    out = whole[1]
    written = json.loads((out / "history.json").read_text())
    (out / "history.json").unlink()
    assert_same(out, train(out, progress=stop), whole)
    assert json.loads((out / "history.json").read_text()) == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": Architecture.of("resnet20", "vanilla")},
            "architecture: .* was made with layer1.0=psconv",
        ),
        ({"input_size": 16}, "architecture: .* was made with resnet20@8/10, asked for resnet20@16/10"),
        ({"recipe": RECIPE.with_epochs(5)}, "--epochs: .* was made with 3, asked for 5"),
        ({"source": small_digits(80)}, "--data: .* was made with digits"),
        ({"seed": 1}, "--seed: .* was made with 0, asked for 1"),
    ],
)
def test_another_training_in_the_same_folder_is_refused(whole, change, message):
    with pytest.raises(InputError, match=message):
        train(whole[1], **change)


def test_weights_say_what_they_are(whole):
    history, out = whole
    weights, metadata = read_weights(out / "weights.safetensors")
    network = build(Architecture.parse(metadata["architecture"]), seed=1)
    network.load_state_dict(weights)
    held_out = open_stream(small_digits(), 8, 16, seed=0).evaluation()
    counts = evaluate(network, held_out, dtype=torch.float32, world=World(0, 1, CPU))
    assert counts.images == 33
    assert (counts.top1 / 33, counts.top5 / 33) == (history[-1].top1, history[-1].top5)
    assert metadata["epoch"] == "3"
    assert metadata["evaluated_on"] == "held-out images"
    assert metadata["selection"] == "none; the last epoch"
    assert json.loads(metadata["classes"]) == list("0123456789")


def test_best_weights_are_selected_on_validation_images_and_say_so(tmp_path):
    history = train(tmp_path, source=replace(small_digits(), held_out=None), limit_batches=1)
    _, metadata = read_weights(tmp_path / "best.safetensors")
    best = max(history, key=lambda result: result.top1)
    assert (metadata["epoch"], metadata["top1"]) == (str(best.epoch), str(best.top1))
    assert metadata["evaluated_on"] == "validation images"
    assert metadata["selection"].startswith("highest top-1")
    _, metadata = read_weights(tmp_path / "weights.safetensors")
    assert (metadata["epoch"], metadata["selection"]) == ("3", "none; the last epoch")


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    with pytest.raises(Diverged, match=r"epoch 1: the training loss is (nan|inf)"):
        train(tmp_path, recipe=replace(RECIPE, base_rate=1e30))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_too_small_images_are_refused_with_a_way_out(tmp_path):
    msar = Architecture.of("resnet20", "vanilla+msar(scales=1-2-4)")
    with pytest.raises(InputError, match=r"layer3\.0: msar: .*8 pixels; try a larger --input-size"):
        train(tmp_path, architecture=msar)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": 0}, "input_size: 0"),
        ({"limit_batches": 0}, "limit_batches: 0"),
        ({"recipe": replace(RECIPE, batch_size=1)}, "batch_size: 1 "),
        ({"recipe": replace(RECIPE, batch_size=65)}, "batch_size: 65 "),
    ],
)
def test_invalid_arguments_are_refused_by_name(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train(tmp_path, **change)


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="out: cannot be created as a folder"):
        train(tmp_path / "out")


def test_a_folder_that_cannot_be_written_to_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match="/proc: cannot be written"):
        train("/proc", source=interrupted_digits(0, stop))
    os.mkfifo(tmp_path / "history.json")
    with pytest.raises(InputError, match=r"history\.json: cannot be written: not a regular file"):
        train(tmp_path, source=interrupted_digits(0, stop))
    (tmp_path / "history.json").unlink()
    (tmp_path / "weights.safetensors").mkdir()
    with pytest.raises(InputError, match=r"weights\.safetensors: cannot be written: not a regular file"):
        train(tmp_path, source=interrupted_digits(0, stop))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_files_of_another_training_without_a_checkpoint_are_not_overwritten(whole, tmp_path):
    for name in ("weights.safetensors", "history.json"):
        (tmp_path / name).write_bytes((whole[1] / name).read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"--seed: .*history\.json was made with 0, asked for 1"):
        train(tmp_path, seed=1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(StopError):
        train(tmp_path, source=interrupted_digits(0, stop))  # the same training begins from its start
    (tmp_path / "history.json").unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors: there is no checkpoint\.pt beside it"):
        train(tmp_path)


LOCK = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, 2); print(flush=True); input()"


@contextmanager
def another_process_locks(path):
    command = [sys.executable, "-S", "-c", LOCK, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.communicate()


def test_two_trainings_in_one_folder_are_refused(tmp_path):
    with another_process_locks(tmp_path / "lock"):
        with pytest.raises(InputError, match="another training is using this folder"):
            train(tmp_path, source=interrupted_digits(0, stop))
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    with pytest.raises(StopError):
        train(tmp_path, source=interrupted_digits(0, stop))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_one_line_and_the_training_resumes(tmp_path, monkeypatch):
    def fail(path, *_):
        raise InputError(f"{path}: cannot be written: No space left on device")

    with monkeypatch.context() as full:
        full.setattr(checkpoint, "save_checkpoint", fail)
        with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written: No space"):
            train(tmp_path, limit_batches=1)
    assert len(train(tmp_path, limit_batches=1)) == 3


def test_memory_that_runs_out_is_one_line(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(loop, "train_epoch", fail)
    with pytest.raises(
        StopTraining, match=r"epoch 1: memory ran out with a batch size of 16 on .* smaller --batch-size"
    ):
        train(tmp_path)


def test_three_classes_are_all_in_the_top_five(tmp_path):
    source = small_digits()
    images = ArrayImages(source.train.pixels, source.train.labels % 3)
    source = replace(source, classes=("a", "b", "c"), train=images, held_out=None)
    history = train(tmp_path, source=source, recipe=RECIPE.with_epochs(1))
    assert history[0].top5 == 1
    weights, _ = read_weights(tmp_path / "weights.safetensors")
    assert weights["fc.weight"].shape == (3, 64)


def test_limited_batches_in_bfloat16_at_the_architectures_own_size(tmp_path):
    settings = {"input_size": None, "dtype": torch.bfloat16, "limit_batches": 1}
    history = train(tmp_path, recipe=RECIPE.with_epochs(1), **settings)
    _, metadata = read_weights(tmp_path / "weights.safetensors")
    assert metadata["architecture"].startswith("resnet20@32/10")
    assert history[0].images == 16
    assert round(history[0].top1 * 16, 6) % 1 == 0
    assert np.isfinite(history[0].loss)


def test_the_global_generator_and_the_architecture_are_left_alone(tmp_path):
    before, architecture = torch.get_rng_state(), str(ARCHITECTURE)
    train(tmp_path, recipe=RECIPE.with_epochs(1), limit_batches=1)
    assert torch.equal(before, torch.get_rng_state())
    assert str(ARCHITECTURE) == architecture
