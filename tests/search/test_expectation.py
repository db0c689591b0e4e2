"""The value expected of a pruned training at its last epoch."""

from dataclasses import replace

import numpy as np
import pytest
from test_strategies import state

from nas_recalib.search.samplers.base import Observation, extrapolated_observations

INDICES = [(a, b, c) for a in range(6) for b in range(6) for c in range(6)]


def expected(pairs, early):
    """Return the value expected of a pruned training, given early and final accuracies of completed ones."""
    completed = [Observation(i, INDICES[i], (end,), (before, end)) for i, (before, end) in enumerate(pairs)]
    searched = replace(state([], pruned=[(INDICES[-1], early)]), completed=completed)
    (found,) = (one for one in extrapolated_observations(searched) if one.indices == INDICES[-1])
    return found.values[0]


def test_many_completed_trainings_determine_the_regression():
    random = np.random.default_rng(0)
    early = random.uniform(0.2, 0.5, 200)
    pairs = list(zip(early, 0.3 + 0.8 * early + random.normal(scale=0.005, size=200), strict=True))
    assert expected(pairs, 0.25) == pytest.approx(0.3 + 0.8 * 0.25, abs=0.01)
    assert expected(pairs, 0.45) == pytest.approx(0.3 + 0.8 * 0.45, abs=0.01)


def test_a_single_completed_training_determines_the_mean_gain():
    assert expected([(0.3, 0.5)], 0.3) == pytest.approx(0.5)
    assert expected([(0.3, 0.5)], 0.2) == pytest.approx(0.5 - 0.5 * 0.1)
    assert expected([(0.3, 0.4), (0.3, 0.6)], 0.2) == pytest.approx(0.5 - 0.5 * 0.1)


def test_without_a_completed_training_the_early_accuracy_is_expected():
    assert expected([], 0.4) == 0.4


def test_observations_are_in_the_order_of_their_trials_and_keep_final_values():
    searched = state([(INDICES[0], 0.5), (INDICES[1], 0.7)], pruned=[(INDICES[2], 0.3)])
    assert [one.indices for one in extrapolated_observations(searched)] == INDICES[:3]
    assert [one.values[0] for one in extrapolated_observations(searched)][:2] == [0.5, 0.7]
