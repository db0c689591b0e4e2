"""Decoding: squares cut as they should be; what is kept of files is taken only while it is what they hold."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nas_recalib.data import resident
from nas_recalib.data.folder import FileImages
from nas_recalib.data.resident import decode, fit_square, limit_aspect
from nas_recalib.data.sources import ArrayImages

NUMBER, SIDE = 12, 8


def draw(path, seed):
    pixels = np.random.default_rng(seed).integers(256, size=(9, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path):
    paths = tuple(tmp_path / f"{number}.bmp" for number in range(NUMBER))  # all of one size in bytes
    for number, path in enumerate(paths):
        draw(path, number)
    return FileImages(paths, np.arange(NUMBER) % 2)


@pytest.fixture
def opened(monkeypatch):
    """The numbers of the images that were opened."""
    numbers, really = [], FileImages.open
    monkeypatch.setattr(FileImages, "open", lambda self, index: numbers.append(index) or really(self, index))
    return numbers


def expected(images, indices, side=SIDE):
    squares = [np.asarray(fit_square(Image.open(images.paths[i]), side)) for i in indices]
    return torch.from_numpy(np.stack(squares).transpose(0, 3, 1, 2))


def kept(cache):
    return sorted((cache / "decoded").iterdir())


def test_pixels_are_in_the_order_of_the_indices_with_a_cache_and_without(images, tmp_path):
    order = [5, 0, 11, 3]
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        result = decode(images, order, SIDE, cache)
        assert torch.equal(result.pixels, expected(images, order))
        assert result.faults == {}


def test_cached_images_are_not_decoded_again(images, opened, tmp_path):
    cache = tmp_path / "not" / "yet"
    decode(images, range(NUMBER), SIDE, cache)
    opened.clear()
    assert torch.equal(decode(images, range(NUMBER), SIDE, cache).pixels, expected(images, range(NUMBER)))
    assert opened == []
    assert len(kept(cache)) == 1


def test_writing_to_the_result_does_not_change_the_cache(images, tmp_path):
    for _ in range(3):
        pixels = decode(images, range(NUMBER), SIDE, tmp_path).pixels
        assert torch.equal(pixels, expected(images, range(NUMBER)))
        pixels.zero_()


def other_way(images, monkeypatch):
    monkeypatch.setattr(resident, "_METHOD", "another")


def altered(images, monkeypatch):
    """The same size and the same times, as far as they can be set."""
    status = images.paths[7].stat()
    draw(images.paths[7], 99)
    os.utime(images.paths[7], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert images.paths[7].stat().st_size == status.st_size


@pytest.mark.parametrize(
    ("order", "side", "change"),
    [
        (range(NUMBER), SIDE + 1, None),
        (range(NUMBER - 1), SIDE, None),
        ([1, 0, *range(2, NUMBER)], SIDE, None),
        (range(NUMBER), SIDE, other_way),
        (range(NUMBER), SIDE, altered),
    ],
    ids=["side", "fewer", "order", "way", "altered in place"],
)
def test_any_other_images_or_settings_are_decoded_again(
    order, side, change, images, opened, monkeypatch, tmp_path
):
    decode(images, range(NUMBER), SIDE, tmp_path)
    opened.clear()
    if change:
        change(images, monkeypatch)
    assert torch.equal(decode(images, order, side, tmp_path).pixels, expected(images, order, side))
    assert sorted(opened) == sorted(order)
    assert len(kept(tmp_path)) == 2


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:31],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: flipped(content, 3),
        lambda content: flipped(content, 32),
        lambda content: flipped(content, -1 % len(content)),
        lambda content: bytes(len(content)),
    ],
    ids=["empty", "hash cut", "torn", "longer", "hash", "first", "last", "zeros"],
)
def test_a_damaged_cache_file_is_decoded_again_and_replaced(spoil, images, opened, tmp_path):
    decode(images, range(NUMBER), SIDE, tmp_path)
    (file,) = kept(tmp_path)
    sound = file.read_bytes()
    file.write_bytes(spoil(sound))
    opened.clear()
    assert torch.equal(decode(images, range(NUMBER), SIDE, tmp_path).pixels, expected(images, range(NUMBER)))
    assert sorted(opened) == list(range(NUMBER))
    assert file.read_bytes() == sound


def test_the_cache_file_of_other_images_is_not_used(images, opened, tmp_path):
    decode(images, [0, 1], SIDE, tmp_path)
    (file,) = kept(tmp_path)
    other = file.read_bytes()
    file.unlink()
    decode(images, [2, 3], SIDE, tmp_path)
    (file,) = kept(tmp_path)
    file.write_bytes(other)
    assert torch.equal(decode(images, [2, 3], SIDE, tmp_path).pixels, expected(images, [2, 3]))


def a_file(cache, monkeypatch):
    cache.write_text("in the way")


def a_folder(cache, monkeypatch):
    """Create a folder at the path of the cache file."""
    monkeypatch.setattr(resident, "_cache_path", lambda *_: cache / "decoded")
    (cache / "decoded").mkdir(parents=True)


def full(cache, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def read_only(cache, monkeypatch):
    def fail(self, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", fail)


@pytest.mark.parametrize("problem", [a_file, a_folder, full, read_only])
def test_a_cache_folder_that_cannot_be_used_is_ignored(problem, images, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    problem(cache, monkeypatch)
    for _ in range(2):
        result = decode(images, range(NUMBER), SIDE, cache)
        assert torch.equal(result.pixels, expected(images, range(NUMBER)))
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_images_in_memory_are_not_cached(tmp_path):
    images = ArrayImages(np.zeros((3, 8, 8), np.uint8), np.zeros(3, np.int64))
    decode(images, range(3), SIDE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_faults_are_reported_by_position_until_the_files_are_repaired(images, opened, monkeypatch, tmp_path):
    order = [4, 9, 2, 6]
    sound = images.paths[2].read_bytes()
    images.paths[2].write_bytes(b"not an image")
    for count in (4, 1):
        opened.clear()
        result = decode(images, order, SIDE, tmp_path)
        assert list(result.faults) == [2]
        assert result.faults[2].startswith(f"{images.paths[2]}: not an image that can be decoded")
        assert torch.equal(result.pixels[[0, 1, 3]], expected(images, [4, 9, 6]))
        assert len(opened) == count
    images.paths[2].write_bytes(sound)
    result = decode(images, order, SIDE, tmp_path)
    assert result.faults == {}
    assert torch.equal(result.pixels, expected(images, order))


def test_a_missing_file_is_a_fault(images, tmp_path):
    images.paths[3].unlink()
    assert list(decode(images, range(NUMBER), SIDE, tmp_path).faults) == [3]


STRIPS = [(1, 40_001), (40_001, 1), (2, 65_000), (3000, 1)]


@pytest.mark.parametrize("size", STRIPS)
def test_a_strip_is_cropped_before_it_is_enlarged(size):
    width, height, side = *size, min(size)
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = ((length - min(length, 3 * side)) // 2 for length in (height, width))
    pixels[top : top + 3 * side, left : left + 3 * side] = (200, 100, 50)
    image = Image.fromarray(pixels)
    square = np.asarray(fit_square(image, 500))
    assert square.shape == (500, 500, 3)
    assert (square == (200, 100, 50)).all()


@pytest.mark.parametrize("size", [*STRIPS, (33, 2)])
def test_limit_aspect_keeps_sixteen_times_the_shorter_side_around_the_centre(size):
    numbers = np.arange(size[0] * size[1], dtype=np.int32).reshape(size[::-1])
    cut = np.asarray(limit_aspect(Image.fromarray(numbers)))
    shorter = min(size)
    assert sorted(cut.shape) == [shorter, 16 * shorter]
    before, after = int(cut[0, 0]), numbers.size - 1 - int(cut[-1, -1])
    assert abs(before - after) <= shorter


@given(width=st.integers(1, 99), height=st.integers(1, 99))
def test_limit_aspect_keeps_other_images_unchanged(width, height):
    image = Image.new("RGB", (width, height))
    assert (limit_aspect(image) is image) == (max(width, height) <= 16 * min(width, height))


@pytest.mark.parametrize(("size", "left", "top"), [((40, 20), 10, 0), ((20, 40), 0, 10), ((21, 20), 0, 0)])
def test_fit_square_crops_the_centre_if_nothing_is_scaled(size, left, top):
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
def test_fit_square_returns_the_requested_side(width, height, side):
    assert fit_square(Image.new("RGB", (width, height)), side).size == (side, side)


def test_fit_square_keeps_a_square_of_that_side_unchanged():
    pixels = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(fit_square(Image.fromarray(pixels), 16)), pixels)
