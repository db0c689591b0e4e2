"""Axes: round ticks around all values, and values at their pixels."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.report.charts import grid, linear_axis, logarithmic_axis

MOST = st.integers(3, 9)


def check(axis, least, greatest):
    ticks = axis.ticks
    assert list(ticks) == sorted(set(ticks))
    assert len(ticks) >= 2
    slack = 1e-9 * (ticks[-1] - ticks[0])
    assert ticks[0] <= least + slack
    assert ticks[-1] >= greatest - slack
    assert (axis.at(ticks[0]), axis.at(ticks[-1])) == pytest.approx((axis.start, axis.end))


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), MOST)
def test_linear_ticks_surround_the_values_in_even_steps(least, span, most):
    axis = linear_axis(least, least + span, 100, 0, most=most)
    check(axis, least, least + span)
    assert len(axis.ticks) <= most + 2
    steps = [after - before for before, after in pairwise(axis.ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=0.02), "ticks have twelve digits"


@given(st.floats(-300, 290), st.floats(0, 300), MOST)
def test_logarithmic_ticks_surround_the_values(power, magnitudes, most):
    least, greatest = 10**power, 10 ** min(power + magnitudes, 299)
    axis = logarithmic_axis(least, greatest, 0, 100, most=most)
    check(axis, least, greatest)
    assert len(axis.ticks) <= most + 3


def test_equal_ratios_are_equally_far_apart():
    axis = logarithmic_axis(0.1, 1000, 0, 80)
    assert [axis.at(value) for value in (0.1, 1, 10, 100, 1000)] == pytest.approx([0, 20, 40, 60, 80])
    assert logarithmic_axis(3, 30, 0, 1).ticks == (2, 5, 10, 20, 50)


@pytest.mark.parametrize("least", [0.3 / 3, 9.999999999999999e-05, 999.9999999999999])
def test_a_value_just_below_a_power_of_ten_has_an_axis(least):
    assert logarithmic_axis(least, 5 * least, 0, 100).ticks[0] == pytest.approx(least / 2)
    check(logarithmic_axis(least, 1e6 * least, 0, 100, most=3), least, 1e6 * least)


def test_values_that_are_the_same_but_for_rounding_have_an_axis():
    axis = linear_axis(0.1 + 0.2, 0.3, 0, 100)
    assert 0 <= axis.at(0.3) <= 100


def test_large_numbers_are_written_short():
    drawn = "".join(grid(linear_axis(3.99e9, 4.0e9, 0, 100, most=4), linear_axis(0, 20e6, 100, 0, most=4)))
    for text in (">3.99G<", ">4G<", ">0<", ">20M<"):
        assert text in drawn
