"""Image files of every kind as their owners expect them, and whatever is not one refused by name."""

import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets.folder import default_loader

from nas_recalib.data.folder import FileImages
from nas_recalib.data.image_file import is_nearly_black, open_rgb
from nas_recalib.data.resident import decode
from nas_recalib.errors import InputError

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURS = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
BLOCKS = np.kron(COLOURS, np.ones((8, 8, 1), np.uint8))
ALPHA = Image.fromarray(RAMP[::-1].copy())


def opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return open_rgb(Path(path))


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
    "P.gif": (palette, {}),
    "P with a transparent colour.gif": (palette, {"transparency": 3}),
    "PA.tif": (lambda: palette().convert("PA"), {}),
    "YCbCr.tif": (lambda: Image.fromarray(COLOURS).convert("YCbCr"), {}),
    "LAB.tif": (lambda: Image.fromarray(COLOURS).convert("LAB"), {}),
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


def test_floating_point_pixels_are_refused_as_white_is_unknown(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match=r"float\.tif: .*floating-point"):
        opened(tmp_path / "float.tif")


def write_tiff(path, values, bits, **tags):
    """A grey TIFF in one strip, for depths and tags that Pillow does not write."""
    values = np.asarray(values)
    if bits == 12:
        digits = "".join(f"{value:03x}" for value in values.ravel())
        content = bytes.fromhex(digits + "0" * (len(digits) % 2))
    else:
        content = values.astype(f"<i{bits // 8}" if values.min() < 0 else f"<u{bits // 8}").tobytes()
    numbers = {"photometric": 262, "max_sample_value": 281, "sample_format": 339, "s_max_sample_value": 341}
    entries = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: 1, 273: 8, 277: 1}
    entries |= {278: values.shape[0], 279: len(content)} | {numbers[name]: tag for name, tag in tags.items()}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    header = b"II*\0" + struct.pack("<I", 8 + len(content))
    path.write_bytes(header + content + struct.pack("<H", len(entries)) + fields + bytes(4))
    return path


def levels(path):
    return np.asarray(opened(path))[..., 0].ravel().tolist()


@pytest.mark.parametrize(
    ("values", "bits", "tags", "expected"),
    [
        ([[0, 1, 128, 255]], 32, {}, [0, 1, 128, 255]),
        ([[0, 1, 7, 7]], 32, {}, [0, 1, 7, 7]),
        ([[0, 1, 128, 255]], 32, {"sample_format": 2}, [0, 1, 128, 255]),
        ([[0, 1, 128, 255]], 16, {"sample_format": 2}, [0, 1, 128, 255]),
        ([[0, 16, 2048, 4095]], 12, {}, [0, 1, 128, 255]),
        ([[0, 1000, 2048, 4095]], 16, {}, [0, 4, 8, 16]),
        ([[0, 1000, 2048, 4095]], 16, {"max_sample_value": 4095}, [0, 62, 128, 255]),
        ([[0, 255, 128, 1]], 16, {"max_sample_value": 255}, [0, 255, 128, 1]),
        ([[0, 257, 32_896, 65_535]], 16, {"max_sample_value": 65_535}, [0, 1, 128, 255]),
        ([[0, 257, 32_896, 50_000]], 16, {"max_sample_value": 50_000}, [0, 1, 128, 195]),  # a statistic
        ([[0, 1023, 512, 4]], 32, {"max_sample_value": 1023}, [0, 255, 128, 1]),
        ([[0, 32_767, 16_384, 0]], 16, {"sample_format": 2, "s_max_sample_value": 32_767}, [0, 255, 128, 0]),
        ([[0, 2**32 - 1, 2**31, 2**24]], 32, {"max_sample_value": 2**32 - 1}, [0, 255, 128, 1]),
        ([[0, 257, 32_896, 65_535]], 16, {"photometric": 0}, [255, 254, 127, 0]),
        ([[0, 1000, 2048, 4095]], 16, {"photometric": 0, "max_sample_value": 4095}, [255, 193, 127, 0]),
    ],
)
def test_deep_greys_are_scaled_by_the_declared_white_value(values, bits, tags, expected, tmp_path):
    assert levels(write_tiff(tmp_path / "grey.tif", values, bits, **tags)) == expected


@pytest.mark.parametrize(
    ("values", "bits", "tags", "message"),
    [
        ([[0, 256]], 32, {}, "its values run from 0 to 256, and white is not declared"),
        ([[0, 65_535]], 32, {}, "its values run from 0 to 65535, and white is not"),
        ([[0, 2**31]], 32, {}, "its values run from 0 to 2147483648, and white is not"),
        ([[0, 5000]], 32, {"max_sample_value": 5000}, "its values run from 0 to 5000, and white is not"),
        ([[-1, 200]], 32, {"sample_format": 2}, "its values run from -1 to 200, and white is not"),
        ([[-1000, 3000]], 16, {"sample_format": 2}, "its values run from -1000 to 3000, and white is not"),
        ([[0, 4096]], 16, {"max_sample_value": 4095}, "from 0 to 4096, although its MaxSampleValue is 4095"),
    ],
)
def test_greys_of_unknown_white_value_are_refused(values, bits, tags, message, tmp_path):
    path = write_tiff(tmp_path / "grey.tif", values, bits, **tags)
    with pytest.raises(InputError, match=rf"grey\.tif: .*{message}.*MaxSampleValue.*\Z"):
        opened(path)


