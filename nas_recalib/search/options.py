"""Options of a search: what a user may ask for, with names, limits and defaults."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_recalib.costs import Budget, Feasible
from nas_recalib.errors import InputError
from nas_recalib.files import read_yaml
from nas_recalib.search.pruning import DEFAULT_PRUNER, PRUNERS
from nas_recalib.search.samplers import DEFAULT, DEFAULT_OF_SEVERAL, STRATEGIES, refuse_unsuitable
from nas_recalib.space_file import SpaceFile, find_space
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.trials import ACCURACY, ATTRIBUTES

KEPT_OPTIONS = ("trials", "confirm", "retries", "corrupt", "baselines")


@dataclass(frozen=True)
class Request:
    """What a user asked for; None is "as the study has it", or the default for a new one.

    Attributes:
        space: Name or path of a space.
        macs: Limit on multiply-accumulates, such as 4G.
        params: Limit on parameters, such as 26M.
        latency: Limit on the time of a forward pass, such as 20ms.
        latency_table: File of the table that predicts it.
        memory: Limit on the peak of activations, such as 300MB.
        batch: Images at once that peak memory is meant for.
        data: Name of a data set.
        study: Name of the study (default: the space and the budget).
        runs: Folder that studies are kept in.
        storage: URL of another storage than the study's own file.
        fidelity: Name or file of how cheap a trial is; what is given below is changed in it.
        images: Training images of a trial.
        validation: Validation images.
        resolution: Side of the images, in pixels.
        width: Factor on the channels.
        epochs: Of a trial.
        objectives: Accuracy and the costs that are to be low besides, with commas between.
        strategy: How architectures are proposed, by name.
        pruner: Which trainings are given up early, by name.
        threads: Of the CPU.
        seed: That every draw follows from.
        cache: Folder that downloads and decoded images are kept in.
        plugins: Modules of the user's own operators; none where those of the study are loaded.
        warm_start: Name of another study whose trials are taken over.
        corrupt: Treatment of images that cannot be decoded: refuse or skip.
        checkpoints: Folder or URL that checkpoints are kept under (default: the study's folder).
        retries: Number of times that a training is resumed after its worker died.
        trials: Number of trained trials that the study is to end with.
        confirm: Number of new seeds that the leaders are then trained with.
        baselines: Whether the single-operator networks are trained first.
    """

    space: str | None
    macs: str | None
    params: str | None
    latency: str | None
    latency_table: Path | None
    memory: str | None
    batch: int | None
    data: str | None
    study: str | None
    runs: Path
    storage: str | None
    fidelity: str | None
    images: int | None
    validation: int | None
    resolution: int | None
    width: float | None
    epochs: int | None
    objectives: str | None
    strategy: str | None
    pruner: str | None
    threads: int | None
    seed: int | None
    cache: Path
    plugins: Sequence[str] = ()
    corrupt: str | None = None
    warm_start: str | None = None
    retries: int | None = None
    checkpoints: str | None = None
    trials: int | None = None
    confirm: int | None = None
    baselines: bool | None = None

    def kept_options(self) -> dict[str, Any]:
        """Return those of the given options that a study keeps and may be resumed with another of."""
        given = {name: getattr(self, name) for name in KEPT_OPTIONS}
        return {name: value for name, value in given.items() if value is not None}


def default_name(space: str | None, budget: Budget) -> str:
    """Of a study: the space and the budget."""
    if space is None:
        raise InputError("study: name a space with --space or a study with --study")
    name = read_yaml(find_space(space), SpaceFile).name  # its operators may not be loaded yet
    counts = {"": budget.macs, "-params": budget.params}
    others = {"ms": budget.latency, "mb": budget.memory}
    return (
        name
        + "".join(f"-{_short(limit)}{unit}" for unit, limit in counts.items() if limit)
        + "".join(f"-{_millions(limit)}{unit}" for unit, limit in others.items() if limit)
    )


def _short(value: int) -> str:
    """4000000000 as 4g, 4100000000 as 4.1g, 4089184256 as 4089184256."""
    for unit, power in (("g", 9), ("m", 6), ("k", 3)):
        if value >= 10**power and value * 1000 % 10**power == 0:
            return f"{value / 10**power:g}{unit}"
    return str(value)


def _millions(value: int) -> str:
    """20000000 as 20, 1610612736 as 1610.612736."""
    return f"{value // 10**6}.{value % 10**6:06}".rstrip("0").rstrip(".")


def refuse_idle(request: Request, budget: Budget, objectives: Collection[str]) -> None:
    """Raises InputError for an option that would do nothing."""
    if request.latency_table is not None and budget.latency is None and "latency" not in objectives:
        raise InputError("latency-table: of no use without a limit; give one with --latency")
    limited = budget.latency is not None or budget.memory is not None
    if request.batch is not None and not limited and {"latency", "memory"}.isdisjoint(objectives):
        raise InputError("batch: of no use without a limit; give one with --memory")


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
