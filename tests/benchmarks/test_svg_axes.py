"""Axes of SVG charts: round ticks around all values, and values at their pixels."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from svg_axes import grid, linear_axis

STEPS = st.integers(3, 9)


def check(axis, least, greatest):
    ticks = axis.ticks
    assert list(ticks) == sorted(set(ticks))
    assert len(ticks) >= 2
    slack = 1e-9 * (ticks[-1] - ticks[0])
    assert ticks[0] <= least + slack
    assert ticks[-1] >= greatest - slack
    assert (axis.at(ticks[0]), axis.at(ticks[-1])) == pytest.approx((axis.start, axis.end))


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), STEPS)
def test_linear_ticks_surround_the_values_in_even_steps(least, span, steps):
    axis = linear_axis(least, least + span, 100, 0, steps=steps)
    check(axis, least, least + span)
    assert len(axis.ticks) <= steps + 2
    differences = [after - before for before, after in pairwise(axis.ticks)]
    assert max(differences) == pytest.approx(min(differences), rel=0.02), "ticks have twelve digits"


def test_values_that_are_the_same_but_for_rounding_have_an_axis():
    axis = linear_axis(0.1 + 0.2, 0.3, 0, 100)
    assert 0 <= axis.at(0.3) <= 100


def test_large_numbers_are_written_short():
    drawn = "".join(grid(linear_axis(3.99e9, 4.0e9, 0, 100, steps=4), linear_axis(0, 20e6, 100, 0, steps=4)))
    for text in (">3.99G<", ">4G<", ">0<", ">20M<"):
        assert text in drawn
