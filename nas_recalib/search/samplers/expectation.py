"""What a training that was given up, or is left at a rung, would have come to."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nas_recalib.search.samplers.situation import Known, Situation

_SLOPE, _WEIGHT = 0.5, 4.0  # of accuracy at the end on accuracy earlier: before any is seen, and its weight
_TINY = 1e-12


def ended(situation: Situation) -> list[Known]:
    """Everything trained in the order of its trials, with the value expected of what is not at its end."""
    expected = [replace(one, values=(_end(one, situation.known),)) for one in situation.pruned]
    return sorted([*situation.known, *expected], key=lambda one: one.number)


def _end(pruned: Known, known: Sequence[Known]) -> float:
    """By regression on those that went on from the same epoch.

    A few of them say little about the slope, which is held near `_SLOPE` then.
    """
    epoch = len(pruned.curve)
    went_on = np.array([(one.curve[epoch - 1], one.values[0]) for one in known if len(one.curve) > epoch])
    if not len(went_on):
        return pruned.values[0]
    (early, end), spread = went_on.mean(axis=0), went_on.var(axis=0)[0]
    together = float(((went_on[:, 0] - early) * (went_on[:, 1] - end)).sum())
    weight = spread * (len(went_on) + _WEIGHT)
    slope = (together + _WEIGHT * spread * _SLOPE) / weight if weight > _TINY else _SLOPE
    return float(end + slope * (pruned.values[0] - early))
