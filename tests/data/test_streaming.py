import os
import signal
import warnings
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
    default_workers,
    divide,
    evaluation_transform,
    normalise,
    open_stream,
    training_transform,
)
from nas_recalib.errors import InputError, StopTraining


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


def test_an_epoch_does_not_depend_on_workers_or_earlier_epochs(digits):
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


def test_evaluation_images_are_divided_without_repetition(digits):
    whole = collect(open_stream(digits, 8, 16, seed=0).evaluation())
    shares = [open_stream(digits, 8, 8, seed=0, rank=rank, world_size=2).evaluation() for rank in range(2)]
    parts = [collect(share) for share in shares]
    assert [len(labels) for _, labels in parts] == [17, 16]
    assert as_set(*whole) == as_set(*map(torch.cat, zip(*parts, strict=True)))
    assert len(whole[1]) == 33


def test_training_drops_a_partial_batch_and_repeats_nothing():
    order = EpochOrder(np.arange(100, 111), seed=0, world_size=2)
    other = EpochOrder(np.arange(100, 111), seed=0, rank=1, world_size=2)
    indices = [index for index, _ in chain(order, other)]
    assert len(order) == len(other) == 5
    assert len(set(indices)) == 10
    assert set(indices) < set(range(100, 111))


def test_the_global_generator_is_unchanged(digits):
    before = torch.get_rng_state()
    stream = open_stream(digits, 8, 16, seed=0)
    collect(stream.training(0))
    collect(stream.evaluation())
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_held_out_part_a_tenth_of_each_class_is_split_off(folder):
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


def test_small_images_are_evaluated_uncropped(digits):
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
def test_images_are_flipped_only_if_the_source_allows_it(native_size, flips):
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
    assert str(caught.value).endswith("; --corrupt-images skip leaves such images out")
    assert "\n" not in str(caught.value)


def spoil(source, *indices):
    for index in indices:
        source.train.paths[index].write_bytes(b"not a picture")


def test_a_skipped_image_is_replaced_equally_for_any_number_of_workers(folder):
    train, held_out, _ = divide(folder, seed=0)
    spoil(folder, train[4], held_out[0])
    alone, helped = (open_stream(folder, 32, 9, seed=0, workers=n, corrupt="skip") for n in (0, 1))
    views = [collect(stream.training(0)) for stream in (alone, helped)]
    assert all(map(torch.equal, *views))
    assert views[0][0].shape == (27, 3, 32, 32)
    assert [len(labels) for _, labels in alone.evaluation()] == [2]
    list(helped.evaluation())
    assert alone.faults() == helped.faults()
    names = {(purpose, fault.split(":")[0]) for (purpose, _), fault in alone.faults().items()}
    assert names == {
        ("train on", str(folder.train.paths[train[4]])),
        ("evaluate on", str(folder.train.paths[held_out[0]])),
    }


def test_processes_that_skip_images_have_equally_many_batches(folder):
    spoil(folder, *divide(folder, seed=0)[0][:9])
    whole = open_stream(folder, 16, 8, seed=0, corrupt="skip")
    shares = [
        open_stream(folder, 16, 4, seed=0, rank=rank, world_size=2, corrupt="skip") for rank in range(2)
    ]
    batches = [list(stream.training(0)) for stream in (whole, *shares)]
    assert [len(found) for found in batches] == [3, 3, 3]
    for batch, *parts in zip(*batches, strict=True):
        assert as_set(*batch) == as_set(*map(torch.cat, zip(*parts, strict=True)))
    assert whole.faults() == shares[0].faults() | shares[1].faults()


def test_substitutes_of_skipped_images_are_drawn_from_all_others_alike():
    """In place of the first ten of 40 images."""
    images = NumberedImages(40, broken=10)
    source = Source("test", ("a", "b"), images, images, native_size=8, flips=False)
    stream = open_stream(source, 8, 40, seed=0, corrupt="skip")
    seen = torch.cat([collect(stream.training(epoch))[1] for epoch in range(20)])
    counts = torch.bincount(seen, minlength=40)
    assert counts[:10].tolist() == [0] * 10
    assert counts.sum() == 20 * 40
    assert counts[10:].min() >= 20
    assert counts[10:].max() <= 20 + 7 + 12  # a third more, and four and a half deviations


