"""How a study is searched, and for what."""

from collections.abc import Sequence

from nas_recalib.costs import Feasible
from nas_recalib.errors import InputError
from nas_recalib.search.pruning import DEFAULT_PRUNER, PRUNERS
from nas_recalib.search.samplers import DEFAULT, DEFAULT_OF_SEVERAL, STRATEGIES, refuse_unsuitable
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.trials import ACCURACY, ATTRIBUTES


def find_objectives(asked: str | None, stored: SearchConfig | None) -> list[str]:
    """Accuracy, and the costs that are to be low besides; as asked, as the study has it, or accuracy alone.

    Raises:
        InputError: If there is no such cost, or accuracy is not the first.
    """
    if asked is None:
        return stored.objectives if stored else [ACCURACY]
    names = [name.strip() for name in asked.split(",")]
    allowed = (ACCURACY, *ATTRIBUTES)
    unknown = next((name for name in names if name not in allowed), None)
    if unknown is not None:
        raise InputError(f"objectives: unknown {unknown!r}; allowed: {', '.join(allowed)}")
    if names[0] != ACCURACY or len(set(names)) < len(names):
        raise InputError(f"objectives: {asked!r} is not {ACCURACY} and then other costs, each once")
    return names


def find_method(
    strategy: str | None,
    pruner: str | None,
    stored: SearchConfig | None,
    objectives: Sequence[str],
    within: Feasible,
) -> tuple[str, str]:
    """Names of the strategy and of the pruner; as asked, as the study has them, or the default.

    Raises:
        InputError: If there is no such, or they do not suit the objectives or what is within the budget.
    """
    several = len(objectives) > 1
    default = (DEFAULT_OF_SEVERAL, "none") if several else (DEFAULT, DEFAULT_PRUNER)
    if stored:
        default = (stored.strategy, stored.pruner)
    strategy, pruner = strategy or default[0], pruner or default[1]
    for key, value, allowed in (("strategy", strategy, STRATEGIES), ("pruner", pruner, PRUNERS)):
        if value not in allowed:
            raise InputError(f"{key}: unknown {value!r}; allowed: {', '.join(allowed)}")
    refuse_unsuitable(strategy, objectives, within)
    if several and pruner != "none":
        raise InputError(f"pruner: {pruner} knows one objective; for {', '.join(objectives)} there is none")
    return strategy, pruner
