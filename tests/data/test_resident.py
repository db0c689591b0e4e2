"""Resident images: a stratified split, decoded in order, from which the held-out part stays away."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nas_recalib.data.resident import fit_square, load_resident, split_indices
from nas_recalib.data.sources import ArrayImages, Source
from nas_recalib.errors import InputError


def shuffled(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(labels)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    images=st.none() | st.integers(0, 150),
    validation=st.integers(0, 100),
    seed=st.integers(0, 2**32),
)
def test_a_split_is_disjoint_exact_and_stratified_within_one(counts, images, validation, seed):
    labels, counts = shuffled(counts), np.array(counts)
    wanted = counts.sum() - validation if images is None else images
    share = validation * counts / counts.sum()
    try:
        train, val = split_indices(labels, images, validation, seed)
    except InputError:  # some class has too few, but for rounding
        rest = counts - share
        assert min(share.min(), rest.min() - 1, (wanted * (rest - 1) / max(1, rest.sum())).min()) < 1
        return
    assert not set(train) & set(val)
    assert len(set(train)) == len(train) == min(wanted, counts.sum() - validation)
    assert len(set(val)) == len(val) == validation
    assert np.array_equal(train, np.sort(train))
    assert np.array_equal(val, np.sort(val))
    in_train, in_val = (np.bincount(labels[part], minlength=len(counts)) for part in (train, val))
    left = counts - in_val
    assert (abs(in_val - share) < 1).all()
    assert (abs(in_train - len(train) * left / left.sum()) < 1).all()
    assert min(in_train.min(), in_val.min()) >= 1


def test_a_split_follows_from_the_seed_and_validation_from_nothing_else():
    labels = shuffled([30, 50, 20])
    first = split_indices(labels, 40, 20, seed=1)
    again = split_indices(labels, 40, 20, seed=1)
    others = [split_indices(labels, 40, 20, seed=seed) for seed in range(2, 6)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for part in (0, 1):
        assert len({tuple(split[part]) for split in (first, *others)}) == 5
    assert np.array_equal(split_indices(labels, None, 20, seed=1)[1], first[1])
    assert set(first[0]) < set(split_indices(labels, None, 20, seed=1)[0])


def test_the_largest_remainders_are_rounded_up():
    labels = shuffled([50, 30, 22])  # 10 validation images are 4.90, 2.94 and 2.16 in proportion
    assert np.bincount(labels[split_indices(labels, None, 10, seed=0)[1]]).tolist() == [5, 3, 2]


@pytest.mark.parametrize(
    ("counts", "images", "validation"),
    [
        ([5, 5], None, 10),
        ([5, 5], None, 11),
        ([5, 5], None, 0),
        ([5, 5], None, 1),
        ([5, 5], 1, 4),
        ([5, 5], 0, 4),
        ([1, 9], None, 5),
        ([5, 0, 5], None, 4),
    ],
)
def test_too_few_images_are_refused(counts, images, validation):
    with pytest.raises(InputError, match=f"{sum(counts)} images of {len(counts)} classes are too few"):
        split_indices(shuffled(counts), images, validation, seed=0)


@pytest.mark.parametrize(("size", "left", "top"), [((40, 20), 10, 0), ((20, 40), 0, 10), ((21, 20), 0, 0)])
def test_fit_square_cuts_the_centre_out_where_nothing_need_be_scaled(size, left, top):
    pixels = np.random.default_rng(0).integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
    fitted = np.asarray(fit_square(Image.fromarray(pixels), 20))
    assert np.array_equal(fitted, pixels[top : top + 20, left : left + 20])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("factor", [0.25, 0.5, 2])
def test_fit_square_scales_about_the_centre(axis, factor):
    long, short = 200, 80
    side = int(short * factor)
    ramp = np.arange(long, dtype=np.uint8)
    pixels = np.broadcast_to(ramp if axis else ramp[:, None], (short, long) if axis else (long, short))
    fitted = np.asarray(fit_square(Image.fromarray(np.ascontiguousarray(pixels)), side), dtype=float)
    centres = (np.arange(side) - (side - 1) / 2) / factor + (long - 1) / 2
    expected = np.broadcast_to(centres if axis else centres[:, None], (side, side))
    assert abs(fitted - expected).max() <= 1


@given(width=st.integers(1, 90), height=st.integers(1, 90), side=st.integers(8, 40))
def test_fit_square_gives_the_side_asked_for(width, height, side):
    assert fit_square(Image.new("RGB", (width, height)), side).size == (side, side)


def test_fit_square_leaves_a_square_of_that_side_as_it_is():
    pixels = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(fit_square(Image.fromarray(pixels), 16)), pixels)


@dataclass
class Numbered:
    """Images whose every pixel tells their number and label; remembers which were opened."""

    labels: np.ndarray
    opened: list = field(default_factory=list)
    broken: int = -1

    def open(self, index):
        if index == self.broken:
            raise InputError("12.png: not an image")
        self.opened.append(index)
        return Image.new("RGB", (30, 20), (index, 10 * int(self.labels[index]), 7))


class Forbidden(Numbered):
    def open(self, index):
        raise AssertionError("a test image was opened")


@pytest.fixture
def source():
    labels = shuffled([40, 30, 50])
    return Source("numbered", ("a", "b", "c"), Numbered(labels), Forbidden(labels), None, flips=False)


def test_every_image_lies_beside_its_own_label_and_none_is_held_out(source):
    data = load_resident(source, 16, 60, 24, seed=3)
    train, val = split_indices(source.train.labels, 60, 24, seed=3)
    for images, labels, part in (
        (data.train_images, data.train_labels, train),
        (data.val_images, data.val_labels, val),
    ):
        assert images.dtype == torch.uint8
        assert images.shape == (len(part), 3, 16, 16)
        assert images[:, 0].flatten(1).unique(dim=1).squeeze(1).tolist() == part.tolist()
        assert labels.tolist() == source.train.labels[part].tolist()
        assert torch.equal(images[:, 1, 5, 5].long(), 10 * labels)
    assert sorted(source.train.opened) == sorted([*train, *val])
    assert (data.resolution, data.num_classes, data.flips) == (16, 3, False)


def test_pixels_stay_where_they_were():
    pixels = np.random.default_rng(0).integers(256, size=(40, 9, 9, 3), dtype=np.uint8)
    labels = shuffled([20, 20])
    train = ArrayImages(pixels, labels)
    data = load_resident(Source("noise", ("a", "b"), train, None, 9, flips=True), 9, None, 8, seed=0)
    for images, part in zip(
        (data.train_images, data.val_images), split_indices(labels, None, 8, 0), strict=True
    ):
        assert np.array_equal(images.numpy(), pixels[part].transpose(0, 3, 1, 2))
    assert data.flips


def test_mean_and_deviation_are_those_of_the_training_images(source):
    data = load_resident(source, 8, 60, 24, seed=0)
    pixels = data.train_images.numpy().astype(np.float64)
    assert np.allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-5)
    assert np.allclose(data.std[:2], pixels.std((0, 2, 3))[:2], rtol=1e-3)
    assert data.std[2] == 1  # the third channel is one colour, and will be divided by this


def test_an_image_that_cannot_be_decoded_is_named(source):
    source.train.broken = split_indices(source.train.labels, 60, 24, seed=0)[1][5]
    with pytest.raises(InputError, match=r"12\.png"):
        load_resident(source, 8, 60, 24, seed=0)


def test_to_moves_every_tensor(source):
    moved = load_resident(source, 8, 60, 24, seed=0).to(torch.device("meta"))
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 6
    assert (moved.num_classes, moved.flips) == (3, False)
