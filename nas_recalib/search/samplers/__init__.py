"""Strategies: how the next architecture is proposed."""

from collections.abc import Callable

from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from nas_recalib.search.samplers.untried import UntriedSampler

Strategy = Callable[[int], BaseSampler]


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True, n_startup_trials=8)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


STRATEGIES: dict[str, Strategy] = {"tpe": _tpe, "random": _random}

__all__ = ["STRATEGIES", "Strategy", "UntriedSampler"]