def test_colours_that_pillow_would_make_nearly_black_are_refused(tmp_path):
    content = bytearray(write_tiff(tmp_path / "rgb.tif", [[0] * 12], 16, max_sample_value=4095).read_bytes())
    for tag, value in ((256, 4), (262, 2), (277, 3)):
        at = content.index(struct.pack("<HHI", tag, 4, 1))
        content[at + 8 : at + 12] = struct.pack("<I", value)
    (tmp_path / "rgb.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"rgb\.tif: .*16 bits but end at 4095; convert them to 8 bits\Z"):
        opened(tmp_path / "rgb.tif")


@pytest.mark.parametrize(
    ("values", "bits", "tags", "expected"),
    [
        ([[0, 4095]], 16, {}, True),
        ([[0, 4096]], 16, {}, False),
        ([[0, 4095]], 16, {"max_sample_value": 4095}, None),
        ([[0, 4095]], 16, {"sample_format": 2}, None),
        ([[0, 4095]], 12, {}, None),
        ([[0, 200]], 32, {}, None),
        ([[0, 200]], 8, {}, None),
    ],
)
def test_undeclared_depths_are_detected(values, bits, tags, expected, tmp_path):
    assert is_nearly_black(write_tiff(tmp_path / "grey.tif", values, bits, **tags)) is expected
    (tmp_path / "grey.tif").write_bytes(b"not an image")
    assert is_nearly_black(tmp_path / "grey.tif") is None


def test_greys_of_sixteen_bits_in_png_have_no_other_white(tmp_path):
    Image.fromarray(np.array([[0, 1000, 4095]], np.uint16)).save(tmp_path / "dark.png")
    assert levels(tmp_path / "dark.png") == [0, 4, 16]
    assert is_nearly_black(tmp_path / "dark.png") is True


def damaged_exif(path):
    tags = Image.Exif()
    tags[0x010E] = "x" * 50
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "JPEG", exif=tags)
    content = bytearray(file.getvalue())
    at = content.index(b"Exif\0\0") + 20
    content[at : at + 4] = b"\xff\x7f\xff\x7f"
    path.write_bytes(content)


def half_transparent(path):
    palette().save(path, transparency=bytes(range(0, 160, 10)))


def very_large(path):
    Image.fromarray(RAMP).save(path)


@pytest.mark.parametrize(
    ("make", "name"), [(damaged_exif, "exif.jpg"), (half_transparent, "p.png"), (very_large, "large.png")]
)
def test_warnings_of_pillow_are_suppressed_in_every_thread(make, name, tmp_path, monkeypatch):
    make(tmp_path / name)
    if make is very_large:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    images = FileImages((tmp_path / name,) * 40, np.zeros(40, np.int64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Image.open(tmp_path / name) as image:
            image.convert("RGB")
        assert len(caught) >= 1
        caught.clear()
        filters = list(warnings.filters)
        assert decode(images, range(40), 8).faults == {}
        assert caught == []
        assert warnings.filters == filters


def test_images_of_more_pixels_than_pillow_opens_are_refused_in_one_line(tmp_path, monkeypatch):
    very_large(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(
        InputError, match=r"large\.png: not an image that can be decoded: Image size \(64 pixels.*\Z"
    ):
        opened(tmp_path / "large.png")


@pytest.mark.parametrize("name", ["frames.gif", "frames.png", "frames.webp", "pages.tif"])
def test_the_first_of_several_frames_is_read(name, tmp_path):
    others = [Image.new("RGB", (8, 8), (0, 0, 0))] * 2
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.new("RGB", (8, 8), (0, 255, 0)).save(
        tmp_path / name, save_all=True, append_images=others, **options
    )
    assert np.unique(np.asarray(opened(tmp_path / name)).reshape(-1, 3), axis=0).tolist() == [[0, 255, 0]]


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
    ("make", "message"),
    [(no_image, "cannot"), (nothing, "cannot"), (not_allowed, "Permission"), (gone, "No such file")],
)
def test_files_that_are_not_images_are_named(make, message, suffix, tmp_path):
    path = tmp_path / f"odd{suffix}"
    make(path)
    with pytest.raises(InputError, match=f"not an image that can be decoded: {message}.*\\Z") as caught:
        opened(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_without_read_permission_is_named(tmp_path, monkeypatch):
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


@examples(300)
@given(data=st.data(), form=st.sampled_from(sorted(FORMS)))
def test_damage_is_undetected_or_refused_in_one_line(data, form, tmp_path_factory):
    content = bytearray(FORMS[form])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)) | st.just(len(content)))])
    try:
        message = opened(path).mode
    except InputError as error:
        message = str(error)
    assert message == "RGB" or message.startswith(f"{path}: not an image that can be decoded: ")
    assert len(message.splitlines()) == 1
