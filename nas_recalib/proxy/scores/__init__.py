"""Zero-cost proxies: scores of untrained networks, by name."""

from nas_recalib.proxy.scores import activations, gradients  # noqa: F401 - importing registers their scores
from nas_recalib.proxy.scores.registry import (
    Score,
    aggregate_ranks,
    get_score,
    register_score,
    score_names,
    score_network,
)

__all__ = ["Score", "aggregate_ranks", "get_score", "register_score", "score_names", "score_network"]