class NumberedImages(ArrayImages):
    """Images whose labels are their numbers, of which the first cannot be decoded."""

    def __init__(self, count, broken):
        super().__init__(np.zeros((count, 8, 8), dtype=np.uint8), np.arange(count))
        object.__setattr__(self, "broken", broken)

    def open(self, index):
        if index < self.broken:
            raise InputError(f"{index}: not an image that can be decoded")
        return super().open(index)


def test_skipping_ends_if_nothing_can_be_decoded(folder):
    spoil(folder, *range(30))
    stream = open_stream(folder, 32, 9, seed=0, corrupt="skip")
    with pytest.raises(InputError, match="too many images cannot be decoded, among them /"):
        list(stream.training(0))
    assert list(stream.evaluation()) == []


@pytest.mark.parametrize(("part", "purpose"), [(0, "train on"), (1, "evaluate on")])
def test_a_class_of_which_every_image_was_skipped_is_refused(folder, part, purpose):
    indices = divide(folder, seed=0)[part]
    of_class = indices[folder.train.labels[indices] == 1]
    stream = open_stream(folder, 32, 9, seed=0, corrupt="skip")
    faults = {(purpose, index): "broken" for index in of_class.tolist()}
    with pytest.raises(InputError, match=f"no image of the class '1' to {purpose} can be decoded"):
        stream.refuse_lost_classes(faults, folder.classes)
    if part == 0:
        faults.popitem()
        stream.refuse_lost_classes(faults, folder.classes)
    stream.refuse_lost_classes({}, folder.classes)


def test_an_unknown_treatment_of_corrupt_images_is_refused(digits):
    with pytest.raises(InputError, match="corrupt-images: unknown 'drop'; allowed: refuse, skip"):
        open_stream(digits, 8, 16, seed=0, corrupt="drop")


def test_a_killed_decoding_process_is_one_line(digits):
    class Killed(ArrayImages):
        def open(self, index):
            os.kill(os.getpid(), signal.SIGKILL)

    source = replace(digits, train=Killed(digits.train.pixels, digits.train.labels))
    stream = open_stream(source, 8, 16, seed=0, workers=1)
    with pytest.raises(StopTraining, match=r"a process that decodes images was killed.*fewer --workers"):
        list(stream.training(0))


@pytest.mark.parametrize(("most", "expected"), [(20, [15, 5]), (3, [2, 1]), (500, [90, 30])])
def test_fewer_evaluation_images_are_a_stratified_sample(digits, most, expected):
    labels = np.repeat([0, 1], [90, 30])
    source = replace(digits, held_out=ArrayImages(np.zeros((120, 8, 8), np.uint8), labels))
    shares = [
        open_stream(source, 8, 8, seed=0, rank=rank, world_size=2, most_evaluated=most) for rank in range(2)
    ]
    seen = torch.cat([collect(share.evaluation())[1] for share in shares])
    found = torch.bincount(seen).tolist()
    assert sum(found) == sum(expected)
    assert abs(found[0] - expected[0]) <= 1


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (20, 1)])
def test_a_strip_takes_little_memory(monkeypatch, size):
    enlarged = []
    resize = Image.Image.resize

    def note(image, size, *args, **kwargs):
        enlarged.append(size[0] * size[1])
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", note)
    source = source_of(np.zeros((12, *size[::-1], 3), np.uint8))
    stream = open_stream(source, 224, 6, seed=0)
    for images, _ in chain(stream.training(0), stream.evaluation()):
        assert images.shape[1:] == (3, 224, 224)
    assert max(enlarged) <= 16 * 256 * 256


def test_default_decoding_processes_are_at_most_the_available_cores(monkeypatch):
    for cores, processes, expected in ((2, 1, 2), (64, 1, 4), (16, 8, 2), (4, 8, 1), (1, 1, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert default_workers() == expected


def test_more_decoding_processes_than_cores_give_no_warning(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_stream(digits, 8, 16, seed=0, workers=500)


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
