"""Images, batches of images and checkpoints that somebody else made; none of them runs anything."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from broken import TRAP, mangled, mutated, scalars, sound_or_refused
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from nas_recalib.data.downsampled import load_downsampled
from nas_recalib.data.folder import FileImages
from nas_recalib.data.resident import decode
from nas_recalib.data.sources import open_source
from nas_recalib.errors import InputError
from nas_recalib.training.checkpoint import EpochResult, Run, load_checkpoint, save_checkpoint
from nas_recalib.training.recipe import get_recipe

BATCHES = [f"train_data_batch_{number}" for number in range(1, 11)]


@pytest.fixture(autouse=True, scope="module")
def here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("data"))
        yield


class Malice:
    def __reduce__(self):
        return os.mkdir, (TRAP,)


def pickled(content, protocol):
    return pickle.dumps(content, protocol=protocol)


BATCH = {"data": np.zeros((6, 192), np.uint8), "labels": [1, 2, 3, 1, 2, 3]}
HUGE = 2**24  # a place in a pickle's memory for which gigabytes would be set aside


def asks_for_memory(data):
    """Whether a pickle numbers what it remembers so high that to read it takes gigabytes."""
    return any(
        int.from_bytes(data[i + 1 : i + 5], "little") > HUGE for i in range(len(data)) if data[i] == 0x72
    )


@pytest.fixture(scope="module")
def folder(here):
    Path("batches").mkdir()
    for name in (*BATCHES, "val_data"):
        Path("batches", name).write_bytes(pickled(BATCH, 4))
    return Path("batches")


def read_batches(folder, data):
    (folder / "val_data").write_bytes(data)
    try:
        _, (pixels, labels) = load_downsampled(folder, 8, 3)
        assert pixels.shape == (len(labels), 8, 8, 3)
    except InputError as error:
        assert "val_data" in str(error)
    assert not os.path.exists(TRAP)


@examples(400)
@given(data=st.data(), protocol=st.integers(0, 5))
def test_a_pickled_batch_that_is_torn(folder, data, protocol):
    torn = data.draw(mangled(pickled(BATCH, protocol), words=(pickled(Malice(), protocol), pickled([1], 4))))
    if not asks_for_memory(torn):
        read_batches(folder, torn)


@examples(300)
@given(data=st.data(), protocol=st.integers(0, 5))
def test_a_pickled_batch_of_something_else(folder, data, protocol):
    content = data.draw(mutated({"data": [[0] * 3], "labels": [1, 2]}) | scalars)
    whole = {"data": BATCH["data"], "labels": data.draw(mutated(BATCH["labels"]))}
    malice = [content, Malice()] if data.draw(st.booleans()) else content
    for batch in (content, whole, malice, {**whole, "labels": Malice()}):
        read_batches(folder, pickled(batch, protocol))


@pytest.mark.parametrize("kind", ["objects", "pickled", "torn"])
def test_an_npz_runs_nothing(folder, kind):
    content = io.BytesIO()
    labels = np.array([Malice()] * 6) if kind == "objects" else np.array(BATCH["labels"])
    np.savez(content, data=BATCH["data"], labels=labels)
    whole = pickled(Malice(), 4) if kind == "pickled" else content.getvalue()
    (folder / "val_data").unlink(missing_ok=True)
    (folder / "val_data.npz").write_bytes(whole[: len(whole) // 2] if kind == "torn" else whole)
    with pytest.raises(InputError, match=r"val_data\.npz is not a batch of images"):
        load_downsampled(folder, 8, 3)
    (folder / "val_data.npz").unlink()
    assert not os.path.exists(TRAP)


IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8))


@examples(400)
@given(data=st.data(), kind=st.sampled_from(("png", "jpeg", "bmp", "webp", "tiff", "ppm")))
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_is_torn(data, kind):
    content = io.BytesIO()
    IMAGE.save(content, kind)
    path = Path(f"torn.{kind}")
    path.write_bytes(data.draw(mangled(content.getvalue())))
    images = FileImages((path,), np.array([0]))
    decoded = decode(images, [0], 8)
    assert decoded.pixels.shape == (1, 3, 8, 8)
    assert all(str(path) in fault for fault in decoded.faults.values())


@pytest.fixture(scope="module")
def png(here):
    IMAGE.save("whole.png")


@examples(100)
@given(data=st.data())
def test_a_cache_that_is_torn_is_not_believed(png, data):
    images = FileImages((Path("whole.png"),), np.array([0]))
    true = decode(images, [0], 8, Path("cache")).pixels
    (kept,) = Path("cache/decoded").iterdir()
    kept.write_bytes(data.draw(mangled(kept.read_bytes()) | st.just(pickled(Malice(), 4))))
    assert torch.equal(decode(images, [0], 8, Path("cache")).pixels, true)
    assert not os.path.exists(TRAP)


def test_pipes_and_loops_of_links_among_images_are_passed_over_and_counted(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        IMAGE.save(tmp_path / "train" / name / "1.png")
        os.mkfifo(tmp_path / "train" / name / "2.png")
        os.symlink("..", tmp_path / "train" / name / "up")
    source = open_source(f"folder:{tmp_path}", tmp_path)
    assert [path.name for path in source.train.paths] == ["1.png", "1.png"]
    os.symlink("3.png", tmp_path / "train" / "b" / "3.png")
    source = open_source(f"folder:{tmp_path}", tmp_path)
    assert [path.name for path in source.train.paths] == ["1.png", "1.png"]
    assert source.remarks == (
        "ignored broken links and special files: 3, such as train/a/2.png",
        "ignored links to folders inside the classes: 2, such as train/a/up",
    )


RUN = Run("resnet20@8/2 layer1.0=ab", get_recipe("step100"), "digits", "0123", ("a", "b"), 0)
HISTORY = [EpochResult(1, 0.1, 2.0, 0.2, 0.7, 3.0)]


def parts():
    network = nn.Linear(3, 2)
    return {"model": network, "optimizer": torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)}


@pytest.fixture(scope="module")
def saved(here):
    save_checkpoint(Path("whole.pt"), RUN, HISTORY, parts())
    return Path("whole.pt")


def restore(path):
    try:
        checkpoint = load_checkpoint(path, RUN)
        assert all(type(result.top1) is float for result in checkpoint.history)
        checkpoint.restore(parts())
    except InputError as error:
        assert str(path) in str(error) or str(error).startswith("checkpoint: ")
    assert not os.path.exists(TRAP)


@examples(300)
@given(data=st.data())
def test_a_checkpoint_that_is_torn(saved, data):
    Path("t.pt").write_bytes(data.draw(mangled(saved.read_bytes(), words=(pickled(Malice(), 2),))))
    restore(Path("t.pt"))


@examples(300)
@given(data=st.data())
def test_a_checkpoint_with_something_else_in_it(saved, data):
    content = torch.load(saved, weights_only=True)
    history = mutated(content["history"]).map(lambda told: {**content, "history": told})
    torch.save(data.draw(mutated(content) | history), "t.pt")
    restore(Path("t.pt"))


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="damaged, or not a checkpoint"):
        load_checkpoint(tmp_path / "checkpoint.pt", RUN)


def test_a_folder_of_nothing_but_batches_that_run_code_is_refused_by_a_search(folder):
    (folder / "val_data").write_bytes(pickled(Malice(), 4))
    data = f"imagenet8-3:{folder.resolve()}"
    assert not sound_or_refused(["search", "--space", "resnet20", "--budget", "41M", "--data", data])
