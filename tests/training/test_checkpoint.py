import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from nas_recalib.errors import InputError
from nas_recalib.training.checkpoint import EpochResult, Run, load_checkpoint, save_checkpoint, write_history
from nas_recalib.training.recipe import get_recipe

RUN = Run(
    architecture="resnet20@8/10 layer1.0=psconv+ab layer1.1=vanilla",
    recipe=get_recipe("step100"),
    data="folder:/data/a",
    fingerprint="0123456789abcdef",
    classes=("cat", "dog"),
    seed=0,
)
HISTORY = [EpochResult(1, 0.1, 2.0, 0.2, 0.7, 3.0), EpochResult(2, 0.1, 1.5, 0.1, 0.8, 3.0)]


@pytest.fixture
def parts(make):
    network = make(nn.Linear, 3, 2).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    optimizer.step()
    return {"model": network, "optimizer": optimizer}


@pytest.fixture
def saved(tmp_path, parts):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, RUN, HISTORY, parts)
    return path


def test_a_checkpoint_restores_what_was_saved(saved, parts):
    expected = {name: parameter.clone() for name, parameter in parts["model"].state_dict().items()}
    momenta = [state["momentum_buffer"].clone() for state in parts["optimizer"].state.values()]
    for tensor in (
        *parts["model"].parameters(),
        *(s["momentum_buffer"] for s in parts["optimizer"].state.values()),
    ):
        nn.init.zeros_(tensor)
    checkpoint = load_checkpoint(saved, RUN)
    checkpoint.restore(parts)
    assert list(checkpoint.history) == HISTORY
    assert all(torch.equal(expected[name], tensor) for name, tensor in parts["model"].state_dict().items())
    restored = [state["momentum_buffer"] for state in parts["optimizer"].state.values()]
    assert all(map(torch.equal, momenta, restored))


def test_a_checkpoint_from_before_images_were_counted_is_read(saved):
    content = torch.load(saved, weights_only=True)
    for epoch in content["history"]:
        del epoch["images"], epoch["skipped"]
    torch.save(content, saved)
    assert list(load_checkpoint(saved, RUN).history) == HISTORY


def test_saving_again_replaces_and_leaves_nothing_else(saved, parts):
    save_checkpoint(saved, RUN, HISTORY[:1], parts)
    assert len(load_checkpoint(saved, RUN).history) == 1
    assert list(saved.parent.iterdir()) == [saved]


def test_a_failed_write_leaves_the_old_file(saved, parts, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written: No space left"):
        save_checkpoint(saved, RUN, HISTORY[:1], parts)
    assert list(load_checkpoint(saved, RUN).history) == HISTORY
    assert list(saved.parent.iterdir()) == [saved]


def test_a_missing_file_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path / "checkpoint.pt", RUN) is None


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert_refused(saved, "damaged, or not a checkpoint")


def test_a_flipped_byte_is_refused(saved, parts):
    damaged = bytearray(saved.read_bytes())
    weights = parts["model"].weight.detach().numpy().tobytes()
    damaged[damaged.index(weights)] ^= 0xFF
    saved.write_bytes(damaged)
    assert_refused(saved, "damaged, or not a checkpoint")


@pytest.mark.parametrize("content", [b"some text\n" * 50, pickle.dumps({"format": 1})])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    assert_refused(path, "damaged, or not a checkpoint")


class Malice:
    def __reduce__(self):
        return os.mkdir, ("malice",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Malice(), tmp_path / "checkpoint.pt")
    assert_refused(tmp_path / "checkpoint.pt", "damaged, or not a checkpoint")
    assert not (tmp_path / "malice").exists()


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], torch.zeros(3)])
def test_a_checkpoint_of_another_program_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    assert_refused(path, "not a checkpoint of nas-recalib")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": RUN.architecture.replace("=vanilla", "=scconv")},
            r"architecture: .* was made with layer1\.1=vanilla, asked for layer1\.1=scconv",
        ),
        (
            {"architecture": RUN.architecture.replace("@8", "@32")},
            "architecture: .* was made with resnet20@8/10, asked for resnet20@32/10",
        ),
        ({"recipe": get_recipe("cosine120")}, "--recipe: .* was made with step100, asked for cosine120"),
        (
            {"recipe": replace(RUN.recipe, batch_size=512)},
            "--batch-size: .* was made with 256, asked for 512",
        ),
        (
            {"fingerprint": "fedcba9876543210", "data": "digits"},
            r"--data: .* made with folder:/data/a \(0123456789abcdef\), asked for digits \(fedcba98.*",
        ),
        ({"seed": 1}, "--seed: .* was made with 0, asked for 1"),
        ({"limit_batches": 5}, "--limit-batches: .* was made with no limit, asked for 5"),
    ],
)
def test_other_settings_are_refused_and_the_option_is_named(saved, change, message):
    assert_refused(saved, f"^{message}; choose another --output, or delete it$", replace(RUN, **change))


def test_data_may_be_moved(saved):
    assert load_checkpoint(saved, replace(RUN, data="folder:/elsewhere/a"))


def test_parts_of_another_shape_are_refused(saved, parts):
    with pytest.raises(InputError, match="model does not fit"):
        load_checkpoint(saved, RUN).restore({"model": nn.Linear(4, 2)})
    with pytest.raises(InputError, match="ema does not fit"):
        load_checkpoint(saved, RUN).restore({"ema": parts["model"]})


def test_history_is_readable_json(tmp_path):
    history = [HISTORY[0], replace(HISTORY[1], skipped=("a.png: broken",))]
    write_history(tmp_path / "history.json", RUN.as_dict(), history, epochs=2)
    content = json.loads((tmp_path / "history.json").read_text())
    assert content["result"] == content["epochs"][-1]
    assert content["skipped"] == ["a.png: broken"]
    assert content["run"]["recipe"]["milestones"] == [30, 60, 90]
    assert [epoch["top1"] for epoch in content["epochs"]] == [0.2, 0.1]


def assert_refused(path, message, run=RUN):
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path, run)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
