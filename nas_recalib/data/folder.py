"""Trees of image files, one folder a class, as ImageNet and most people's own images lie."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas_recalib.data.image_file import SUFFIXES, open_rgb
from nas_recalib.errors import InputError

_HELD_OUT = {"imagenet": ("val", "test"), "folder": ("test", "val")}


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]

    def open(self, index: int) -> Image.Image:
        return open_rgb(self.paths[index])

    def describe(self) -> Iterable[bytes]:
        for path, label in zip(self.paths, self.labels, strict=True):
            try:
                size = path.stat().st_size
            except OSError as error:
                raise InputError(f"{path}: cannot be read: {error.strerror}") from error
            yield f"{label}/{path.parent.name}/{path.name}:{size}\n".encode(errors="surrogateescape")

    def stamp(self, index: int) -> bytes:
        """What changes on this machine whenever the file does."""
        path = os.fsencode(self.paths[index])
        try:
            status = self.paths[index].stat()
        except OSError:
            return path
        return path + f"\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode()


def read_folder(kind: str, root: Path) -> tuple[tuple[str, ...], FileImages, FileImages | None]:
    """Finds the images of a tree; none is opened.

    Args:
        kind: imagenet or folder: whether val/ or test/ is looked for first.
        root: Of train/, val/ and test/.

    Returns:
        The classes, the training images, and those held out, if any are.

    Raises:
        InputError: If the tree has another form.
        OSError: If it cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"data: {root} is not a folder")
    if not (root / "train").is_dir():
        raise InputError(f"data: {root} has no folder train/ with one folder a class in it")
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    train = _read_tree(root / "train", classes)
    empty = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if not len(train.labels):
        raise InputError(f"data: {root / 'train'} has no images; expected train/CLASS/*.jpg and the like")
    if empty:
        raise InputError(f"data: the class {classes[empty[0]]!r} of {root / 'train'} has no images")
    if len(classes) < 2:
        raise InputError(f"data: {root / 'train'} has one class, {classes[0]!r}; at least 2 are needed")
    return tuple(classes), train, _held_out(root, _HELD_OUT[kind], classes)


def _held_out(root: Path, parts: tuple[str, ...], classes: list[str]) -> FileImages | None:
    """The first of the parts that has labelled images (ILSVRC's test/ has none)."""
    for folder in (root / part for part in parts if (root / part).is_dir()):
        strange = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes))
        if strange:
            raise InputError(f"data: {folder} has the class {strange[0]!r}, which train/ has not")
        images = _read_tree(folder, classes)
        if len(images.labels):
            return images
    return None


def _read_tree(root: Path, classes: list[str]) -> FileImages:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = map(Path, _image_files(root / name)) if (root / name).is_dir() else []
        paths += sorted(files, key=lambda path: path.parts)  # far quicker than paths compare themselves
        labels += [label] * (len(paths) - len(labels))
    return FileImages(tuple(paths), np.array(labels, dtype=np.int64))


def _image_files(folder: str | Path) -> Iterator[str]:
    """The image files of a folder and the folders in it; no file is asked for more than its name."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _image_files(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():  # noqa: PTH122 - fast
                yield entry.path
