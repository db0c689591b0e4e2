"""Trees of folders: what is an image of which class, and what is left out is said."""

import os

import numpy as np
import pytest
from PIL import Image

from nas_recalib.data.folder import FileImages, read_folder
from nas_recalib.data.sources import open_source
from nas_recalib.errors import InputError

COLOURS = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.fixture
def grow(tmp_path):
    """Adds files, pictures where their names say so, and reads the tree of two classes that they are in."""

    def add(*names, kind="folder"):
        for name in ("train/cat/0.png", "train/dog/0.png", *names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() in (".png", ".tif"):
                Image.fromarray(COLOURS).save(path)
            else:
                path.write_bytes(b"something")
        return read_folder(kind, tmp_path)

    return add


def names(images):
    return [f"{path.parent.name}/{path.name}" for path in images.paths]


def test_a_folder_that_cannot_be_listed_is_not_treated_as_empty(tmp_path, monkeypatch):
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


def test_a_file_that_is_deleted_after_it_was_found_is_named(tmp_path):
    images = FileImages((tmp_path / "0.png",), np.zeros(1, np.int64))
    with pytest.raises(InputError, match=rf"^{tmp_path}/0\.png: cannot be read: No such file"):
        list(images.describe())


def test_files_are_sorted_by_the_parts_of_their_paths(tmp_path):
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
    classes, train, held_out, remarks = read_folder("folder", tmp_path)
    expected = [
        path
        for name in ("c", "d")
        for path in sorted((tmp_path / "train" / name).rglob("*"))
        if path.suffix.lower() == ".png" and path.is_file() and "linked" not in path.parts
    ]
    assert (classes, held_out) == (("c", "d"), None)
    assert train.paths == tuple(expected)
    assert train.labels.tolist() == [0] * 7 + [1] * 2
    assert remarks == (
        "ignored broken links and special files: 1, such as train/d/broken.png",
        "ignored links to folders inside the classes: 1, such as train/d/linked",
    )


def test_hidden_files_and_folders_are_ignored_and_counted_in_one_line(grow):
    tree = grow(
        "train/.ipynb_checkpoints/0-checkpoint.png",
        "train/@eaDir/0.png",
        "train/__MACOSX/cat/0.png",
        "train/cat/.ipynb_checkpoints/0-checkpoint.png",
        "train/cat/@eaDir/0.png@SynoEAStream",
        "train/dog/._0.jpg",
        "train/dog/.DS_Store",
        "train/dog/Thumbs.db",
        "train/._cat.png",
        "val/.cache/0.png",
        "val/cat/1.png",
        "val/cat/._1.png",
    )
    assert tree.classes == ("cat", "dog")
    assert names(tree.train) == ["cat/0.png", "dog/0.png"]
    assert names(tree.held_out) == ["cat/1.png"]
    assert tree.remarks == (
        "ignored hidden files and folders: 8, such as train/.ipynb_checkpoints",
        "the held-out part is val/",
    )


def test_a_tree_in_a_hidden_folder_is_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / ".data" / "train" / name).mkdir(parents=True)
        Image.fromarray(COLOURS).save(tmp_path / ".data" / "train" / name / "0.png")
    tree = read_folder("folder", tmp_path / ".data")
    assert (tree.classes, tree.remarks) == (("a", "b"), ())


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "gif", "pbm", "pnm", "JPEG", "TIFF"])
def test_images_with_other_usual_suffixes_are_read(suffix, grow):
    tree = grow(f"train/cat/1.{suffix}")
    assert names(tree.train) == ["cat/0.png", f"cat/1.{suffix}", "dog/0.png"]
    assert tree.remarks == ()


def test_images_that_are_not_read_are_counted_by_suffix(grow):
    tree = grow("train/cat/1.heic", "train/cat/2.HEIC", "train/dog/1.avif", "train/dog/notes.txt")
    assert len(tree.train.paths) == 2
    assert tree.remarks == (
        "ignored .avif files, which are not read: 1, such as train/dog/1.avif",
        "ignored .heic files, which are not read: 2, such as train/cat/1.heic",
    )


def test_images_outside_the_folders_of_the_classes_are_counted(grow):
    tree = grow("train/1.png", "train/2.jpg", "train/labels.csv")
    assert tree.remarks == ("ignored images outside the folders of the classes: 2, such as train/1.png",)


def test_a_class_without_images_is_refused_with_what_was_ignored_in_it(grow):
    with pytest.raises(
        InputError, match=r"the class 'eel' of .* has no images; ignored \.heic files.*: 2, .*\Z"
    ):
        grow("train/eel/0.heic", "train/eel/1.heic")


@pytest.mark.parametrize("kind", ["folder", "imagenet"])
@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Valid", "VAL"])
def test_the_held_out_part_has_any_usual_name(kind, name, grow):
    tree = grow(f"{name}/dog/1.png", kind=kind)
    assert names(tree.held_out) == ["dog/1.png"]
    assert tree.held_out.labels.tolist() == [1]
    assert tree.remarks == (f"the held-out part is {name}/",)


