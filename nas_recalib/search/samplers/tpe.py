"""Optuna's tree-structured Parzen estimator."""

from optuna.samplers import TPESampler

from nas_recalib.search.samplers.from_optuna import from_optuna
from nas_recalib.search.samplers.situation import Strategy


def tpe() -> Strategy:
    """Models all parameters together, from the ninth trained trial on; avoids what runs elsewhere."""
    return from_optuna(lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=8))
