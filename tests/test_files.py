"""Files: written whole or not at all, read strictly, and refused in one line that names file and key."""

import errno
import os
import resource
import signal
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import Field, field_validator, model_validator

from nas_recalib.errors import InputError
from nas_recalib.files import StrictModel, parse_yaml, read_yaml, require_writable, write_atomically


class Inner(StrictModel):
    width: float = 1.0
    sizes: list[int] = Field(default_factory=list)

    @field_validator("width")
    @classmethod
    def above_zero(cls, width):
        if width <= 0:
            raise ValueError("It is not above 0")
        return width


class Outer(StrictModel):
    name: str
    count: int = 0
    inner: Inner = Inner()
    maybe: Inner | None = None

    @model_validator(mode="after")
    def named_if_counted(self):
        if self.count and not self.name:
            raise ValueError("count needs a name")
        return self


@pytest.mark.parametrize("content", ["naïve\r\ntext\n", b"\x00\xff bytes", ""])
def test_what_is_written_is_read(tmp_path, content):
    path = tmp_path / "file"
    for _ in range(2):
        write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_has_the_rights_that_open_would_give_it(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", "new")
    finally:
        restored = os.umask(before)
    assert restored == mask
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


@contextmanager
def file_size_limit(size):
    """The kernel refuses to let a file grow beyond `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("step", ["os.fsync", "Path.open", "Path.replace"])
def test_a_failure_at_any_step_leaves_what_was_there(tmp_path, monkeypatch, step, exists):
    path = tmp_path / "file"
    if exists:
        path.write_text("old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"nas_recalib.files.{step}", full)
    with pytest.raises(InputError, match="cannot be written: No space left") as caught:
        write_atomically(path, "new")
    monkeypatch.undo()
    assert str(caught.value).startswith(f"{path}: ")
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"] * exists


def test_a_disk_that_fills_up_while_writing_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(InputError, match="File too large"), file_size_limit(100):
        write_atomically(path, "x" * 10_000)
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"]


def test_a_file_is_whole_and_on_disk_before_it_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    replace, fsync, seen = Path.replace, os.fsync, []

    def watched_fsync(handle):
        seen.append(("synced", os.fstat(handle).st_size, path.read_text()))
        fsync(handle)

    def watched_replace(source, target):
        assert Path(source).parent == tmp_path
        seen.append(("replaced", Path(source).read_text(), path.read_text()))
        replace(source, target)

    monkeypatch.setattr("nas_recalib.files.os.fsync", watched_fsync)
    monkeypatch.setattr("nas_recalib.files.Path.replace", watched_replace)
    write_atomically(path, "newer")
    assert seen == [("synced", 5, "old"), ("replaced", "newer", "old")]
    assert path.read_text() == "newer"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("no/file", "No such file"), (".", "not a regular file"), ("plain/file", "Not a directory")],
)
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, name, reason):
    (tmp_path / "plain").write_text("")
    for attempt in (require_writable, lambda path: write_atomically(path, "new")):
        with pytest.raises(InputError, match=f"cannot be written: .*{reason}"):
            attempt(tmp_path / name)
    assert [item.name for item in tmp_path.iterdir()] == ["plain"]


def test_asking_whether_a_file_could_be_written_writes_nothing(tmp_path):
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        require_writable(tmp_path / name)
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [("old", "old")]


def test_a_good_file_is_read(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text("name: ä\ncount: 3\ninner: {width: 2, sizes: [1, 2]}\n", encoding="utf-8")
    assert read_yaml(path, Outer) == Outer(name="ä", count=3, inner=Inner(width=2, sizes=[1, 2]))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name: a\nnmae: b", "unknown key 'nmae'; allowed: name, count, inner, maybe"),
        ("name: a\ninner: {wdth: 1}", "unknown key 'inner.wdth'; allowed: width, sizes"),
        ("name: a\nmaybe: {wdth: 1}", "unknown key 'maybe.wdth'; allowed: width, sizes"),
        ("count: 1", "missing key 'name'"),
        ("name: a\ncount: many", "count: input should be a valid integer, found 'many'"),
        ("name: a\ncount: 1.0", "count: input should be a valid integer, found 1.0"),
        ("name: a\ncount: true", "count: input should be a valid integer, found True"),
        ("name: 3", "name: input should be a valid string, found 3"),
        ("name: [a]", "name: input should be a valid string, found a list"),
        ("name: {a: b}", "name: input should be a valid string, found keys and values"),
        ("name:", "name: input should be a valid string, found nothing"),
        ("name: a\ninner: {sizes: [1, x]}", "inner.sizes.1: input should be a valid integer, found 'x'"),
        ("name: a\nmaybe: {width: wide}", "maybe.width: input should be a valid number, found 'wide'"),
        ("name: a\ninner: {width: -1}", "inner.width: it is not above 0, found -1"),
        ("name: ''\ncount: 1", "count needs a name"),
        ("", "expected keys and values, found nothing"),
        ("- name", "expected keys and values, found a list"),
        ("name", "expected keys and values, found 'name'"),
    ],
)
def test_another_form_is_refused_in_one_line(text, problem):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, Outer, "space.yaml")
    assert str(caught.value) == f"space.yaml: {problem}"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: a\ncount: 1\nname: b", "'name' is given twice"),
        ("name: a\ninner: {width: 1, width: 1}", "'width' is given twice"),
        ("name: a\ninner:\n  sizes: [{1: a, 1: b}]", "1 is given twice"),
        ("name: a\ncount: [1", ":2: "),
        ("name: a\n\tcount: 1", ":2: "),
        ("name: !!python/name:os.system", "python/name:os.system"),
        ("name: a\x00", "not YAML"),
        ("? [a]\n: b", "unhashable"),
        ("name: 2024-13-45", "space.yaml"),
        ("count: 0x_", "space.yaml"),
    ],
)
def test_what_is_not_safe_and_sound_yaml_is_refused(text, named):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, Outer, "space.yaml")
    message = str(caught.value)
    assert message.startswith("space.yaml:")
    assert named in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, reason in (
        ("none", "No such file or directory"),
        ("", "Is a directory"),
        ("binary", "not text"),
    ):
        with pytest.raises(InputError) as caught:
            read_yaml(tmp_path / name, Outer)
        assert str(caught.value) == f"{tmp_path / name}: cannot be read: {reason}"
