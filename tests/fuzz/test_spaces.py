"""Files of spaces and fidelities, whatever is in them and whatever they are."""

import os
from pathlib import Path

import pytest
import yaml
from broken import TRAP, mangled, mutated, sound_or_refused, structures
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.errors import InputError
from nas_recalib.files import parse_yaml, read_yaml
from nas_recalib.proxy.fidelity import _FidelityFile
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import SpaceFile

SPACE = {
    "name": "tiny",
    "backbone": "resnet20",
    "input_size": 32,
    "num_classes": 10,
    "granularity": "network",
    "convolution": ["vanilla", "psconv(pattern=1-2)"],
    "recalibration": ["none", "ab(groups=4)"],
    "overrides": {"layer1": {"recalibration": ["none", "ab(groups=4)"]}},
    "proxy": {"width": 0.5, "resolution": 16},
}
SPACE["overrides"] = {f"layer{stage}": SPACE["overrides"]["layer1"] for stage in (1, 2, 3)}
TEXT = yaml.safe_dump(SPACE, sort_keys=False)
FIDELITY = {"images": 40, "validation": 20, "resolution": 8, "width": 0.5, "epochs": 1}
WORDS = (
    b"!!python/object/apply:os.mkdir ['it ran']",
    b"!!python/object/new:os.mkdir {args: ['it ran']}",
    b"!!python/name:os.system",
    b"!!int '_'",
    b"!!timestamp x",
    b"!!bool q",
    b"!!float ''",
    b"!!binary =",
    b"!!set {a}",
    b"&a [*a]",
    b"<<: {a: 1}",
    b"=",
    b"? ",
    b"[[[[[[[[",
    b"{a: {a: {",
    b"0x" + b"F" * 4000,
    b"1:1:1:1",
    b".nan",
    b"-.inf",
    b"2024-99-99",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc2\x85",
    b"\t",
    b"\r\n",
    b"---\n",
    b"%YAML 2.0\n",
)


@pytest.fixture(autouse=True, scope="module")
def here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("spaces"))
        yield


def refused_or_read(read):
    """An InputError of one line about the file, or a value."""
    try:
        value = read()
    except InputError as error:
        assert str(error).startswith("t.yaml")
        value = None
    assert not os.path.exists(TRAP)
    return value


@examples(250)
@given(mutated(SPACE))
def test_a_space_with_something_else_in_it(content):
    with open("t.yaml", "w") as file:
        yaml.safe_dump(content, file)
    space = refused_or_read(lambda: SearchSpace.load("t.yaml"))
    if space is not None:
        assert SearchSpace.parse(space.describe(), "again") == space


@examples(500)
@given(mangled(TEXT.encode(), words=WORDS))
def test_a_space_whose_text_is_torn(data):
    with open("t.yaml", "wb") as file:
        file.write(data)
    refused_or_read(lambda: SearchSpace.load("t.yaml"))


@examples(250)
@given(st.lists(st.sampled_from(WORDS) | st.binary(max_size=20), max_size=6))
def test_a_space_of_anything(pieces):
    with open("t.yaml", "wb") as file:
        file.write(b" ".join(pieces))
    assert refused_or_read(lambda: SearchSpace.load("t.yaml")) is None


@examples(250)
@given(mutated(FIDELITY) | structures)
def test_a_fidelity_of_anything(content):
    text = yaml.safe_dump(content)
    refused_or_read(lambda: parse_yaml(text, _FidelityFile, "t.yaml"))


@examples(40)
@given(mutated(SPACE) | mutated(FIDELITY))
def test_commands_take_no_harm(content):
    with open("t.yaml", "w") as file:
        yaml.safe_dump(content, file)
    sound_or_refused(["cost", "--space", "t.yaml"])
    sound_or_refused(["cost", "vanilla", "--space", "t.yaml"])


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)
BOMBS = {
    "laughs": LAUGHS,
    "laughs in a list": f"{TEXT}extra:\n{LAUGHS}".replace("\n", "\n  "),
    "merged laughs": MERGED,
    "a list in itself": f"{TEXT}extra: &a [*a]",
    "a space in itself": TEXT.replace("overrides:", "overrides: &o {layer1: *o}\nrest:"),
    "deep lists": f"{TEXT}extra: {'[' * 5000}",
    "deep keys": f"{TEXT}extra: {'{a: ' * 5000}",
    "deep questions": "? " * 5000,
    "many keys": "".join(f"k{number}: 1\n" for number in range(8_000)),
    "a key again and again": "name: a\n" * 8_000,
    "a huge number": f"{TEXT.replace('input_size: 32', 'input_size: 0x' + 'F' * 5000)}",
    "a huge negative number": f"{TEXT.replace('input_size: 32', 'input_size: -0x' + 'F' * 5000)}",
    "a long name": f"{TEXT.replace('resnet20', 'x' * 500_000)}",
    "a long file": "name: a\n" * 7_000_000,
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_do_not_go_off(case):
    with open("t.yaml", "w") as file:
        file.write(BOMBS[case])
    for arguments in (["cost", "--space", "t.yaml"], ["cost", "t.yaml"]):
        assert not sound_or_refused(arguments)


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "dangling", "zero", "nul", "long", "lone"])
def test_what_is_no_file(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = {"nul": "a\0b.yaml", "long": f"{'a' * 5000}.yaml", "lone": "\udc80\n.yaml"}.get(kind, "t.yaml")
    if kind == "pipe":
        os.mkfifo(name)
    elif kind == "folder":
        os.mkdir(name)
    elif kind in ("loop", "dangling", "zero"):
        os.symlink({"loop": name, "dangling": "nothing", "zero": "/dev/zero"}[kind], name)
    for arguments in (
        ["cost", "--space", name],
        ["cost", name],
        ["cost", "vanilla", "--latency-table", name],
        ["train", name, "--data", "digits"],
        ["search", "--space", "resnet20", "--data", "digits", "--study", "s", "--fidelity", name],
        ["search", "--space", name],
        ["correlate", "--space", name],
        ["latency", "--space", name],
    ):
        assert not sound_or_refused(arguments)


def test_a_file_of_another_encoding_is_no_text():
    for encoding in ("utf-16", "utf-32", "latin-1"):
        with open("t.yaml", "wb") as file:
            file.write(f"# é\n{TEXT}".encode(encoding))
        with pytest.raises(InputError, match="cannot be read: not UTF-8 text"):
            read_yaml(Path("t.yaml"), SpaceFile)
