"""Data sets of image files with one folder per class, such as ImageNet and users' own images."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas_recalib.data.image_file import SUFFIXES, UNREAD_SUFFIXES, is_nearly_black, open_rgb
from nas_recalib.errors import InputError

_HELD_OUT = {
    "imagenet": ("val", "valid", "validation", "test"),
    "folder": ("test", "val", "valid", "validation"),
}
_HIDDEN = frozenset(  # folders of operating systems, besides those whose names start with a full stop
    ("@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "lost+found", "$recycle.bin")
)
_Ignored = defaultdict[str, list[str]]  # paths of ignored files and folders by reason
_SAMPLE = 8  # images that are opened to look for dark 16-bit ones


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files.

    Attributes:
        paths: Path of each image.
        labels: Label of each image, (N,).
    """

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
            name = _composed(f"{path.parent.name}/{path.name}")
            yield f"{label}/{name}:{size}\n".encode(errors="surrogateescape")

    def stamp(self, index: int) -> bytes:
        """Return bytes that change on this machine whenever the file does."""
        path = os.fsencode(self.paths[index])
        try:
            status = self.paths[index].stat()
        except OSError:
            return path
        return path + f"\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode()


class Tree(NamedTuple):
    """Image files of a data set.

    Attributes:
        classes: Names of the classes in the order of the labels, with accents composed (NFC).
        train: Training images.
        held_out: Images of the held-out part, if there are any.
        remarks: Sentences for the user on ignored files and on which part is held out.
    """

    classes: tuple[str, ...]
    train: FileImages
    held_out: FileImages | None
    remarks: tuple[str, ...]


