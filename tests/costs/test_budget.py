"""Budgets: parsing, formatting, and the costs that they allow."""

import math
from fractions import Fraction

import numpy as np
import pytest

from nas_recalib.costs import (
    Budget,
    format_cost,
    format_quantity,
    parse_latency,
    parse_memory,
    parse_quantity,
)
from nas_recalib.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4G", 4 * 10**9),
        ("4g", 4 * 10**9),
        (" 4 G ", 4 * 10**9),
        ("4.1e9", 4_100_000_000),
        ("4.089184256G", 4_089_184_256),
        ("500M", 500_000_000),
        (".5k", 500),
        ("1.T", 10**12),
        ("2e+3M", 2 * 10**9),
        ("26000000", 26_000_000),
        ("0.0019M", 1900),
        ("1.9999", 1),
        ("1", 1),
    ],
)
def test_reads_a_quantity(text, value):
    assert parse_quantity(text, "budget") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "0",
        "0.9",
        "0G",
        "-4G",
        "+4G",
        "4GB",
        "4GiB",
        "4 G G",
        "4,1G",
        "4,000M",
        "4_000M",
        "-1",
        "1e-3",
        "1e1.5",
        "nan",
        "inf",
        ".",
    ],
)
def test_refuses_what_is_not_a_quantity(text):
    with pytest.raises(InputError) as refusal:
        Budget.parse(params=text)
    assert str(refusal.value) == f"params: {text!r} is not a quantity; write it like 4G, 4.1e9 or 500M"


@pytest.mark.parametrize(
    ("value", "text"), [(4_089_184_256, "4.089G"), (25_557_032, "25.557M"), (1_500, "1.500k"), (999, "999")]
)
def test_writes_a_quantity(value, text):
    assert format_quantity(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20ms", 20_000_000),
        ("1.5s", 1_500_000_000),
        (" 800 us ", 800_000),
        (".5MS", 500_000),
        ("2e3us", 2_000_000),
        ("7ns", 7),
        ("1.9999us", 1999),
    ],
)
def test_reads_a_latency_as_nanoseconds(text, value):
    assert parse_latency(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("300MB", 300_000_000),
        ("1.5GiB", 3 * 2**29),
        ("500MiB", 500 * 2**20),
        ("2 gb", 2_000_000_000),
        ("1kB", 1000),
        ("1KiB", 1024),
    ],
)
def test_reads_a_memory_as_bytes(text, value):
    assert parse_memory(text) == value


@pytest.mark.parametrize(
    "text", ["", "20", "ms", "0ms", "-1ms", "20m", "20 m s", "20MB", "1min", "1e99s", "nans"]
)
def test_refuses_what_is_not_a_latency(text):
    with pytest.raises(InputError) as refusal:
        Budget.parse(latency=text)
    assert str(refusal.value) == f"latency: {text!r} is not a duration; write it like 20ms, 1.5s or 800us"


@pytest.mark.parametrize("text", ["", "300", "300M", "300Mi", "MB", "0MB", "-1MB", "1e99GB", "20ms", "0.5e0"])
def test_refuses_what_is_not_a_memory(text):
    with pytest.raises(InputError) as refusal:
        Budget.parse(memory=text)
    assert str(refusal.value) == f"memory: {text!r} is not a size; write it like 300MB, 1.5GiB or 500MiB"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("macs", 4_089_184_256, "4.089G MACs"),
        ("params", 999, "999 params"),
        ("latency", 12_345_000, "12.345 ms latency"),
        ("memory", 300_000_000, "300.0 MB memory"),
    ],
)
def test_writes_a_cost_with_its_unit(name, value, text):
    assert format_cost(name, value) == text


NAMES = ("macs", "params", "latency", "memory")


@pytest.mark.parametrize("name", NAMES)
def test_limits_are_inclusive_and_each_may_be_missing(name):
    costs = dict(zip(NAMES, (100, 10, 2, 1000), strict=True))
    assert Budget().allows(costs)
    assert Budget(**costs).allows(costs)
    assert Budget(**{name: costs[name]}).allows({name: costs[name]}), "others need not be known"
    assert not Budget(**{name: costs[name] - 1}).allows(costs)
    assert not Budget(**{**costs, name: costs[name] - 1}).allows(costs)


def test_limits_are_those_there_are():
    assert Budget(params=5, memory=7).limits() == {"params": 5, "memory": 7}


@pytest.mark.parametrize(
    "limit", [4e9, 4_000_000_000.9, np.int64(4 * 10**9), np.float64(4e9), Fraction(4 * 10**9)]
)
def test_a_limit_may_be_any_type_of_number(limit):
    for budget in (Budget(limit), Budget.parse(limit)):
        assert budget == Budget(4 * 10**9)
        assert type(budget.macs) is int
    assert parse_quantity(limit, "budget") == 4 * 10**9


@pytest.mark.parametrize(
    "limit", [0, 0.5, -1, True, False, np.bool_(True), math.nan, math.inf, [4], 2**62, 1e300]
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_limit_is_refused_by_name(name, limit):
    with pytest.raises(InputError) as refusal:
        Budget(**{name: limit})
    assert str(refusal.value) == f"{name}: {limit!r} is not a number from 1 to {2**62 - 1:,}"
    with pytest.raises(
        InputError, match=f"^{'budget' if name == 'macs' else name}: .* is not a .*; write it like"
    ):
        Budget.parse(**{name: limit})


def test_a_limit_as_text_is_to_be_parsed():
    with pytest.raises(
        InputError, match=r"^macs: '4G' is not a number .*; use Budget\.parse\(macs=\.\.\.\) to read text"
    ):
        Budget("4G")


@pytest.mark.parametrize("name", ["latency", "memory"])
def test_a_number_without_a_unit_is_neither_a_latency_nor_a_memory(name):
    with pytest.raises(InputError, match=f"^{name}: 20 is not a .*; write it like"):
        Budget.parse(**{name: 20})


def test_a_budget_kept_before_there_were_latency_and_memory_is_still_one():
    assert Budget(**{"macs": 4, "params": None}) == Budget(macs=4)


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget.parse("4G", "26M"), "4.000G MACs and 26.000M params"),
        (Budget.parse(params="26M"), "26.000M params"),
        (Budget.parse("4G", latency="20ms"), "4.000G MACs and 20 ms latency"),
        (Budget.parse(latency="12.5ms", memory="300MB"), "12.500 ms latency and 300.0 MB memory"),
        (Budget.parse(), "no limit"),
    ],
)
def test_a_budget_reads_as_text(budget, text):
    assert str(budget) == text
