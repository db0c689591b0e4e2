from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nas_recalib.study.storage import has_ambiguous_password, hide_password, scrub

ODD = st.text(st.sampled_from("@:/%?#&=+ '\"\\{}ab9é~"), min_size=1, max_size=12)
LONG = ODD.filter(lambda password: len(password) >= 4)


def url(password, scheme="postgresql"):
    return f"{scheme}://me:{quote(password, safe='')}@host:5432/studies"


@given(ODD)
def test_the_password_of_a_url_is_hidden(password):
    assert hide_password(url(password)) == "postgresql://me:***@host:5432/studies"
    asked = f"mysql+pymysql://host/studies?user=me&password={quote(password, safe='')}&charset=utf8"
    assert hide_password(asked) == "mysql+pymysql://host/studies?user=me&password=***&charset=utf8"


@given(ODD)
def test_a_password_that_is_not_encoded_is_hidden_or_the_whole_url_is(password):
    raw = f"postgresql://me:{password}@host/studies"
    assert hide_password(raw) in ("postgresql://me:***@host/studies", "the given URL")
    assert has_ambiguous_password(raw) == any(sign in password for sign in "@/?#")


@given(LONG, st.sampled_from([str, repr, lambda text: quote(text, safe=""), quote_plus]))
def test_a_password_is_removed_from_a_text_in_every_encoding(password, write):
    text = f"connection to me:{write(password)}@host failed"
    cleaned = scrub(text, url(password))
    assume(password not in "connection to me:@host failed")
    assert password not in cleaned
    assert quote(password, safe="") not in cleaned
    assert repr(password)[1:-1] not in cleaned


@given(LONG)
def test_a_password_that_is_not_encoded_is_removed_from_a_text_too(password):
    raw = f"postgresql://me:{password}@host/studies"
    assume(password not in "no answer from  at all")
    assert password not in scrub(f"no answer from {raw} at all", raw)


@given(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=3))
def test_a_short_password_is_removed_only_where_it_is_a_value(password):
    message = "FATAL:  a database as large as that has no room, password authentication failed (1)"
    assert scrub(message, url(password)) == message
    shown = scrub(
        f"could not parse {url(password)!r}: me:{password}@host, password='{password}' host", url(password)
    )
    assert f":{password}@" not in shown.replace("***", "")
    assert f"'{password}'" not in shown
    assert shown.startswith("could not parse")


@pytest.mark.parametrize("path", ["sqlite:////data/a:b@c/s.db", "journal:///data/a:b@c/log", "journal:a@b"])
def test_the_path_of_a_file_has_no_password(path):
    assert hide_password(path) == path
    assert not has_ambiguous_password(path)
    assert scrub("b@c a:b b", path) == "b@c a:b b"


@given(LONG)
def test_a_password_in_a_url_that_takes_none_is_hidden_too(password):
    encoded = quote(password, safe="")
    for misplaced in (
        f"journal://me:{encoded}@host/log",
        f"grpc://me:{encoded}@host:1",
        f"sqlite://me:{encoded}@/s",
    ):
        assert encoded not in hide_password(misplaced).replace("journal", "").replace("sqlite", "")
