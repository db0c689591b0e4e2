"""Optuna's NSGA-II, for several objectives at once."""

from optuna.samplers import NSGAIISampler

from nas_recalib.search.samplers.from_optuna import from_optuna
from nas_recalib.search.samplers.situation import Strategy


def nsga2(population: int = 24) -> Strategy:
    """Crosses and mutates the front: accuracy against costs, where the study has them as objectives.

    Baselines, and what another strategy or study has trained, are of the first generation.

    Args:
        population: Architectures in a generation; what the first lacks is drawn uniformly.
    """
    generation = NSGAIISampler._get_generation_key()
    return from_optuna(lambda seed: NSGAIISampler(seed=seed, population_size=population), keep=generation)
