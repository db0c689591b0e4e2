import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from nas_recalib.study.statistics import front, hypervolume, hypervolumes

POINTS = st.integers(2, 4).flatmap(
    lambda size: st.lists(
        st.tuples(*[st.integers(0, 6).map(lambda n: n / 6)] * size), min_size=1, max_size=12
    )
)


@given(POINTS)
def test_the_front_is_what_no_other_is_as_good_as_everywhere(points):
    leading = front(points)
    for index, point in enumerate(points):
        beaten = any(
            all(a >= b for a, b in zip(other, point, strict=True)) and (other != point or before < index)
            for before, other in enumerate(points)
        )
        assert (index in leading) != beaten


@given(POINTS)
def test_the_hypervolume_is_that_of_the_front_and_of_optuna(points):
    volume = hypervolume(points)
    assert volume == pytest.approx(hypervolume([points[index] for index in front(points)]), abs=1e-12)
    theirs = compute_hypervolume(-np.array(points), np.zeros(len(points[0])))
    assert volume == pytest.approx(float(theirs), abs=1e-12)


@given(POINTS)
def test_over_time_it_is_that_of_what_is_there(points):
    each = [hypervolume(points[: count + 1]) for count in range(len(points))]
    assert hypervolumes(points) == pytest.approx(each, abs=1e-12)


def test_what_is_below_the_origin_covers_nothing():
    assert hypervolume([(-1.0, 5.0), (0.5, 0.5)]) == 0.25
    assert hypervolume([]) == 0.0