def read_folder(kind: str, root: Path) -> Tree:
    """Find the image files of a data set.

    Names are compared, sorted and hashed with composed accents, so that a copy from a file system that
    decomposes them is the same data set.

    Args:
        kind: "imagenet" or "folder", which differ in the order in which names of the held-out part are tried.
        root: Folder that contains train/ and possibly a held-out part.

    Raises:
        InputError: If the folder has no such structure.
        OSError: If a folder cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"data: {root} is not a folder")
    part = _find_part(root, "train")
    if part is None:
        raise InputError(f"data: {root} has no folder train/ with one folder per class")
    ignored: _Ignored = defaultdict(list)
    folders = _class_folders(part, ignored)
    classes = tuple(folders)
    train = _read_part(folders, classes, ignored)
    empty = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    ignored_files = "".join(f"; {remark}" for remark in _ignored_remarks(ignored, root))
    if not len(train.labels):
        raise InputError(
            f"data: {part} has no images; expected train/CLASS/*.jpg and the like{ignored_files}"
        )
    if empty:
        raise InputError(f"data: the class {classes[empty[0]]!r} of {part} has no images{ignored_files}")
    if len(classes) < 2:
        raise InputError(f"data: {part} has one class, {classes[0]!r}; at least 2 are needed")
    held_out, remark = _held_out(root, _HELD_OUT[kind], classes, ignored)
    remarks = (*_ignored_remarks(ignored, root), remark, _depth_remark(train.paths))
    return Tree(classes, train, held_out, tuple(filter(None, remarks)))


def _ignored_remarks(ignored: _Ignored, root: Path) -> list[str]:
    """Return one sentence per reason why files were ignored."""
    return [
        f"ignored {reason}: {len(paths)}, such as {os.path.relpath(min(paths), root)}"
        for reason, paths in sorted(ignored.items())
    ]


def _find_part(root: Path, name: str) -> Path | None:
    """Return the folder of that name, or the first whose name differs from it only in case."""
    named = [path for path in root.iterdir() if path.name.lower() == name and path.is_dir()]
    return min(named, key=lambda path: (path.name != name, path.name), default=None)


def _held_out(
    root: Path, names: Sequence[str], classes: Sequence[str], ignored: _Ignored
) -> tuple[FileImages | None, str]:
    """Return the first part with labelled images (ILSVRC's test/ has none), and a remark that names it."""
    parts = [part for part in (_find_part(root, name) for name in names) if part]
    for part in parts:
        folders = _class_folders(part, ignored)
        unknown = sorted(set(folders) - set(classes))
        if unknown:
            raise InputError(f"data: {part} has the class {unknown[0]!r}, which train/ lacks")
        images = _read_part(folders, classes, ignored)
        if len(images.labels):
            others = " and ".join(f"{other.name}/" for other in parts if other != part)
            return images, f"the held-out part is {part.name}/" + (f", not {others}" if others else "")
    if not parts:
        return None, ""
    return None, f"{' and '.join(f'{part.name}/' for part in parts)}: no images in folders of the classes"


def _class_folders(part: Path, ignored: _Ignored) -> dict[str, Path]:
    """Return the folders of the classes by their names, sorted.

    Raises:
        InputError: If two folders are the same class, or one folder would be two classes.
    """
    folders: dict[str, Path] = {}
    real = Path(os.path.realpath(part))
    aliases = {str(path): path for path in (real, *real.parents)}
    for path in sorted(map(Path, _scan(part, ignored))):
        name = _composed(path.name)
        if name in folders:
            raise InputError(
                f"data: {part} has two folders of the class {name!r}, whose names differ in the encoding of "
                "accents; merge them"
            )
        other = aliases.setdefault(os.path.realpath(path), path)
        if other != path:
            raise InputError(
                f"data: {path} and {other} are the same folder; its images would have two classes"
            )
        folders[name] = path
    return dict(sorted(folders.items()))


def _scan(part: Path, ignored: _Ignored) -> Iterator[str]:
    """Yield the folders in a part except hidden ones; images beside them have no class and are ignored."""
    with os.scandir(part) as entries:
        for entry in entries:
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # noqa: PTH112 - fast
                if is_hidden(entry.name):
                    ignored["hidden files and folders"].append(entry.path)
                else:
                    yield entry.path
            elif _suffix(entry.name) in SUFFIXES and not is_hidden(entry.name):
                ignored["images outside the folders of the classes"].append(entry.path)


def _read_part(folders: Mapping[str, Path], classes: Sequence[str], ignored: _Ignored) -> FileImages:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = _image_files(folders[name], ignored) if name in folders else ()
        order = sorted(files, key=lambda path: (_composed(path).split(os.sep), path))  # noqa: PTH206 - fast
        paths += map(Path, order)
        labels += [label] * (len(paths) - len(labels))
    return FileImages(tuple(paths), np.array(labels, dtype=np.int64))


def _image_files(folder: str | Path, ignored: _Ignored) -> Iterator[str]:
    """Yield the image files of a folder and its subfolders, judged by their names alone."""
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix, link = _suffix(entry.name), entry.is_symlink()
            if entry.is_dir(follow_symlinks=False):
                if is_hidden(entry.name):
                    ignored["hidden files and folders"].append(entry.path)
                else:
                    yield from _image_files(entry.path, ignored)
            elif link and os.path.isdir(entry.path):  # noqa: PTH112 - may lead back here
                ignored["links to folders inside the classes"].append(entry.path)
            elif suffix not in SUFFIXES and suffix not in UNREAD_SUFFIXES:
                continue
            elif is_hidden(entry.name):
                ignored["hidden files and folders"].append(entry.path)
            elif suffix in UNREAD_SUFFIXES:
                ignored[f"{suffix} files, which are not read"].append(entry.path)
            elif os.path.isfile(entry.path) if link else entry.is_file():  # noqa: PTH113
                yield entry.path
            else:
                ignored["broken links and special files"].append(entry.path)


def _depth_remark(paths: Sequence[Path]) -> str:
    """Return a remark if a sample of the images has 16 bits and is nearly black."""
    deep = [path for path in paths if path.suffix.lower() in (".tif", ".tiff", ".png")]
    spread = np.linspace(0, len(deep) - 1, min(_SAMPLE, len(deep))).astype(int)
    found = [(dark, deep[i]) for i in spread if (dark := is_nearly_black(deep[i])) is not None]
    if not found or not all(dark for dark, _ in found):
        return ""
    return (
        f"16-bit images such as {found[0][1]} have no value above 4095 and will be nearly black; if they "
        "have 12 bits, set the TIFF tag MaxSampleValue to 4095 or convert them to 8 bits"
    )


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of that name belongs to a program or system, not to a data set."""
    return name.startswith(".") or name.lower() in _HIDDEN


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - fast


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)
