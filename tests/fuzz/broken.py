"""What may be wrong with a file, a study or a word: strategies, and how a command must take it."""

import contextlib
import copy
import io
import math
import os
import time
from pathlib import Path

from hypothesis import strategies as st

from nas_recalib.cli import run

TRAP = "it ran"  # a file that only code would make
PATIENCE = 20  # seconds

TEXTS = (
    "",
    " ",
    "x" * 3000,
    "[/red]",
    "[link=file:///etc/passwd]here[/link]",
    "<script>alert(1)</script>",
    "../../up",
    "/etc/passwd",
    "\x1b[31m",
    "\x00",
    "\ud800",
    "a\nb",
    "%s{0}{x!r}",
    "٣",
    "NaN",
    "null",
    "psconv(",
    "vanilla",
    "__import__('os').mkdir('it ran')",
    "os",
)
WORDS_OF_JSON = (
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"null",
    b"{",
    b"[",
    b'"',
    b",",
    b"\\ud800",
    b"9" * 5000,
)
NUMBERS = (-1, 0, 1, 2, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e-320, 1e308)
UNREAL = (math.nan, math.inf, -math.inf)
scalars = st.sampled_from((*TEXTS, *NUMBERS, *UNREAL, None, True, False))
structures = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=3),
    max_leaves=6,
)


def places(content, path=()):
    """The paths of everything inside, each as keys and indices."""
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def held(content, path):
    for key in path:
        content = content[key]
    return content


@st.composite
def mutated(draw, content, at_most=2):
    """A copy in which something is replaced, taken away, doubled or added."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, at_most))):
        paths = list(places(content))
        if not paths:
            return content
        *above, key = draw(st.sampled_from(paths))
        owner = held(content, above)
        way = draw(st.sampled_from(("replace", "replace", "replace", "drop", "add", "double")))
        if way == "replace":
            owner[key] = draw(structures)
        elif way == "drop":
            del owner[key]
        elif isinstance(owner, dict):
            name = draw(st.sampled_from(TEXTS))
            owner[name] = copy.deepcopy(owner[key]) if way == "double" else draw(structures)
        else:
            owner.insert(key, copy.deepcopy(owner[key]) if way == "double" else draw(structures))
    return content


@st.composite
def mangled(draw, data, span=64, words=(b"",)):
    """Bytes cut off, flipped, overwritten or with something put in between."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        way = draw(st.sampled_from(("cut", "flip", "overwrite", "insert", "word", "lose")))
        if way == "cut":
            del data[at:]
        elif way == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif way == "overwrite":
            some = draw(st.binary(min_size=1, max_size=span))
            data[at : at + len(some)] = some
        elif way == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=span))
        elif way == "word":
            data[at:at] = draw(st.sampled_from(words))
        else:
            del data[at : at + draw(st.integers(1, span))]
    return bytes(data)


def told(arguments):
    """Exit status, standard output and standard error of a command, which must end soon and run nothing."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    begun = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(list(map(str, arguments)))
    assert time.monotonic() - begun < PATIENCE, arguments
    assert not Path(TRAP).exists(), arguments
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8"))
    return status, *texts


def sound_or_refused(arguments, changes=()):
    """Runs a command that must do its work, or say in one printable line what is wrong and leave no file.

    Args:
        arguments: Of the command.
        changes: Names that it may leave in the folder if it does its work.

    Returns:
        Whether it did its work.
    """
    before = {name: os.stat(name, follow_symlinks=False).st_size for name in os.listdir()}
    status, out, err = told(arguments)
    lines = err.splitlines()
    assert status in (0, 2), (status, err)
    assert all(line.isprintable() for line in (*lines, *out.splitlines())), (out, err)
    after = {name: os.stat(name, follow_symlinks=False).st_size for name in os.listdir()}
    if status == 0:
        assert {name for name in after if after[name] != before.get(name)} <= set(changes)
        return True
    assert after == before
    assert out == ""
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert 10 < len(lines[0]) < 2500, "neither silent nor endless"
    return False
