"""Resident images: a stratified split, decoded in order, from which the held-out part stays away."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nas_recalib.data.resident import load_resident, split_indices
from nas_recalib.data.sources import ArrayImages, Source
from nas_recalib.errors import InputError


def shuffled(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(labels)


@given(
    counts=st.lists(st.integers(1, 40) | st.integers(200, 900), min_size=1, max_size=6),
    images=st.none() | st.integers(0, 150),
    validation=st.integers(0, 100),
    seed=st.integers(0, 2**32),
    by_class=st.booleans(),
)
def test_a_split_is_disjoint_exact_and_stratified_for_any_order_of_labels(
    counts, images, validation, seed, by_class
):
    labels, counts = np.sort(shuffled(counts)) if by_class else shuffled(counts), np.array(counts)
    classes, most = len(counts), counts.sum() - validation
    wanted = most if images is None else images
    if counts.min() < 2 or validation < classes or not classes <= wanted <= most:
        with pytest.raises(InputError):
            split_indices(labels, images, validation, seed)
        return
    train, val = split_indices(labels, images, validation, seed)
    assert not set(train) & set(val)
    assert len(set(train)) == len(train) == wanted
    assert len(set(val)) == len(val) == validation
    assert np.array_equal(train, np.sort(train))
    assert np.array_equal(val, np.sort(val))
    in_train, in_val = (np.bincount(labels[part], minlength=classes) for part in (train, val))
    left = counts - in_val
    for drawn, total, of, most in ((in_val, validation, counts, counts - 1), (in_train, wanted, left, left)):
        assert drawn.min() >= 1
        assert (drawn <= most).all()
        excess = (
            drawn - total * of / of.sum()
        )  # no image more of one class and less of another would be nearer
        from_, to = excess[drawn > 1], excess[drawn < most]
        assert not len(from_) or not len(to) or from_.max() - to.min() < 1 + 1e-9


def test_rare_classes_are_in_both_parts():
    labels = shuffled([2, 3, 5, 5000])
    for images, validation in ((None, 500), (1000, 100), (4, 4)):
        train, val = split_indices(labels, images, validation, seed=0)
        for part in (train, val):
            assert np.bincount(labels[part], minlength=4).min() == 1
        assert len(val) == validation


def test_a_split_is_determined_by_the_seed_and_validation_by_it_alone():
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
    ("counts", "images", "validation", "message"),
    [
        ([5, 5], None, 10, "validation: 10 of the 10 images leave 0 to train on, too few for one of each"),
        ([5, 5], None, 11, "validation: 11 of the 10 images leave 0 to train on, too few for one of each"),
        ([5, 5], None, 0, "validation: 0 images are too few for one of each of the 2 classes"),
        ([5, 5], None, 1, "validation: 1 images are too few for one of each of the 2 classes"),
        ([5, 5], 1, 4, "images: 1 are too few for one of each of the 2 classes"),
        ([5, 5], 0, 4, "images: 0 are too few for one of each of the 2 classes"),
        ([5, 5], 7, 4, "images: 7 is more than the 6 besides 4 for validation"),
        ([5, 5], 7, 14, "images: 7 is more than the 0 besides 14 for validation"),
        ([9, 1], None, 5, "too few images of the class 'b': it has 1 and needs 2"),
        ([5, 0, 5], None, 4, "too few images of the class 'b': it has 0 and needs 2"),
        ([5, 5, 0], None, 4, "too few images of the class 'c': it has 0 and needs 2"),
    ],
)
def test_too_few_images_are_refused(counts, images, validation, message):
    with pytest.raises(InputError, match=rf"{message}.*\Z"):
        split_indices(shuffled(counts), images, validation, 0, ("a", "b", "c")[: len(counts)])


def test_a_class_without_a_name_is_named_by_its_number():
    with pytest.raises(InputError, match="of the class 1: it has 1"):
        split_indices(shuffled([9, 1]), None, 5, 0)


@dataclass
class Numbered:
    """Images whose every pixel tells their number and label; remembers which were opened."""

    labels: np.ndarray
    opened: list = field(default_factory=list)
    broken: tuple = ()

    def open(self, index):
        if index in self.broken:
            raise InputError(f"{index}.png: not an image")
        self.opened.append(index)
        return Image.new("RGB", (30, 20), (index, 10 * int(self.labels[index]), 7))


class Forbidden(Numbered):
    def open(self, index):
        raise AssertionError("a test image was opened")


@pytest.fixture
def source():
    labels = shuffled([40, 30, 50])
    return Source("numbered", ("a", "b", "c"), Numbered(labels), Forbidden(labels), None, flips=False)


def test_images_have_their_own_labels_and_none_is_held_out(source):
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


def test_pixels_are_not_rearranged():
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


@pytest.mark.parametrize("part", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(source, part):
    broken = split_indices(source.train.labels, 60, 24, seed=0)[part][5]
    source.train.broken = (broken,)
    with pytest.raises(InputError, match=rf"^{broken}\.png: not an image; --corrupt-images skip leaves.*\Z"):
        load_resident(source, 8, 60, 24, seed=0)


def test_the_number_of_images_that_cannot_be_decoded_is_reported(source):
    source.train.broken = tuple(split_indices(source.train.labels, 60, 24, seed=0)[0][[3, 4, 9]])
    with pytest.raises(InputError, match=rf"^{source.train.broken[0]}\.png: .* \(and 2 more\); "):
        load_resident(source, 8, 60, 24, seed=0)


def test_skipped_images_leave_the_rest_of_the_split_unchanged(source):
    whole = load_resident(source, 8, 60, 24, seed=0)
    assert whole.skipped == ()
    train, val = split_indices(source.train.labels, 60, 24, seed=0)
    source.train.broken = (*train[[0, 30]], val[-1])
    data = load_resident(source, 8, 60, 24, seed=0, corrupt="skip")
    assert data.skipped == tuple(f"{index}.png: not an image" for index in source.train.broken)
    kept = np.delete(np.arange(60), [0, 30])
    assert torch.equal(data.train_images, whole.train_images[kept])
    assert torch.equal(data.train_labels, whole.train_labels[kept])
    assert torch.equal(data.val_images, whole.val_images[:-1])
    assert torch.equal(data.val_labels, whole.val_labels[:-1])
    assert data.mean[0] == data.train_images[:, 0].float().mean()
    assert data.to(torch.device("cpu")).skipped == data.skipped


@pytest.mark.parametrize(("part", "purpose"), [(0, "train"), (1, "validate")])
def test_a_class_without_decodable_images_is_refused(source, part, purpose):
    indices = split_indices(source.train.labels, 60, 24, seed=0)[part]
    source.train.broken = tuple(indices[source.train.labels[indices] == 1])
    with pytest.raises(InputError, match=f"no image of the class 'b' to {purpose} on can be decoded"):
        load_resident(source, 8, 60, 24, seed=0, corrupt="skip")


def test_an_unknown_treatment_of_corrupt_images_is_refused(source):
    with pytest.raises(InputError, match="corrupt-images: unknown 'ignore'; allowed: refuse, skip"):
        load_resident(source, 8, 60, 24, seed=0, corrupt="ignore")


def test_to_moves_every_tensor(source):
    moved = load_resident(source, 8, 60, 24, seed=0).to(torch.device("meta"))
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 6
    assert (moved.num_classes, moved.flips) == (3, False)
