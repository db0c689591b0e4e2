"""Strategy guided by a supernet: proposes the exact optimum of a regression on its scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nas_recalib.search.samplers.base import Indices, SearchState, Strategy
from nas_recalib.search.samplers.predictor import draw_best
from nas_recalib.study.trials import ONE_SHOT


def one_shot_scores(attributes: Mapping[str, Any]) -> dict[Indices, float]:
    """Return the scores of subnets, greater is better: the mean over supernets of the negative loss.

    Args:
        attributes: User attributes of the study, of which each round of scoring wrote one.
    """
    rounds = sorted((int(key.removeprefix(ONE_SHOT)), key) for key in attributes if key.startswith(ONE_SHOT))
    return {
        tuple(indices): -float(np.mean([loss for _, loss in results]))
        for _, key in rounds
        for indices, results in attributes[key]
    }


def one_shot() -> Strategy:
    """Return a strategy that proposes the best architectures by a regression on the scores of supernets.

    The regression, linear in the choices, evens out the noise between subnets that score about the same. A
    study without scores is searched at random.
    """
    scores: dict[Indices, float] = {}

    def propose(state: SearchState) -> Indices | None:
        if not scores:
            scores.update(one_shot_scores(state.study_attrs()))
        return draw_best(state, list(scores), list(scores.values()), boldness=0.0) if scores else None

    return propose
