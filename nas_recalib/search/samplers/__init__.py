"""Registry of search strategies: their names, and what each supports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas_recalib.costs import Feasible
from nas_recalib.errors import InputError
from nas_recalib.search.samplers.base import Strategy, uniform
from nas_recalib.search.samplers.evolution import evolution, local
from nas_recalib.search.samplers.oneshot import one_shot
from nas_recalib.search.samplers.optuna_based import gp, nsga2, tpe
from nas_recalib.search.samplers.predictor import predictor


@dataclass(frozen=True)
class StrategyInfo:
    """A strategy in the registry.

    Attributes:
        make: Function that makes a strategy for one study.
        multi_objective: Whether it supports several objectives.
        startup_draws: Number of uniform draws before its first proposal of another kind; a space with no more
            architectures than that would be searched at random.
    """

    make: Callable[[], Strategy]
    multi_objective: bool = False
    startup_draws: int = 0


STRATEGIES = {
    "random": StrategyInfo(lambda: uniform, multi_objective=True),
    "tpe": StrategyInfo(tpe, multi_objective=True, startup_draws=8),
    "gp": StrategyInfo(gp, multi_objective=True, startup_draws=10),
    "nsga2": StrategyInfo(nsga2, multi_objective=True, startup_draws=24),
    "evolution": StrategyInfo(evolution, startup_draws=32),
    "local": StrategyInfo(local, startup_draws=10),
    "predictor": StrategyInfo(predictor),
    "oneshot": StrategyInfo(one_shot),
}
DEFAULT = "predictor"
DEFAULT_OF_SEVERAL = "tpe"  # a few dozen trials are no more than a generation or two of nsga2


def refuse_unsuitable(strategy: str, objectives: Sequence[str], feasible: Feasible) -> None:
    """Check that a strategy supports the objectives and the number of architectures within the budget.

    Raises:
        InputError: If it does not.
    """
    info = STRATEGIES[strategy]
    if len(objectives) > 1 and not info.multi_objective:
        suitable = ", ".join(name for name, info in STRATEGIES.items() if info.multi_objective)
        raise InputError(
            f"strategy: {strategy} supports one objective only; for {', '.join(objectives)} use one of "
            f"{suitable}"
        )
    count = feasible.count()
    if count <= info.startup_draws:
        raise InputError(
            f"strategy: {strategy} starts with {info.startup_draws} uniform draws, but only {count} "
            "architectures are within the budget; use --strategy random, which tries them all"
        )
