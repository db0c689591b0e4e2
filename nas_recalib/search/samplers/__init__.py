"""Strategies: how the next architecture is proposed."""

from nas_recalib.search.samplers.evolution import evolution
from nas_recalib.search.samplers.gp import gp
from nas_recalib.search.samplers.local import local
from nas_recalib.search.samplers.nsga2 import nsga2
from nas_recalib.search.samplers.offered import (
    DEFAULT,
    DEFAULT_OF_SEVERAL,
    STRATEGIES,
    Offer,
    refuse_unsuitable,
)
from nas_recalib.search.samplers.predictor import predictor
from nas_recalib.search.samplers.situation import Known, Picks, Situation, Strategy
from nas_recalib.search.samplers.tpe import tpe
from nas_recalib.search.samplers.uniform import uniform
from nas_recalib.search.samplers.untried import Proposal, UntriedSampler

__all__ = [
    "DEFAULT",
    "DEFAULT_OF_SEVERAL",
    "STRATEGIES",
    "Known",
    "Offer",
    "Picks",
    "Proposal",
    "Situation",
    "Strategy",
    "UntriedSampler",
    "evolution",
    "gp",
    "local",
    "nsga2",
    "predictor",
    "refuse_unsuitable",
    "tpe",
    "uniform",
]
