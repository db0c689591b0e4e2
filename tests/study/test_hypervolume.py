import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from nas_recalib.study.statistics import hypervolume, hypervolumes, pareto_front

POINTS = st.integers(2, 4).flatmap(
    lambda size: st.lists(
        st.tuples(*[st.integers(0, 6).map(lambda n: n / 6)] * size), min_size=1, max_size=12
    )
)


@given(POINTS)
def test_the_front_has_the_points_that_no_other_dominates(points):
    front = pareto_front(points)
    for index, point in enumerate(points):
        dominated = any(
            all(a >= b for a, b in zip(other, point, strict=True)) and (other != point or before < index)
            for before, other in enumerate(points)
        )
        assert (index in front) != dominated


@given(POINTS)
def test_the_hypervolume_equals_that_of_the_front_and_that_of_optuna(points):
    volume = hypervolume(points)
    assert volume == pytest.approx(hypervolume([points[index] for index in pareto_front(points)]), abs=1e-12)
    expected = compute_hypervolume(-np.array(points), np.zeros(len(points[0])))
    assert volume == pytest.approx(float(expected), abs=1e-12)


@given(POINTS)
def test_hypervolumes_are_those_of_the_points_so_far(points):
    each = [hypervolume(points[: count + 1]) for count in range(len(points))]
    assert hypervolumes(points) == pytest.approx(each, abs=1e-12)


def test_negative_coordinates_count_as_0():
    assert hypervolume([(-1.0, 5.0), (0.5, 0.5)]) == 0.25
    assert hypervolume([]) == 0.0
