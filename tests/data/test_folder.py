"""Image files of every kind as their owners expect them, and whatever is not one refused by name."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets.folder import default_loader

from nas_recalib.data.decoded import decode
from nas_recalib.data.folder import FileImages, read_folder
from nas_recalib.errors import InputError

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURS = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
BLOCKS = np.kron(COLOURS, np.ones((8, 8, 1), np.uint8))
ALPHA = Image.fromarray(RAMP[::-1].copy())


def opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return FileImages((Path(path),), np.zeros(1, np.int64)).open(0)


def rgba():
    image = Image.fromarray(COLOURS)
    image.putalpha(ALPHA)
    return image


def grey_with_alpha():
    image = Image.fromarray(RAMP)
    image.putalpha(ALPHA)
    return image


def palette():
    return Image.fromarray(COLOURS).quantize(16)


def cmyk():
    return Image.fromarray(BLOCKS).convert("CMYK")


def turned():
    return Image.fromarray(COLOURS[:, :5].copy())


def exif():
    tags = Image.Exif()
    tags[0x0112] = 6  # shown turned by a quarter
    return tags


AS_TORCHVISION = {
    "L.png": (lambda: Image.fromarray(RAMP), {}),
    "L.jpg": (lambda: Image.fromarray(RAMP), {}),
    "L.pgm": (lambda: Image.fromarray(RAMP), {}),
    "L with a transparent grey.png": (lambda: Image.fromarray(RAMP), {"transparency": 8}),
    "LA.png": (grey_with_alpha, {}),
    "RGB with a transparent colour.png": (lambda: Image.fromarray(COLOURS), {"transparency": (1, 2, 3)}),
    "RGBA.png": (rgba, {}),
    "RGBA.tif": (rgba, {}),
    "RGBA.webp": (rgba, {"lossless": True, "exact": True}),
    "P.png": (palette, {}),
    "P.bmp": (palette, {}),
    "P with a transparent colour.png": (palette, {"transparency": 3}),
    "1.png": (lambda: Image.fromarray(RAMP > 100), {}),
    "1.tif": (lambda: Image.fromarray(RAMP > 100), {}),
    "CMYK.jpg": (cmyk, {"quality": 95}),
    "CMYK.tif": (cmyk, {}),
    "turned.jpg": (turned, {"exif": exif()}),
    "turned.png": (turned, {"exif": exif()}),
}


@pytest.mark.parametrize("name", AS_TORCHVISION)
def test_images_open_as_torchvision_opens_them(name, tmp_path):
    make, options = AS_TORCHVISION[name]
    make().save(tmp_path / name, **options)
    image, reference = opened(tmp_path / name), default_loader(tmp_path / name)
    assert image.mode == "RGB"
    assert image.size == reference.size == make().size
    assert image.tobytes() == reference.tobytes()


def test_palettes_with_degrees_of_transparency_open_without_a_warning(tmp_path):
    palette().save(tmp_path / "p.png", transparency=bytes(range(0, 160, 10)))
    with pytest.warns(UserWarning, match="Transparency"):
        reference = default_loader(tmp_path / "p.png")
    assert opened(tmp_path / "p.png").tobytes() == reference.tobytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("1.png", np.where(RAMP > 100, 255, 0)), ("L.png", RAMP), ("LA.png", RAMP), ("CMYK.jpg", BLOCKS)],
)
def test_black_stays_black_and_white_white(name, expected, tmp_path):
    make, options = AS_TORCHVISION[name]
    make().save(tmp_path / name, **options)
    pixels = np.asarray(opened(tmp_path / name)).astype(int)
    difference = abs(pixels - np.atleast_3d(expected))
    assert difference.mean() < (12 if name == "CMYK.jpg" else 1e-9)  # lossy, but not a negative


@pytest.mark.parametrize("form", ["png", "tif", "pgm", "big-endian tif"])
def test_greys_of_sixteen_bits_are_scaled_to_eight(form, tmp_path):
    depth = np.linspace(0, 65_535, 64).round().astype(np.uint16).reshape(8, 8)
    path = tmp_path / f"deep.{form.split()[-1]}"
    if form == "pgm":
        path.write_bytes(b"P5 8 8 65535\n" + depth.astype(">u2").tobytes())
    elif form == "big-endian tif":
        Image.frombytes("I;16B", (8, 8), depth.astype(">u2").tobytes()).save(path)
    else:
        Image.fromarray(depth).save(path)
    with Image.open(path) as image:
        assert image.mode.startswith("I")
    pixels = np.asarray(opened(path))
    expected = np.rint(depth.astype(np.float64) / 257)
    assert np.array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_floating_point_pixels_are_refused_since_nobody_knows_what_is_white(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match=r"float\.tif: .*floating-point"):
        opened(tmp_path / "float.tif")


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 3), (3000, 20)])
def test_images_of_any_size_become_squares_of_their_colours(size, tmp_path):
    Image.new("RGB", size, (50, 100, 150)).save(tmp_path / "0.png")
    images = FileImages((tmp_path / "0.png",), np.zeros(1, np.int64))
    pixels = decode(images, [0], 16).pixels
    assert pixels.shape == (1, 3, 16, 16)
    assert pixels.flatten(2).unique(dim=2).squeeze().tolist() == [50, 100, 150]


def no_image(path):
    path.write_text("not an image")


def nothing(path):
    path.touch()


def not_allowed(path):
    Image.fromarray(COLOURS).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")


def gone(path):
    pass


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp", ".pgm"])
@pytest.mark.parametrize(
    ("make", "told"),
    [(no_image, "cannot"), (nothing, "cannot"), (not_allowed, "Permission"), (gone, "No such file")],
)
def test_what_is_not_an_image_is_named(make, told, suffix, tmp_path):
    path = tmp_path / f"odd{suffix}"
    make(path)
    with pytest.raises(InputError, match=f"not an image that can be decoded: {told}.*\\Z") as caught:
        opened(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_may_not_be_read_is_named_whoever_asks(tmp_path, monkeypatch):
    Image.fromarray(COLOURS).save(tmp_path / "0.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "0.png"))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=r"0\.png: not an image that can be decoded: Permission denied\Z"):
        opened(tmp_path / "0.png")


def encoded(form):
    file = io.BytesIO()
    Image.fromarray(COLOURS).quantize(16).convert("P" if form in ("PNG", "BMP") else "RGB").save(file, form)
    return file.getvalue()


FORMS = {form: encoded(form) for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")}


@settings(max_examples=300, deadline=None)
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_damage_is_either_not_seen_or_refused_in_one_line(data, form, tmp_path_factory):
    content = bytearray(FORMS[form])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)) | st.just(len(content)))])
    images = FileImages((path,), np.zeros(1, np.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            told = images.open(0).mode
        except InputError as error:
            told = str(error)
    assert told == "RGB" or told.startswith(f"{path}: not an image that can be decoded: ")
    assert len(told.splitlines()) == 1


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / "train" / name / "deep").mkdir(parents=True)
        Image.fromarray(COLOURS).save(tmp_path / "train" / name / "0.png")
    really = os.scandir

    def scandir(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        read_folder("folder", tmp_path)


def test_a_file_that_went_away_after_it_was_found_is_named(tmp_path):
    images = FileImages((tmp_path / "0.png",), np.zeros(1, np.int64))
    with pytest.raises(InputError, match=rf"^{tmp_path}/0\.png: cannot be read: No such file"):
        list(images.describe())


def test_files_are_found_as_their_names_sort_part_by_part(tmp_path):
    for name in ("b/0.png", "a b/0.png", "a/z.png", "a/a/1.png", "a/a.png", "a/B.PNG", "a-/0.png"):
        (tmp_path / "train" / "c" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOURS).save(tmp_path / "train" / "c" / name)
    (tmp_path / "train" / "d").mkdir()
    (tmp_path / "train" / "d" / "x.jpg").mkdir()  # a folder, whatever it is called
    Image.fromarray(COLOURS).save(tmp_path / "train" / "d" / "x.jpg" / "0.png")
    (tmp_path / "train" / "d" / ".jpg").write_text("a name without a suffix")
    (tmp_path / "train" / "d" / "link.png").symlink_to(tmp_path / "train" / "c" / "a" / "z.png")
    (tmp_path / "train" / "d" / "broken.png").symlink_to("nowhere")
    (tmp_path / "train" / "d" / "linked").symlink_to(tmp_path / "train" / "c")
    classes, train, held_out = read_folder("folder", tmp_path)
    expected = [
        path
        for name in ("c", "d")
        for path in sorted((tmp_path / "train" / name).rglob("*"))
        if path.suffix.lower() == ".png" and path.is_file() and "linked" not in path.parts
    ]
    assert (classes, held_out) == (("c", "d"), None)
    assert train.paths == tuple(expected)
    assert train.labels.tolist() == [0] * 7 + [1] * 2
