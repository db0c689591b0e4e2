"""Sources: the digits as they always were, folder trees as they lie, and every misfit refused by name."""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from nas_recalib.data.sources import ArrayImages, open_source
from nas_recalib.errors import InputError


def draw(path, side=9, mode="RGB"):
    """A picture that no other path or side has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list(f"{path.parent.name}/{path.name}".encode())
    pixels = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def tree(tmp_path):
    """Two classes of three pictures each, nothing held out."""
    for name in ("cat", "dog"):
        for number in range(3):
            draw(tmp_path / "train" / name / f"{number}.png")
    return tmp_path


def open_tree(root, kind="folder"):
    return open_source(f"{kind}:{root}", root / "cache")


def refusal(spec):
    with pytest.raises(InputError, match=r"^data: .*\Z") as caught:  # one line
        open_source(spec, Path())
    return str(caught.value)


def test_digits_are_complete_and_every_fifth_of_each_class_is_held_out():
    source, whole = open_source("digits", Path()), load_digits()
    parts = (source.train, source.held_out)
    pixels = np.concatenate([part.pixels for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    assert len(labels) == 1797
    expected = np.rint(whole.images * 255 / 16).astype(np.uint8)
    assert sorted(zip(map(bytes, pixels), labels, strict=True)) == sorted(
        zip(map(bytes, expected), whole.target, strict=True)
    )
    assert np.array_equal(np.bincount(parts[1].labels), np.bincount(whole.target) // 5)
    assert (source.native_size, source.flips) == (8, False)
    assert source.classes == tuple("0123456789")
    assert source.fingerprint() == "76eb36d2fbfeeb1e"  # never changes: studies remember it


def test_array_images_open_in_rgb():
    pixels = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
    grey = ArrayImages(pixels, np.zeros(2, dtype=np.int64)).open(1)
    assert (grey.mode, grey.size) == ("RGB", (5, 4))
    assert np.array_equal(np.asarray(grey), np.repeat(pixels[1][..., None], 3, axis=2))


@pytest.mark.parametrize(
    "spec", ["", "mnist", "Digits", "digits:", "folder", "folder:", "imagenet", "cifar10:x"]
)
def test_an_unknown_name_is_refused_and_the_known_ones_are_listed(spec):
    message = refusal(spec)
    for known in (repr(spec), "auto", "digits", "cifar10", "cifar100", "folder:PATH", "imagenet:PATH"):
        assert known in message


def test_folder_labels_its_images_by_the_sorted_names_of_their_folders(tree, monkeypatch):
    draw(tree / "train" / "ant" / "deep" / "er.JPEG")
    (tree / "train" / "ant" / "notes.txt").write_text("not an image")
    (tree / "train" / "README").write_text("not a class")
    monkeypatch.chdir(tree)
    source = open_source("folder:.", Path())
    assert source.spec == f"folder:{tree}"
    assert source.classes == ("ant", "cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 1, 1, 2, 2, 2]
    names = [f"{path.parent.name}/{path.name}" for path in source.train.paths]
    assert names == ["deep/er.JPEG", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3))]
    with Image.open(tree / "train" / "dog" / "1.png") as image:
        assert source.train.open(5).tobytes() == image.tobytes()
    assert (source.native_size, source.flips) == (None, True)


@pytest.mark.parametrize(
    ("kind", "parts", "chosen"),
    [
        *((kind, [], None) for kind in ("folder", "imagenet")),
        *((kind, [part], part) for kind in ("folder", "imagenet") for part in ("val", "test")),
        ("folder", ["val", "test"], "test"),
        ("imagenet", ["val", "test"], "val"),
    ],
)
def test_folder_holds_out_test_else_val_else_nothing(tree, kind, parts, chosen):
    for part in parts:
        draw(tree / part / "dog" / f"of-{part}.png")
    source = open_tree(tree, kind)
    assert len(source.train.labels) == 6
    if chosen is None:
        assert source.held_out is None
    else:
        assert [path.name for path in source.held_out.paths] == [f"of-{chosen}.png"]
        assert source.held_out.labels.tolist() == [1]


def test_imagenet_holds_out_val_not_its_unlabelled_test_images(tree):
    draw(tree / "val" / "cat" / "labelled.png")
    draw(tree / "test" / "unlabelled.png")
    assert [path.name for path in open_tree(tree, "imagenet").held_out.paths] == ["labelled.png"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_folder_opens_every_mode_in_rgb(tree, mode):
    draw(tree / "train" / "cat" / "0.png", side=7, mode=mode)
    opened = open_tree(tree).train.open(0)
    assert (opened.mode, opened.size) == ("RGB", (7, 7))


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda root: shutil.rmtree(root), ["is not a folder"]),
        (lambda root: shutil.rmtree(root / "train"), ["no folder train/"]),
        (lambda root: emptied(root / "train"), ["train", "has no images"]),
        (
            lambda root: [emptied(root / "train" / name) for name in ("cat", "dog")],
            ["train", "has no images"],
        ),
        (lambda root: emptied(root / "train" / "dog"), ["'dog'", "has no images"]),
        (lambda root: shutil.rmtree(root / "train" / "dog"), ["one class, 'cat'", "at least 2"]),
        (lambda root: draw(root / "test" / "fox" / "0.png"), ["test", "'fox'", "train/ lacks"]),
        (lambda root: draw(root / "val" / "fox" / "0.png"), ["val", "'fox'", "train/ lacks"]),
    ],
)
def test_a_folder_of_another_structure_is_refused_by_name(tree, spoil, named):
    spoil(tree)
    message = refusal(f"folder:{tree}")
    for words in (str(tree), *named):
        assert words in message


def encoded(image, form):
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def cut_short(image):
    return encoded(image, "JPEG")[:-40]


def spoiled(image):
    return encoded(image, "PNG")[:8] + b"and then nothing of the kind"


def vast(image):
    """A picture whose header says that it is 60,000 pixels high and wide."""
    content = encoded(image, "BMP")
    return content[:18] + (60_000).to_bytes(4, "little") * 2 + content[26:]


@pytest.mark.parametrize("corrupt", [cut_short, spoiled, vast, lambda _: b"", lambda _: b"text"])
def test_a_corrupt_image_is_named_when_it_is_opened(tree, corrupt):
    path = tree / "train" / "dog" / "1.png"
    with Image.open(path) as image:
        content = corrupt(image.convert("RGB").resize((64, 64)))
    path.write_bytes(content)
    train = open_tree(tree).train
    with pytest.raises(InputError, match="not an image") as caught:
        train.open(4)
    assert str(path) in str(caught.value)
    assert train.open(3).size == (9, 9)


CHANGES = {
    "added": lambda train: draw(train / "cat" / "3.png"),
    "removed": lambda train: (train / "cat" / "1.png").unlink(),
    "resized": lambda train: draw(train / "cat" / "1.png", side=10),
    "renamed": lambda train: (train / "cat" / "1.png").rename(train / "cat" / "9.png"),
    "relabelled": lambda train: (train / "cat" / "1.png").rename(train / "dog" / "9.png"),
    "relabelled deep": lambda train: (train / "cat" / "z").rename(train / "dog" / "0" / "z"),
    "class added": lambda train: draw(train / "eel" / "0.png"),
    "class renamed": lambda train: (train / "cat").rename(train / "bat"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_fingerprint_of_a_folder_changes_with_its_images(tree, change):
    draw(tree / "train" / "cat" / "z" / "0.png")
    (tree / "train" / "dog" / "0").mkdir()
    before = open_tree(tree).fingerprint()
    change(tree / "train")
    assert open_tree(tree).fingerprint() != before


def test_the_fingerprint_of_a_folder_changes_with_nothing_else(tree):
    before = open_tree(tree).fingerprint()
    draw(tree / "test" / "cat" / "0.png")
    (tree / "train" / "cat" / "notes.txt").write_text("not an image")
    os.utime(tree / "train" / "cat" / "0.png", (0, 0))
    shutil.copytree(tree, tree / "elsewhere")
    assert open_tree(tree).fingerprint() == before
    assert open_tree(tree / "elsewhere", "imagenet").fingerprint() == before


def test_the_fingerprint_of_arrays_depends_on_pixels_labels_and_classes():
    source = open_source("digits", Path())
    pixels, labels = source.train.pixels, source.train.labels
    brighter, relabelled = pixels.copy(), labels.copy()
    brighter[700, 3, 3] ^= 1
    relabelled[[0, 1]] = relabelled[[1, 0]]
    others = [
        replace(source, train=ArrayImages(brighter, labels)),
        replace(source, train=ArrayImages(pixels, relabelled)),
        replace(source, train=ArrayImages(pixels[:-1], labels[:-1])),
        replace(source, classes=(*source.classes[:9], "nine")),
    ]
    assert len({source.fingerprint(), *(other.fingerprint() for other in others)}) == 5
    same = replace(source, train=ArrayImages(pixels.copy(), labels.copy()), held_out=None, note="another")
    assert same.fingerprint() == source.fingerprint()