@pytest.mark.parametrize(
    ("kind", "parts", "remark"),
    [
        ("folder", ["val", "test"], "test/, not val/"),
        ("folder", ["validation", "valid", "val"], "val/, not valid/ and validation/"),
        ("imagenet", ["test", "validation"], "validation/, not test/"),
        ("imagenet", ["test", "val", "Val"], "val/, not test/"),
    ],
)
def test_of_several_held_out_parts_the_one_that_is_used_is_named(kind, parts, remark, grow):
    tree = grow(*(f"{part}/dog/1.png" for part in parts), kind=kind)
    assert f"{tree.held_out.paths[0].parent.parent.name}/" == remark.split(",")[0]
    assert tree.remarks == (f"the held-out part is {remark}",)


def test_a_held_out_part_without_labelled_images_is_reported(grow):
    tree = grow("val/0.png", "val/1.png")
    assert tree.held_out is None
    assert tree.remarks == (
        "ignored images outside the folders of the classes: 2, such as val/0.png",
        "val/: no images in folders of the classes",
    )


def test_both_encodings_of_an_accent_are_the_same_class(grow):
    tree = grow(f"train/{DECOMPOSED}/0.png", f"val/{COMPOSED}/1.png")
    assert tree.classes == (COMPOSED, "cat", "dog")
    assert tree.held_out.labels.tolist() == [0]


def test_a_copy_that_decomposes_accents_is_the_same_data_set(tmp_path):
    pictures = [f"{name}{number}.png" for name in ("z", COMPOSED, "e", "f") for number in range(3)]
    sources = []
    for copy, old, new in (("a", "", ""), ("b", COMPOSED, DECOMPOSED)):
        for name in ("caff", COMPOSED, "cafz"):
            for picture in pictures:
                path = tmp_path / copy / "train" / name.replace(old, new) / picture.replace(old, new)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"something")
        sources.append(open_source(f"folder:{tmp_path / copy}", tmp_path))
    first, second = sources
    assert first.classes == second.classes == ("caff", "cafz", COMPOSED)
    assert [path.name.replace(DECOMPOSED, COMPOSED) for path in second.train.paths] == [
        path.name for path in first.train.paths
    ]
    assert first.fingerprint() == second.fingerprint()


@pytest.mark.parametrize("part", ["train", "val"])
def test_two_folders_of_one_class_are_refused(part, grow):
    both = [f"{part}/{name}/0.png" for name in (COMPOSED, DECOMPOSED)]
    with pytest.raises(InputError, match=rf"{part} has two folders of the class '{COMPOSED}'.*\Z"):
        grow(f"train/{COMPOSED}/1.png", *both)


def test_names_that_differ_in_case_are_different_classes(grow):
    tree = grow("train/a/0.png", "train/A/0.png", "train/A/0.PNG")
    assert tree.classes == ("A", "a", "cat", "dog")
    assert tree.train.labels.tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(("link", "target"), [("ape", "."), ("ape", ".."), ("ape", "cat"), ("emu", "dog")])
def test_one_folder_is_not_read_as_two_classes(link, target, grow, tmp_path):
    grow()
    (tmp_path / "train" / link).symlink_to(target)
    with pytest.raises(
        InputError, match=rf"train/{link} and .* are the same folder|train/.* and .*train/{link} are"
    ):
        grow()


def test_the_folder_of_a_class_may_be_a_link(grow, tmp_path):
    grow("elsewhere/0.png")
    (tmp_path / "train" / "emu").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "loop").symlink_to("loop")
    assert grow().classes == ("cat", "dog", "emu")


@pytest.mark.parametrize("name", ["two\nlines", "\U0001f431", os.fsdecode(b"\xff\xfe"), "tab\t", " ", "a'b"])
def test_classes_may_have_any_name(name, grow, tmp_path):
    assert name in grow(f"train/{name}/0.png", f"val/{name}/{name}.png").classes
    source = open_source(f"folder:{tmp_path}", tmp_path)
    assert source.train.open(source.classes.index(name)).size == (8, 8)
    assert len(source.fingerprint()) == 16


def deep_grey(path, most):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.linspace(0, most, 64).astype(np.uint16).reshape(8, 8)).save(path)


def test_16_bit_images_with_12_bits_give_a_remark(grow, tmp_path):
    for name in ("ape", "bee"):
        for number in range(20):
            deep_grey(tmp_path / "train" / name / f"{number:02}.tif", 4095)
    (remark,) = grow().remarks
    assert f"16-bit images such as {tmp_path}/train/ape/00.tif have no value above 4095" in remark
    assert "MaxSampleValue" in remark
    for number in range(20):
        deep_grey(tmp_path / "train" / "bee" / f"{number:02}.tif", 60_000)
    assert grow().remarks == (), "not the first class alone is looked at"
