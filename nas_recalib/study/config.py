"""Stored configuration of a search: everything that must stay the same for its trials to be comparable."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from nas_recalib.errors import InputError
from nas_recalib.files import parse_yaml
from nas_recalib.options import (
    MANY,
    MOST_BATCH,
    MOST_CONFIRM,
    MOST_SCORES,
    MOST_SUPERNETS,
    MOST_THREADS,
    RETRIES,
    SUPERNET_EPOCHS,
    SUPERNET_SCORES,
    SUPERNET_SEEDS,
    TRIALS,
)
from nas_recalib.proxy.train import Recipe
from nas_recalib.study.stored import STRICT, Line, StoredBudget, StoredFidelity, stored_as_dict
from nas_recalib.study.trials import ACCURACY, COST_ATTRIBUTES

_MAY_CHANGE = (  # from one command to the next
    "data_note",
    "plugins",
    "strategy",
    "pruner",
    "trials",
    "confirm",
    "retries",
    "checkpoints",
    "corrupt",
    "baselines",
    "evaluator",
    "supernet_scores",
)
_DECIDES_ACCURACY = ("data", "split_hash", "fidelity", "recipe", "dtype", "threads", "seed")

DType = Literal["float32", "bfloat16", "float16"]
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
Seed = Annotated[int, Field(ge=0, le=MANY)]


def validate_objectives(names: list[str]) -> list[str]:
    """Return the names of objectives unchanged: accuracy, then costs to minimise, if any.

    Raises:
        InputError: If a name is unknown or given twice, or accuracy is not the first.
    """
    allowed = (ACCURACY, *COST_ATTRIBUTES)
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise InputError(f"objectives: unknown {unknown[0]!r}; allowed: {', '.join(allowed)}")
    if names[:1] != [ACCURACY] or len(set(names)) < len(names):
        raise InputError(
            f"objectives: {','.join(names)!r} should be {ACCURACY}, then any other costs, each once"
        )
    return names


def _validate_recipe(recipe: Recipe) -> Recipe:
    if recipe.batch_size < 1:
        raise ValueError(f"batch_size: {recipe.batch_size} is not at least 1")
    return recipe


class _AnyKeys(BaseModel):
    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, config=STRICT)
class SearchConfig:
    """Configuration of a search, kept in the study and in runs/<study>/config.yaml.

    Attributes:
        space: The search space, as the text of its file.
        budget: Hard limits on cost.
        data: Name of the data set; never `auto`.
        data_note: Reason why the data set was chosen, in one line.
        data_hash: Hash of the training images.
        split_hash: Hash of the split into training and validation images.
        fidelity: Fidelity of the proxy.
        recipe: Recipe of the proxy training; studies of versions before 0.2 store neither `gate_fan`, which
            was "fan_out", nor `evaluated`, which was "raw".
        dtype: Data type of convolutions in training.
        threads: Number of CPU threads of a training; another number rounds sums differently.
        strategy: Name of the search strategy that ran last.
        pruner: Name of the pruner that ran last.
        seed: Seed of every random draw.
        plugins: Modules of the user's own operators, as they were given.
        latencies: The latency table, as `pricing.Latencies` stores it.
        batch: Batch size that the limit on peak memory is for.
        objectives: Accuracy, then the costs that are minimised besides, if any.
        trials: Number of trained trials that the study is to end with.
        confirm: Number of new seeds that the leaders are then trained with.
        retries: Number of times that a training is resumed after its worker died.
        checkpoints: Folder or URL under which checkpoints are kept, without a password; empty for the study's
            own folder.
        corrupt: Treatment of images that cannot be decoded: refuse or skip.
        baselines: Whether the single-operator networks are trained first.
        evaluator: Evaluator of candidates: "short" trainings, or "oneshot", subnets of supernets.
        supernet_epochs: Number of epochs of a supernet.
        supernet_seeds: Number of supernets.
        supernet_scores: Number of subnets that are scored.
    """

    space: str
    budget: StoredBudget
    data: str
    data_note: str
    data_hash: str
    split_hash: str
    fidelity: StoredFidelity
    recipe: Annotated[
        Recipe,
        AfterValidator(_validate_recipe),
        stored_as_dict(Recipe, gate_fan="fan_out", evaluated="raw"),
    ]
    dtype: DType
    threads: Threads
    strategy: str
    pruner: str
    seed: Seed
    plugins: list[str] = field(default_factory=list)
    latencies: dict[str, Any] | None = None
    batch: Annotated[int, Field(ge=1, le=MOST_BATCH)] = 1
    objectives: Annotated[list[str], AfterValidator(validate_objectives)] = field(
        default_factory=lambda: [ACCURACY]
    )
    trials: Annotated[int, Field(ge=1, le=MANY)] = TRIALS
    confirm: Annotated[int, Field(ge=0, le=MOST_CONFIRM)] = 0
    retries: Annotated[int, Field(ge=0, le=MANY)] = RETRIES
    checkpoints: Line = ""
    corrupt: Line = "refuse"
    baselines: bool = True
    evaluator: Literal["short", "oneshot"] = "short"
    supernet_epochs: Annotated[int, Field(ge=1, le=MANY)] = SUPERNET_EPOCHS
    supernet_seeds: Annotated[int, Field(ge=1, le=MOST_SUPERNETS)] = SUPERNET_SEEDS
    supernet_scores: Annotated[int, Field(ge=1, le=MOST_SCORES)] = SUPERNET_SCORES

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


KEEP_OR_RENAME = "leave the option out to resume the study, or name a new study with --study"


def refuse_difference(study: str, stored: SearchConfig, given: SearchConfig) -> None:
    """Refuse to resume a study under a configuration that makes its trials incomparable.

    Args:
        study: Name of the study.
        stored: Configuration that the study was made with.
        given: Configuration that the command asks for.

    Raises:
        InputError: If an option that must stay the same differs; it is named with both values.
    """
    if difference := _difference(stored, given, lambda _: True):
        raise InputError(f"study {study!r} was made with {difference}; {KEEP_OR_RENAME}")


def refuse_other_trainings(study: str, stored: SearchConfig, given: SearchConfig) -> None:
    """Refuse a warm start from a study whose accuracies are not comparable with another's.

    Args:
        study: Name of the study to start from.
        stored: Configuration of that study.
        given: Configuration of the study to be started.

    Raises:
        InputError: If their proxy trainings differ; the option is named with both values.
    """
    if difference := _difference(stored, given, lambda key: key.partition(".")[0] in _DECIDES_ACCURACY):
        raise InputError(f"warm-start: study {study!r} trained with {difference}")


def _difference(stored: SearchConfig, given: SearchConfig, compared: Callable[[str], bool]) -> str:
    before, now = _comparable(stored), _comparable(given)
    differing = [key for key in before if compared(key) and before[key] != now.get(key)]
    if not differing:
        return ""
    key, *others = differing
    values = (stored.data, given.data) if key == "data" else (before[key], now.get(key))
    also = f" (also another {', '.join(others)})" if others else ""
    return f"another {key}: stored {values[0]}, given {values[1]}{also}"


def comparable_space(text: str) -> dict[str, Any]:
    """Return the keys and values of a search space that a study keeps as text.

    Raises:
        InputError: If it is not the text of a search space.
    """
    return parse_yaml(text, _AnyKeys, "space of the study").model_dump()


def _comparable(config: SearchConfig) -> dict[str, Any]:
    """Return what must stay the same: images by their hash, as a folder may move, nested keys with dots."""
    content = config.as_dict()
    content["data"] = content.pop("data_hash")
    for name in _MAY_CHANGE:
        del content[name]
    content["space"] = comparable_space(content["space"])
    content["latency table"] = _digest(content.pop("latencies"))
    for group in ("space", "budget", "fidelity", "recipe"):
        content.update({f"{group}.{key}": value for key, value in content.pop(group).items()})
    return content


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8] if content else "none"
