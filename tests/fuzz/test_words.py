"""Words of the command line: quantities, names, data sets, storages, numbers."""

import os
import re
from pathlib import Path

import pytest
from broken import TEXTS, examples, sound_or_refused
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.costs.budget import parse_latency, parse_memory, parse_quantity
from nas_recalib.data import open_source
from nas_recalib.errors import InputError
from nas_recalib.study.place import StudyPlace

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

    place = refused_or(lambda: StudyPlace.of(written, Path("runs")))
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


SCHEMES = (
    *(
        "sqlite:///",
        "sqlite://",
        "sqlite+pysqlite:///",
        "sqlite:",
        "SQLITE:///",
        "mysql://",
        "postgresql+psycopg2://",
    ),
    *(
        "oracle://",
        "redis://",
        "journal://",
        "file:///",
        "http://",
        "os+system://",
        "sqlite+os://",
        "x+y+z://",
        "://",
        "",
    ),
)
NOWHERE = re.compile("^(mysql|postgresql|oracle|http|redis)", re.I)


@examples(150)
@given(
    st.builds(
        "{}{}".format,
        st.sampled_from(SCHEMES),
        words | st.sampled_from(("folder", "/", "a.db?x=1", "a/b/c.db")),
    )
)
def test_a_storage_is_refused(written):
    for command in ("show", "export"):
        assert not sound_or_refused([command, "s", f"--storage={written}"])


ODD = ("-1", "0", "nan", "inf", "1e400", "9" * 400, "0x10", "٣", "", "1.5", "--", "\x00", "x" * 3000)
OPTIONS = (
    *(
        "--trials",
        "--confirm",
        "--images",
        "--validation",
        "--resolution",
        "--width",
        "--epochs",
        "--threads",
        "--seed",
    ),
    *(
        "--objectives",
        "--strategy",
        "--pruner",
        "--warm-start",
        "--device",
        "--fidelity",
        "--corrupt-images",
        "--batch",
    ),
)


@examples(60)
@given(st.sampled_from(OPTIONS), st.sampled_from(ODD[:2] + ODD[2:]))
def test_an_odd_option_of_a_search(option, value):
    fine = {("--confirm", "0"), ("--seed", "0"), ("--seed", "٣"), ("--trials", "٣"), ("--warm-start", "")}
    takes = {
        "--epochs",
        "--images",
        "--confirm",
        "--trials",
        "--seed",
        "--threads",
        "--batch",
        "--validation",
        "--resolution",
        "--width",
    }
    if (option, value) not in fine and not (option in takes and value == "٣"):
        search = ["search", "--space", "resnet20", "--data", "digits", "--trials", "1", "--budget", "1"]
        assert not sound_or_refused([*search, f"{option}={value}"])
