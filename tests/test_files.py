"""Files: atomic writing, strict reading, and errors in one line that names file and key."""

import errno
import math
import os
import resource
import signal
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field, field_validator, model_validator

from nas_recalib.errors import InputError
from nas_recalib.files import (
    StrictModel,
    dump_yaml,
    parse_yaml,
    read_yaml,
    require_writable,
    write_atomically,
)


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


class Anything(StrictModel):
    texts: list[Any] = Field(default_factory=list)
    numbers: list[Any] = Field(default_factory=list)
    others: list[Any] = Field(default_factory=list)
    keys: dict[str, Any] = Field(default_factory=dict)


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
        ("name: 3", "name: input should be a valid string, found 3; put it in quotes if it is meant as text"),
        (
            "name: 08",
            "name: input should be a valid string, found 8; put it in quotes if it is meant as text",
        ),
        ("name: a\ninner: [1]", "inner: expected keys and values, found a list"),
        ("name: a\ncount: 1_000", "count: input should be a valid integer, found '1_000'"),
        ("name: a\ncount: 1:30", "count: input should be a valid integer, found '1:30'"),
        ("name: a\ncount: 1e3", "count: input should be a valid integer, found 1000.0"),
        ("name: a\ncount: yes", "count: input should be a valid integer, found 'yes'"),
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
        ("name: a\ncount: 1\nname: b", ":3: the key 'name' is given twice"),
        ("name: a\ninner: {width: 1, width: 1}", "'width' is given twice"),
        ("name: a\ninner:\n  sizes: [{1: a, 1: b}]", "1 is given twice"),
        ("name: a\ncount: [1", ":2: "),
        ("name: a\n\tcount: 1", ":2: YAML allows no tabs for indentation, only spaces"),
        ("name: !!python/name:os.system", "python/name:os.system"),
        ("name: a\ncount: \x00", r":2: YAML does not allow the character '\x00'"),
        ("name: a\ninner:\n  \x07", r":3: YAML does not allow the character '\x07'"),
        ("? [a]\n: b", "unhashable"),
        ("name: a\ncount: 0x_", "found '0x_'"),
        ("name: a\ncount: !!int 1_0", ":2: '1_0' is not a whole number"),
        ("name: a\ncount: !!bool yes", ":2: 'yes' is not true or false"),
        ("name: a\ninner: {width: !!float wide}", ":2: 'wide' is not a number"),
        (f"name: a\ncount: {'9' * 5000}", ":2: a whole number has more than 64 bits"),
        ("name: a\ncount: 9223372036854775808", ":2: a whole number has more than 64 bits"),
        ("name: a\n---\nname: b", ":2: but found another document"),
    ],
)
def test_what_is_not_safe_and_sound_yaml_is_refused(text, named):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, Outer, "space.yaml")
    message = str(caught.value)
    assert message.startswith("space.yaml:")
    assert named in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("032", 32),
        ("010", 10),
        ("08", 8),
        ("-007", -7),
        ("+5", 5),
        ("0x20", 32),
        ("0o40", 32),
        ("!!int '032'", 32),
    ],
)
def test_whole_numbers_are_those_of_yaml_1_2(text, count):
    assert parse_yaml(f"name: a\ncount: {text}", Outer, "space.yaml").count == count


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("25e-2", 0.25),
        (".5", 0.5),
        ("1e3", 1000),
        ("2.", 2),
        ("+1.5E+1", 15),
        (".inf", math.inf),
        ("032", 32),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text, width):
    assert parse_yaml(f"name: a\ninner: {{width: {text}}}", Outer, "space.yaml").inner.width == width


@pytest.mark.parametrize(
    "text", ["no", "on", "Off", "y", "1_000", "1:30", "2024-01-01", "2024-13-45", "=", "0o8"]
)
def test_what_only_yaml_1_1_reads_as_something_else_is_text(text):
    assert parse_yaml(f"name: {text}", Outer, "space.yaml").name == text


TEXTS = [
    "no",
    "y",
    "true",
    "null",
    "~",
    "08",
    "032",
    "0o17",
    "1e3",
    "1_000",
    "1:30",
    "2024-01-01",
    ".5",
    ".inf",
]
TEXTS += ["", " a", "a: b", "a # b", "- a", "é\n", "scconv(r=2, pooling=max)", "=", "<<", "!a", "&a", "0x1F"]


def test_what_is_written_is_read_alike_under_both_versions_of_yaml():
    numbers = [0, -7, 2**53, 0.25, 1e-05, 1e16, -1.5e300, math.inf]
    content = {
        "texts": TEXTS,
        "numbers": numbers,
        "others": [True, False, None],
        "keys": dict.fromkeys(TEXTS, 1),
    }
    text = dump_yaml(content)
    assert yaml.safe_load(text) == content
    assert parse_yaml(text, Anything, "a.yaml").model_dump() == content


def test_files_of_pyyaml_are_read_as_they_were():
    content = {
        "texts": ["no", "032", "1:30", "a"],
        "numbers": [1, -7, 1e-05, 2.5e20],
        "others": [None],
        "keys": {},
    }
    assert parse_yaml(yaml.safe_dump(content), Anything, "a.yaml").model_dump() == content


def test_what_yaml_has_no_form_for_is_refused():
    with pytest.raises(InputError, match=r"^\(1\+2j\) cannot be written to a YAML file"):
        dump_yaml({"a": 1 + 2j})


@pytest.mark.parametrize(
    ("text", "cut", "whole"),
    [
        (
            "name: a\nlist: [vanilla, scconv(r=2, pooling=max), psconv]",
            "scconv(r=2",
            "scconv(r=2, pooling=max)",
        ),
        ("name: a\nkeys: {x: ab+f(r=2, s=1)+c, y: ab+f(r=2, s=1)+c}", "ab+f(r=2", "ab+f(r=2, s=1)+c"),
        ("name: a\nkeys: {x: [f(r=2, s=1)]}", "f(r=2", "f(r=2, s=1)"),
    ],
)
def test_a_choice_that_a_bracket_cuts_at_its_comma_is_to_be_quoted(text, cut, whole):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, Outer, "space.yaml")
    problem = f'{cut!r} ends at a comma: put the whole choice in quotes, as in "{whole}"'
    assert str(caught.value) == f"space.yaml:2: {problem}"


@pytest.mark.parametrize("text", ["[f(x, y), 'f(a=1, b=2)']", "\n- f(a=1, b=2)"])
def test_other_commas_are_left_alone(text):
    assert len(parse_yaml(f"texts: {text}", Anything, "a.yaml").texts) == text.count("f(") + text.count("[")


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfname: a\ncount: 3", b"name: a\r\ncount: 3\r\n", b"name: a\rcount: 3"]
)
def test_a_file_of_another_editor_is_read(tmp_path, data):
    (tmp_path / "a.yaml").write_bytes(data)
    assert read_yaml(tmp_path / "a.yaml", Outer) == Outer(name="a", count=3)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, reason in (
        ("none", "No such file or directory"),
        ("", "Is a directory"),
        ("binary", "not UTF-8 text"),
    ):
        with pytest.raises(InputError) as caught:
            read_yaml(tmp_path / name, Outer)
        assert str(caught.value) == f"{tmp_path / name}: cannot be read: {reason}"
