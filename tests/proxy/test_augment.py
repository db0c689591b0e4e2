"""Augmentation: every image of an epoch is one of the possible shifted and mirrored crops."""

import numpy as np
import pytest
import torch

from nas_recalib.proxy.train import augment_epoch


def noise(count, side, channels=3):
    generator = torch.Generator().manual_seed(side)
    return torch.randint(256, (count, channels, side, side), generator=generator, dtype=torch.uint8)


def augment(images, order, flips, seed=0):
    return augment_epoch(images, torch.as_tensor(order), flips, torch.Generator().manual_seed(seed))


def crops(image, flips):
    """Return every possible crop of an image: bytes -> (mirrored, top, left)."""
    side = image.shape[-1]
    reach = side // 8
    padded = np.pad(image.numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    found = {}
    for top in range(2 * reach + 1):
        for left in range(2 * reach + 1):
            crop = padded[:, top : top + side, left : left + side]
            found[crop.tobytes()] = (False, top, left)
            if flips:
                found[crop[:, :, ::-1].tobytes()] = (True, top, left)
    return found


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(("side", "channels"), [(5, 3), (8, 3), (15, 1), (16, 3), (24, 3)])
def test_every_image_is_a_crop_of_its_own_original(side, channels, flips):
    images = noise(6, side, channels)
    order = [4, 0, 3, 3, 5, 1, 0]
    result = augment(images, order, flips)
    assert result.dtype == torch.uint8
    assert result.shape == (len(order), channels, side, side)
    for number, image in zip(order, result, strict=True):
        assert image.numpy().tobytes() in crops(images[number], flips)


@pytest.mark.parametrize("flips", [False, True])
def test_every_crop_comes_and_half_are_mirrored(flips):
    image, times = noise(1, 16), 2000
    possible = crops(image[0], flips)
    drawn = [possible[one.numpy().tobytes()] for one in augment(image, [0] * times, flips)]
    assert len(possible) == 5 * 5 * (1 + flips)
    assert set(drawn) == set(possible.values())
    mirrored = sum(draw[0] for draw in drawn) / times
    assert mirrored == (pytest.approx(0.5, abs=0.05) if flips else 0)


def test_the_order_is_kept():
    images = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, 16, 16)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:30]
    result = augment(images, order, flips=True)
    assert torch.equal(result.amin((1, 2, 3)).long(), order)
    assert torch.equal(result.amax((1, 2, 3)).long(), order)


def test_the_generator_alone_decides_and_the_global_one_is_left_alone():
    images, order = noise(8, 16), list(range(8))
    before = torch.get_rng_state()
    first, again, other = (augment(images, order, True, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = torch.Generator().manual_seed(0)
    epochs = [augment_epoch(images, torch.tensor(order), True, generator) for _ in range(2)]
    assert torch.equal(epochs[0], first)
    assert not torch.equal(epochs[1], first)


def test_the_originals_are_left_alone_and_the_result_is_channels_last():
    images = noise(8, 16)
    kept = images.clone()
    result = augment(images, range(8), flips=True)
    assert torch.equal(images, kept)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert not result.is_contiguous()
