"""Words of the command line: quantities, names, data sets, storages, numbers."""

import os
import re
from pathlib import Path

import pytest
from broken import TEXTS, sound_or_refused
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from nas_recalib.costs.budget import parse_latency, parse_memory, parse_quantity
from nas_recalib.data import open_source
from nas_recalib.errors import InputError
from nas_recalib.study.location import StudyLocation

QUANTITY = "0123456789.eE+-_ kKmMgGtTbBiIsSuUnN\u212a\u017f٣²\n\x00,"
words = st.sampled_from(TEXTS) | st.text(max_size=20) | st.text("ab./\\:@?#%&=~ {}[]\0\n", max_size=30)


@pytest.fixture(autouse=True, scope="module")
def here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("words"))
        os.mkdir("folder")
        yield


def refused_or(read):
    try:
        return read()
    except InputError as error:
        assert str(error)
        return None


@examples(1500)
@given(st.text(QUANTITY, max_size=12) | words, st.sampled_from((parse_quantity, parse_latency, parse_memory)))
def test_a_quantity_is_refused_or_a_number(written, parse):
    value = refused_or(lambda: parse(written, "budget"))
    assert value is None or (type(value) is int and 1 <= value < 2**62)


@examples(20)
@given(st.text(QUANTITY, min_size=1, max_size=12) | st.sampled_from(("9" * 10**5, "0." + "0" * 10**5 + "1")))
def test_a_quantity_on_the_command_line(written):
    for option in ("--budget", "--params", "--memory"):
        sound_or_refused(["cost", "vanilla", "--space", "resnet20", f"{option}={written}"])


@examples(500)
@given(words)
def test_a_study_s_name_is_that_of_a_folder_below(written):

    place = refused_or(lambda: StudyLocation.of(written, Path("runs")))
    if place is not None:
        assert place.folder.resolve().parent == Path("runs").resolve()
        assert re.fullmatch("[A-Za-z0-9._-]+", written)


@examples(40)
@given(words)
def test_a_study_that_is_not_there(written):
    for command in ("show", "export"):
        assert not sound_or_refused([command, "--", written])


KINDS = (
    "folder",
    "imagenet",
    "imagenet16",
    "imagenet16-120",
    "imagenet7",
    "imagenet8-0",
    "imagenet64-9999",
    "cifar10",
    "",
)


@examples(300)
@given(st.builds("{}:{}".format, st.sampled_from(KINDS), words | st.just("folder")) | words)
def test_a_data_set_is_refused_or_opened(written):

    if written not in ("auto", "cifar10", "cifar100"):  # those would be fetched
        source = refused_or(lambda: open_source(written, Path("cache")))
        assert source is None or written == "digits"


LOCAL = ("sqlite:///", "sqlite://", "sqlite+pysqlite:///", "sqlite:", "SQLITE:///", "journal://", "file:///")
STRANGE = ("os+system://", "sqlite+os://", "x+y+z://", "://", "")
NOWHERE = re.compile("(mysql|mariadb|postgres|oracle|mssql|http|redis)", re.I)  # no test waits for a network


NO_FILES = ("sqlite://:", "sqlite://::", "sqlite:///\ud800")


@examples(150)
@given(
    st.sampled_from(LOCAL + STRANGE),
    words
    | st.sampled_from(("folder", "/", "a.db?x=1", "a.db?mode=ro&uri=true", "file:a?uri=true", "a/b/c.db")),
)
def test_a_storage_is_refused(scheme, rest):
    url = f"{scheme}{rest}"
    assume(can_be_a_file(url) and not NOWHERE.match(url))
    for command in ("show", "export"):
        assert not sound_or_refused([command, "s", f"--storage={url}"])


def can_be_a_file(url):
    try:
        make_url(url)
        return len(url.encode()) < 250
    except SQLAlchemyError:
        return True
    except ValueError:  # of the port, or what cannot be encoded
        return False


@pytest.mark.parametrize("url", NO_FILES)
def test_a_storage_that_no_file_can_be(url):
    assert not sound_or_refused(["show", "s", f"--storage={url}"])


def test_a_storage_of_a_name_that_is_too_long():
    assert not sound_or_refused(["show", "s", f"--storage=sqlite:///{'x' * 3000}"])


ODD = ("-1", "nan", "inf", "1e400", "9" * 400, "0x10", "", "1.5", "--", "\x00", "x" * 3000, "[/red]")
OPTIONS = ("trials", "confirm", "images", "validation", "resolution", "epochs", "threads", "seed", "batch")
OPTIONS += ("objectives", "strategy", "pruner", "device", "fidelity", "corrupt-images", "width", "params")


@examples(80)
@given(st.sampled_from(OPTIONS), st.sampled_from(ODD))
def test_an_odd_option_of_a_search(option, value):
    search = ["search", "--space", "resnet20", "--data", "digits", "--trials", "1", "--budget", "1"]
    assert not sound_or_refused([*search, f"--{option}={value}"])
