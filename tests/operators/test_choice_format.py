"""Choices that version 0.1 wrote keep their meaning, and are written back as they were."""

import pytest

from nas_recalib.operators.catalog import parse_part
from nas_recalib.operators.choice_format import modern_text, oldest_format, write_part_in_format


def parse(text):
    return parse_part(text, "recalibration" if text.startswith("msar") else "convolution")


def read(text, number):
    return parse(modern_text(text, number, depthwise=True))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("msar", "msar(norm=hidden)"),
        ("msar(scales=1, strategy=sliding)", "msar(scales=1, norm=hidden)"),
        ("msar(scales=1-2, strategy=sliding)", "msar(scales=1-2, strategy=sliding, norm=hidden)"),
        ("psconv", "psconv(depthwise=blocks)"),
        ("psconv(pattern=2)", "psconv(pattern=2)"),
        ("psconv(pattern=2-2, vary=in)", "psconv(pattern=2)"),
        ("psconv(pattern=1-1)", "vanilla"),
        ("psconv(pattern=1-2-1-2)", "psconv(pattern=1-2, depthwise=blocks)"),
    ],
)
def test_version_0_1_is_read_as_it_was_meant_and_written_back(written, meant):
    part = read(written, 1)
    assert part == parse(meant)
    assert oldest_format([part], depthwise=True) == 1
    again = write_part_in_format(part, 1, depthwise=True)
    assert read(str(again), 1) == part
    assert "blocks" not in str(again)
    assert "hidden" not in str(again)


@pytest.mark.parametrize(
    "text",
    [
        "msar",
        "msar(scales=1, strategy=sliding, norm=hidden)",
        "psconv",
        "psconv(pattern=1-2-1-2, depthwise=blocks)",
    ],
)
def test_what_version_0_1_did_not_have_is_written_in_format_2(text):
    assert oldest_format([parse(text)], depthwise=True) == 2


def test_blocks_keep_their_pattern_where_its_period_would_move_channels():
    assert parse("psconv(pattern=1-2-1-2, depthwise=blocks)") != parse(
        "psconv(pattern=1-2, depthwise=blocks)"
    )
    assert parse("psconv(pattern=1-2-1-2)") == parse("psconv(pattern=1-2)")
