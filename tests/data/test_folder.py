"""Trees of folders: what is an image of which class, and what is left out is said."""

import os

import numpy as np
import pytest
from PIL import Image

from nas_recalib.data.folder import FileImages, read_folder
from nas_recalib.errors import InputError

COLOURS = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)


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
