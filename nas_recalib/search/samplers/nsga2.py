"""Optuna's NSGA-II, for several objectives at once."""

from optuna.samplers import NSGAIISampler

from nas_recalib.search.samplers.from_optuna import from_optuna
from nas_recalib.search.samplers.situation import Strategy


def nsga2(population: int = 24) -> Strategy:
    """Crosses and mutates the front: accuracy against costs, where the study has them as objectives.

    Args:
        population: Architectures in a generation; the first is drawn uniformly.
    """
    generation = NSGAIISampler._get_generation_key()
    return from_optuna(lambda seed: NSGAIISampler(seed=seed, population_size=population), keep=generation)
