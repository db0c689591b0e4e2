"""Registry of search strategies: which there are by name, and what each is good for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas_recalib.costs import Feasible
from nas_recalib.errors import InputError
from nas_recalib.search.samplers.base import (
    Indices,
    Observation,
    Proposal,
    SearchState,
    Strategy,
    StrategySampler,
    uniform,
)
from nas_recalib.search.samplers.evolution import evolution, local
from nas_recalib.search.samplers.optuna_based import gp, nsga2, tpe
from nas_recalib.search.samplers.predictor import predictor


@dataclass(frozen=True)
class StrategyInfo:
    """A strategy by name.

    Attributes:
        make: Makes one, which is for one study.
        several: Whether it knows what to do with several objectives.
        drawn: Architectures that it draws uniformly before it has a mind of its own, where a space with no
            more of them would only be drawn from.
    """

    make: Callable[[], Strategy]
    several: bool = False
    drawn: int = 0


STRATEGIES = {
    "random": StrategyInfo(lambda: uniform, several=True),
    "tpe": StrategyInfo(tpe, several=True, drawn=8),
    "gp": StrategyInfo(gp, several=True, drawn=10),
    "nsga2": StrategyInfo(nsga2, several=True, drawn=24),
    "evolution": StrategyInfo(evolution, drawn=32),
    "local": StrategyInfo(local, drawn=10),
    "predictor": StrategyInfo(predictor),
}
DEFAULT = "predictor"
DEFAULT_OF_SEVERAL = "tpe"  # a few dozen trials are no more than a generation or two of nsga2


def refuse_unsuitable(strategy: str, objectives: Sequence[str], feasible: Feasible) -> None:
    """Raises InputError if a strategy does not suit the objectives or what is within the budget."""
    info = STRATEGIES[strategy]
    if len(objectives) > 1 and not info.several:
        fit = ", ".join(name for name, one in STRATEGIES.items() if one.several)
        raise InputError(
            f"strategy: {strategy} knows one objective; for {', '.join(objectives)} there are {fit}"
        )
    count = feasible.count()
    if count <= info.drawn:
        raise InputError(
            f"strategy: {strategy} first draws {info.drawn} architectures uniformly, and there are only "
            f"{count} within the budget; random tries them all"
        )


__all__ = [
    "DEFAULT",
    "DEFAULT_OF_SEVERAL",
    "STRATEGIES",
    "Indices",
    "Observation",
    "Proposal",
    "SearchState",
    "Strategy",
    "StrategyInfo",
    "StrategySampler",
    "evolution",
    "gp",
    "local",
    "nsga2",
    "predictor",
    "refuse_unsuitable",
    "tpe",
    "uniform",
]
