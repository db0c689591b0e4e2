"""Architecture files and the grammar of choices."""

import os

import pytest
import yaml
from broken import TEXTS, TRAP, mangled, mutated, sound_or_refused, structures
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.operators import BlockChoice, catalog
from nas_recalib.operators.catalog import parse_part

WHOLE = Architecture.of("resnet20", "psconv(pattern=1-2)+ab")
ORIGIN = {"study": "s", "trial": 3, "proxy": {"epochs": 2, "width": 0.5}, "plugins": ["my_ops"]}


@pytest.fixture(autouse=True, scope="module")
def here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("architectures"))
        yield


@pytest.fixture(scope="module")
def text(here):
    WHOLE.save("whole.yaml", ORIGIN)
    with open("whole.yaml") as file:
        return file.read()


def load():
    """An InputError about the file, or the architecture that was saved or one that can be saved again."""
    try:
        architecture = Architecture.load("t.yaml")
    except InputError as error:
        assert str(error).startswith("t.yaml")
        architecture = None
    assert not os.path.exists(TRAP)
    if architecture is not None:
        architecture.save("again.yaml")
        assert Architecture.load("again.yaml") == architecture


@examples(200)
@given(data=st.data())
def test_a_file_with_something_else_in_it(text, data):
    with open("t.yaml", "w") as file:
        yaml.safe_dump(data.draw(mutated(yaml.safe_load(text))), file, sort_keys=False)
    load()


@examples(300)
@given(data=st.data())
def test_a_file_that_is_torn(text, data):
    with open("t.yaml", "wb") as file:
        file.write(
            data.draw(mangled(text.encode(), words=[part.encode("utf-8", "surrogatepass") for part in TEXTS]))
        )
    load()


@examples(15)
@given(data=st.data())
def test_commands_take_no_harm(text, data):
    with open("t.yaml", "w") as file:
        yaml.safe_dump(data.draw(mutated(yaml.safe_load(text))), file, sort_keys=False)
    sound_or_refused(["cost", "t.yaml"])
    sound_or_refused(["cost", "t.yaml", "--memory", "1GB", "--space", "resnet20"])


def test_an_origin_is_no_bomb(text):
    """It is told of where an operator is unknown."""
    bomb = ["x"] * 9
    for _ in range(9):
        bomb = [bomb] * 9
    content = {**yaml.safe_load(text), "origin": {"plugins": bomb}}
    content["blocks"]["layer1.0"] = "unheard-of"
    with open("t.yaml", "w") as file:
        yaml.safe_dump(content, file)
    assert not sound_or_refused(["cost", "t.yaml"])


NAMES = (*catalog.names("convolution"), *catalog.names("recalibration"), "nothing", "PSCONV", "ps conv", "")
KEYS = ("r", "pattern", "vary", "scales", "strategy", "hidden", "share", "groups", "size", "design", "x")
NUMBERS = ("0", "1", "2", "4", "16", "-1", "1-2", "1-2-1-4", "0-1", "1-", "-", "1.5", "0x10", "1_0", "1e9")
NUMBERS += (
    "\u0663",
    "\u00b2",
    "\uff11",
    "999999999",
    "9" * 30,
    "999999999-999999998-999999997",
    "-".join("7" * 300),
)
WORDS = ("yes", "no", "both", "avg", "max", "E", "O", "mlp", "none", "regional", "nearest", "None", "True")
WORDS += ("os.system", "(", ")", "=", "\x00", "\ud800", "x" * 3000, "-".join(map(str, range(1, 200))))
VALUES = NUMBERS + WORDS
arguments = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(("=", " = ", "", "==", ":")), st.sampled_from(VALUES)),
    max_size=3,
)
parts = st.builds(
    lambda name, given, frame: frame.format(name, ", ".join("".join(one) for one in given)),
    st.sampled_from(NAMES),
    arguments,
    st.sampled_from(
        ("{0}({1})", "{0}({1})", "{0}({1})", "{0}", "{0}(({1}))", "{0}({1}", "{0}{1})", " {0} ({1}) ")
    ),
)
choices = (
    st.lists(parts, min_size=1, max_size=3).map("+".join) | st.sampled_from(TEXTS) | st.text(max_size=30)
)


def parsed(parse, written):
    """What is read, which is written and read again as the same; or a ValueError that says why not."""
    try:
        found = parse(written)
    except ValueError as error:
        assert str(error)
        return
    assert parse(str(found)) == found


@examples(1500)
@given(choices)
def test_a_choice_is_refused_or_canonical(written):
    parsed(BlockChoice.parse, written)


@examples(500)
@given(parts, st.sampled_from(("convolution", "recalibration")))
def test_a_part_is_refused_or_canonical(written, kind):
    parsed(lambda one: parse_part(one, kind), written)


@examples(300)
@given(
    mangled(str(WHOLE).encode(), words=(b"=", b"@", b"/", b" ", b"9" * 5000, "٣".encode(), b"layer1.0=ab"))
)
def test_a_written_architecture_is_refused_or_canonical(data):
    parsed(Architecture.parse, data.decode(errors="replace"))


@examples(30)
@given(choices)
def test_a_choice_on_the_command_line(written):
    sound_or_refused(["cost", "--space", "resnet20", "--", written])


@pytest.mark.parametrize(
    "written", ["psconv(" * 100_000, "x" * 10**6, "vanilla+" * 10**5, "psconv(" + "a=1," * 10**5]
)
def test_endless_choices_end(written):
    assert not sound_or_refused(["cost", "--space", "resnet20", written])


@examples(100)
@given(structures)
def test_what_is_no_text_is_refused(content):
    if not isinstance(content, str):
        with pytest.raises((ValueError, TypeError)):
            Architecture.of("resnet20", {"layer1.0": content})
