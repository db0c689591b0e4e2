"""Several scores of the same networks made one."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence


def aggregate_ranks(scores: Mapping[str, Sequence[float]]) -> list[float]:
    """Mean rank of each network over the scores: 1 is the lowest, and ties share the mean of their ranks.

    Ranks are all that scores of different units have in common; nothing that keeps a score's order changes
    them. Infinite scores rank as their order says, and what is not a number ranks below everything.

    Args:
        scores: For each score, its value for each network; higher is better.

    Returns:
        A mean rank for each network, between 1 and their number; higher is better.

    Raises:
        ValueError: If there is no score, or two are of different numbers of networks.
    """
    if not scores:
        raise ValueError("no scores to aggregate")
    lengths = {name: len(values) for name, values in scores.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"scores of different numbers of networks: {told}")
    ranks = zip(*(_ranks(values) for values in scores.values()), strict=True)
    return [sum(of_one) / len(scores) for of_one in ranks]


def _ranks(values: Sequence[float]) -> list[float]:
    keys = [(False, 0.0) if math.isnan(value) else (True, value) for value in values]
    ordered = sorted(keys)
    return [(bisect_left(ordered, key) + bisect_right(ordered, key) + 1) / 2 for key in keys]
