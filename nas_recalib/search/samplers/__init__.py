"""Strategies: how the next architecture is proposed."""

from nas_recalib.search.samplers.evolution import evolution
from nas_recalib.search.samplers.gp import gp
from nas_recalib.search.samplers.local import local
from nas_recalib.search.samplers.nsga2 import nsga2
from nas_recalib.search.samplers.predictor import predictor
from nas_recalib.search.samplers.situation import Known, Picks, Situation, Strategy
from nas_recalib.search.samplers.tpe import tpe
from nas_recalib.search.samplers.uniform import uniform
from nas_recalib.search.samplers.untried import UntriedSampler

STRATEGIES: dict[str, Strategy] = {
    "tpe": tpe(),
    "random": uniform,
    "gp": gp(),
    "nsga2": nsga2(),
    "evolution": evolution(),
    "local": local(),
    "predictor": predictor(),
}

__all__ = [
    "STRATEGIES",
    "Known",
    "Picks",
    "Situation",
    "Strategy",
    "UntriedSampler",
    "evolution",
    "gp",
    "local",
    "nsga2",
    "predictor",
    "tpe",
    "uniform",
]
