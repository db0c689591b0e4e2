"""Syntax of a choice, independent of the names in it."""

import pytest

from nas_recalib.operators.choice import Part, read_part, split_parts


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("psconv", "psconv", {}),
        ("ab-plus", "ab-plus", {}),
        ("psconv()", "psconv", {}),
        (" psconv( pattern = 1-2 ,vary=in ) ", "psconv", {"pattern": "1-2", "vary": "in"}),
        ("x9(some_key=-3)", "x9", {"some_key": "-3"}),
    ],
)
def test_reads_a_part(text, name, arguments):
    assert read_part(text) == (name, arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not an operator; write it like"),
        ("PSConv", "'PSConv' is not an operator"),
        ("psconv(r=1", r"'psconv\(r=1' is not an operator"),
        ("psconv(r=1))", r"'psconv\(r=1\)\)' is not an operator"),
        ("psconv(r=1)x", "is not an operator"),
        ("psconv(r)", r"'r' in 'psconv\(r\)' is not an argument; write it like r=2"),
        ("psconv(=1)", "'=1' in .* is not an argument"),
        ("psconv(r=)", "'r=' in .* is not an argument"),
        ("psconv(r=1 s=2)", "'r=1 s=2' in .* is not an argument"),
        ("psconv(r=1, r=2)", r"'r' is given twice in 'psconv\(r=1, r=2\)'"),
    ],
)
def test_refuses_what_is_not_a_part(text, message):
    with pytest.raises(ValueError, match=message):
        read_part(text)


def test_splits_at_the_plus_signs():
    assert split_parts("psconv(pattern=1-2) + ab-plus") == ["psconv(pattern=1-2)", "ab-plus"]


@pytest.mark.parametrize("text", ["", "+", "psconv+", "+ab", "psconv++ab", "  "])
def test_refuses_an_empty_part(text):
    with pytest.raises(ValueError, match="is not an operator choice; write it like"):
        split_parts(text)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "op"),
        ((("on", True),), "op(on=yes)"),
        ((("on", False),), "op(on=no)"),
        ((("mode", "max"), ("r", 2), ("scales", (1, 2))), "op(mode=max, r=2, scales=1-2)"),
    ],
)
def test_writes_a_part(arguments, text):
    assert str(Part("op", arguments)) == text
