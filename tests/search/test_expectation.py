from dataclasses import replace

import numpy as np
import pytest
from test_strategies import situation

from nas_recalib.search.samplers import Observation
from nas_recalib.search.samplers.base import ended

PICKS = [(a, b, c) for a in range(6) for b in range(6) for c in range(6)]


def told(pairs, early):
    """What is expected of a training that was left early, after others went on to their ends."""
    now = situation([], pruned=[(PICKS[-1], early)])
    known = [Observation(i, PICKS[i], (end,), (before, end)) for i, (before, end) in enumerate(pairs)]
    (found,) = (one for one in ended(replace(now, known=known)) if one.indices == PICKS[-1])
    return found.values[0]


def test_many_that_went_on_say_what_is_to_be_expected():
    random = np.random.default_rng(0)
    early = random.uniform(0.2, 0.5, 200)
    pairs = list(zip(early, 0.3 + 0.8 * early + random.normal(scale=0.005, size=200), strict=True))
    assert told(pairs, 0.25) == pytest.approx(0.3 + 0.8 * 0.25, abs=0.01)
    assert told(pairs, 0.45) == pytest.approx(0.3 + 0.8 * 0.45, abs=0.01)


def test_one_that_went_on_says_how_much_is_gained():
    assert told([(0.3, 0.5)], 0.3) == pytest.approx(0.5)
    assert told([(0.3, 0.5)], 0.2) == pytest.approx(0.5 - 0.5 * 0.1)
    assert told([(0.3, 0.4), (0.3, 0.6)], 0.2) == pytest.approx(0.5 - 0.5 * 0.1)


def test_where_none_went_on_it_is_what_was_seen():
    assert told([], 0.4) == 0.4


def test_all_come_in_the_order_of_their_trials_with_the_ends_that_were_seen():
    now = situation([(PICKS[0], 0.5), (PICKS[1], 0.7)], pruned=[(PICKS[2], 0.3)])
    assert [one.indices for one in ended(now)] == PICKS[:3]
    assert [one.values[0] for one in ended(now)][:2] == [0.5, 0.7]
