from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas_recalib.data.sources import ArrayImages, Source, open_source
from nas_recalib.data.streaming import (
    EpochOrder,
    divide,
    evaluation_transform,
    normalise,
    open_stream,
    training_transform,
)
from nas_recalib.errors import InputError


@pytest.fixture
def digits():
    """64 training and 33 held-out digits."""
    whole = open_source("digits", Path())
    train, held_out = (
        ArrayImages(part.pixels[:count], part.labels[:count])
        for part, count in ((whole.train, 64), (whole.held_out, 33))
    )
    return replace(whole, train=train, held_out=held_out)


@pytest.fixture
def folder(tmp_path):
    """Three classes of ten random pictures of many sizes, without a held-out part."""
    random = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "train" / str(label)).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(256, size=(*random.integers(20, 60, size=2), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / str(label) / f"{number}.png")
    return open_source(f"folder:{tmp_path}", Path())


def source_of(pixels, native_size=None, flips=True):
    images = ArrayImages(pixels, np.zeros(len(pixels), dtype=np.int64))
    return Source("test", ("a", "b"), images, images, native_size, flips)


def collect(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def as_set(images, labels):
    return sorted(
        (label, image.numpy().tobytes()) for image, label in zip(images, labels.tolist(), strict=True)
    )


def test_an_epoch_is_the_same_with_any_number_of_workers_and_whatever_came_before(digits):
    alone = open_stream(digits, 8, 16, seed=3)
    helped = open_stream(digits, 8, 16, seed=3, workers=2)
    for _ in helped.training(epoch=0):
        pass
    for epoch in (1, 2):
        expected, actual = collect(alone.training(epoch)), collect(helped.training(epoch))
        assert all(map(torch.equal, expected, actual))


def test_epochs_and_seeds_differ(digits):
    first, second = open_stream(digits, 8, 16, seed=0), open_stream(digits, 8, 16, seed=1)
    views = [collect(first.training(0)), collect(first.training(1)), collect(second.training(0))]
    assert len({images.numpy().tobytes() for images, _ in views}) == 3
    assert len({labels.numpy().tobytes() for _, labels in views}) == 3


def test_two_processes_share_the_batches_of_one(digits):
    whole = list(open_stream(digits, 8, 16, seed=0).training(4))
    shares = [open_stream(digits, 8, 8, seed=0, rank=rank, world_size=2).training(4) for rank in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert as_set(*batch) == as_set(*map(torch.cat, zip(*parts, strict=True)))


def test_evaluation_images_are_shared_out_without_repetition(digits):
    whole = collect(open_stream(digits, 8, 16, seed=0).evaluation())
    shares = [open_stream(digits, 8, 8, seed=0, rank=rank, world_size=2).evaluation() for rank in range(2)]
    parts = [collect(share) for share in shares]
    assert [len(labels) for _, labels in parts] == [17, 16]
    assert as_set(*whole) == as_set(*map(torch.cat, zip(*parts, strict=True)))
    assert len(whole[1]) == 33


def test_training_leaves_a_partial_batch_out_and_repeats_nothing():
    order = EpochOrder(np.arange(100, 111), seed=0, world_size=2)
    other = EpochOrder(np.arange(100, 111), seed=0, rank=1, world_size=2)
    indices = [index for index, _ in chain(order, other)]
    assert len(order) == len(other) == 5
    assert len(set(indices)) == 10
    assert set(indices) < set(range(100, 111))


def test_the_global_generator_is_left_alone(digits):
    before = torch.get_rng_state()
    stream = open_stream(digits, 8, 16, seed=0)
    collect(stream.training(0))
    collect(stream.evaluation())
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_held_out_part_a_tenth_of_each_class_is(folder):
    train, held_out, images = divide(folder, seed=0)
    assert images is folder.train
    assert sorted([*train, *held_out]) == list(range(30))
    assert np.bincount(folder.train.labels[held_out]).tolist() == [1, 1, 1]
    assert not np.array_equal(held_out, divide(folder, seed=1)[1])


def test_large_images_of_any_size_become_squares(folder):
    stream = open_stream(folder, 32, 9, seed=0, workers=1)
    images, labels = collect(stream.training(0))
    assert images.shape == (27, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert sorted(labels.tolist()) == [0] * 9 + [1] * 9 + [2] * 9
    assert next(stream.evaluation())[0].shape == (3, 3, 32, 32)


@pytest.mark.parametrize("size", [(64, 64), (64, 90), (70, 64)])
def test_large_images_are_evaluated_on_their_centre(size):
    pixels = np.random.default_rng(0).integers(256, size=(1, *size, 3), dtype=np.uint8)
    source = source_of(pixels)
    view = evaluation_transform(source, 56)(source.train.open(0))  # 56 * 256 / 224 = 64: no resizing
    top, left = round((size[0] - 56) / 2), round((size[1] - 56) / 2)
    assert np.array_equal(view.permute(1, 2, 0), pixels[0, top : top + 56, left : left + 56])


def test_small_images_are_evaluated_whole(digits):
    view = evaluation_transform(digits, 8)(digits.held_out.open(5))
    assert np.array_equal(view[0], digits.held_out.pixels[5])
    assert evaluation_transform(digits, 16)(digits.held_out.open(5)).shape == (3, 16, 16)


def test_small_images_move_by_an_eighth_at_most():
    pixels = np.zeros((1, 32, 32), dtype=np.uint8)
    pixels[0, 16, 16] = 255
    source = source_of(pixels, native_size=32, flips=False)
    transform = training_transform(source, 32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spots = torch.stack([transform(source.train.open(0))[0].nonzero()[0] for _ in range(300)])
    assert spots.amin(0).tolist() == [12, 12]
    assert spots.amax(0).tolist() == [20, 20]


@pytest.mark.parametrize("native_size", [None, 16])
@pytest.mark.parametrize("flips", [True, False])
def test_images_are_mirrored_only_where_that_means_the_same(native_size, flips):
    pixels = np.zeros((64, 16, 16), dtype=np.uint8)
    pixels[:] = np.linspace(0, 255, 16, dtype=np.uint8)  # brighter to the right
    stream = open_stream(source_of(pixels, native_size, flips), 16, 64, seed=0)
    images, _ = collect(stream.training(0))
    halves = images.float().mean((1, 2)).unflatten(1, (2, 8)).mean(2)
    mirrored = (halves[:, 0] > halves[:, 1]).sum().item()
    assert 16 < mirrored < 48 if flips else mirrored == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(folder, workers):
    broken = folder.train.paths[7]
    broken.write_bytes(b"not a picture")
    stream = open_stream(folder, 32, 9, seed=0, workers=workers)
    with pytest.raises(InputError, match="not an image that can be decoded") as caught:
        collect(chain(stream.training(0), stream.evaluation()))
    assert str(caught.value).startswith(str(broken))
    assert "\n" not in str(caught.value)


def test_too_few_images_are_refused(digits):
    with pytest.raises(InputError, match="batch_size: 128 is more than the 64 training images"):
        open_stream(digits, 8, 64, seed=0, world_size=2)
    empty = ArrayImages(np.zeros((0, 8, 8), dtype=np.uint8), np.zeros(0, dtype=np.int64))
    with pytest.raises(InputError, match="held-out part of digits has no images"):
        open_stream(replace(digits, held_out=empty), 8, 16, seed=0)


def test_normalise_centres_imagenets_mean():
    grey = torch.tensor([0.485, 0.456, 0.406]).mul(255)[None, :, None, None].expand(1, 3, 2, 2)
    assert normalise(grey).abs().max() < 1e-6
    white = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert white.flatten().tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)
    assert white.dtype == torch.float32
