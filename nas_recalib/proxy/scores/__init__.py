"""Scores of networks that need no training. Each file registers one."""

from nas_recalib.proxy.scores import (  # noqa: F401 - importing registers
    fisher,
    grad_norm,
    jacob_cov,
    macs,
    naswot,
    params,
    snip,
    synflow,
    zen,
)
from nas_recalib.proxy.scores.aggregate import aggregate_ranks
from nas_recalib.proxy.scores.registry import Score, get_score, register_score, score_names, score_network

__all__ = ["Score", "aggregate_ranks", "get_score", "register_score", "score_names", "score_network"]
