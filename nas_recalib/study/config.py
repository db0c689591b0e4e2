"""What a study is about: everything that must stay the same for its trials to be comparable."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.files import parse_yaml
from nas_recalib.networks.backbone import GateFan
from nas_recalib.proxy.train import Recipe
from nas_recalib.study.trials import (
    ACCURACY,
    ATTRIBUTES,
    is_integer,
    is_line,
    is_text,
    read_budget,
    read_fidelity,
    require_types,
)

DTYPES = ("float32", "bfloat16", "float16")
MOST_THREADS = 4096
MOST_SEEDS = 10**9
MOST_TRIALS = 10**9
MOST_CONFIRM = 1000
TRIALS = 20
RETRIES = 3
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
)
_TEXTS = ("space", "data", "data_note", "data_hash", "split_hash", "dtype", "strategy", "pruner")
_OF_TRAININGS = ("data", "split_hash", "fidelity", "recipe", "dtype", "threads", "seed")


class _Keys(BaseModel):
    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True)
class SearchConfig:
    """Kept in the study and in runs/<study>/config.yaml.

    Attributes:
        space: The search space, as the text of its file.
        budget: Hard limits on cost.
        data: How the images were asked for; never `auto`.
        data_note: How they were chosen, in one line.
        data_hash: Of the training images.
        split_hash: Of which of them are trained on, and which are validated on.
        fidelity: Of the proxy, as `Fidelity.as_dict` gives it.
        recipe: Of the proxy training, by name of its fields.
        dtype: Of convolutions in training.
        threads: Of the CPU; sums are rounded differently with another number.
        strategy: Name of the strategy that went on last.
        pruner: Name of the pruner that went on last.
        seed: That every draw follows from.
        plugins: Modules of the user's own operators, as they were asked for.
        latencies: The table that latencies are predicted by, as `pricing.Latencies` has it.
        batch: Images at once that peak memory is meant for.
        objectives: Accuracy, then the costs that are to be low besides, if any.
        trials: Number of trained trials that the study is to end with.
        confirm: Number of new seeds that the leaders are then trained with.
        retries: Number of times that a training is resumed after its worker died.
        checkpoints: Folder or URL under which checkpoints are kept, without a password; empty for the study's
            own folder.
        corrupt: Treatment of images that cannot be decoded: refuse or skip.
        baselines: Whether the single-operator networks are trained first.
    """

    space: str
    budget: Budget
    data: str
    data_note: str
    data_hash: str
    split_hash: str
    fidelity: dict[str, Any]
    recipe: dict[str, Any]
    dtype: str
    threads: int
    strategy: str
    pruner: str
    seed: int
    plugins: list[str] = field(default_factory=list)
    latencies: dict[str, Any] | None = None
    batch: int = 1
    objectives: list[str] = field(default_factory=lambda: [ACCURACY])
    trials: int = TRIALS
    confirm: int = 0
    retries: int = RETRIES
    checkpoints: str = ""
    corrupt: str = "refuse"
    baselines: bool = True

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "SearchConfig":
        """Reads what `as_dict` wrote.

        Raises:
            TypeError: If it is of another form.
            KeyError: If something is missing.
        """
        if not all(isinstance(content[key], dict) for key in ("budget", "fidelity", "recipe")):
            raise TypeError("budget, fidelity and recipe are not of their form")
        recipe = {"gate_fan": "fan_out", **content["recipe"]}  # versions before 0.2 did not say
        config = cls(**{**content, "budget": read_budget(content["budget"]), "recipe": recipe})
        require_types(
            {
                **{key: is_text(getattr(config, key)) for key in _TEXTS},
                **{key: isinstance(getattr(config, key), list) for key in ("plugins", "objectives")},
                "latencies": config.latencies is None or isinstance(config.latencies, dict),
                "dtype": config.dtype in DTYPES,
                "threads": is_integer(config.threads, 1, MOST_THREADS),
                "seed": is_integer(config.seed, 0, MOST_SEEDS),
                "batch": is_integer(config.batch, 1, 65_536),
                "trials": is_integer(config.trials, 1, MOST_TRIALS),
                "confirm": is_integer(config.confirm, 0, MOST_CONFIRM),
                "retries": is_integer(config.retries, 0, MOST_TRIALS),
                "checkpoints": is_line(config.checkpoints),
                "corrupt": is_line(config.corrupt),
                "baselines": type(config.baselines) is bool,
            }
        )
        costs = config.objectives[1:]
        require_types(
            {
                "plugins": all(map(is_text, config.plugins)),
                "objectives": config.objectives[:1] == [ACCURACY] and all(map(is_text, costs)),
            }
        )
        require_types({"objectives": set(costs) <= ATTRIBUTES.keys() and len(set(costs)) == len(costs)})
        read, default = Recipe(**config.recipe), asdict(Recipe())
        same = all(type(value) is type(default[key]) for key, value in asdict(read).items())
        require_types({"recipe": same and read.batch_size >= 1 and read.gate_fan in get_args(GateFan)})
        read_fidelity(config.fidelity)
        return config


def refuse_difference(study: str, stored: SearchConfig, asked: SearchConfig) -> None:
    """Raises InputError naming what differs, if anything that makes trials comparable does."""
    if told := _differing(stored, asked, lambda _: True):
        raise InputError(
            f"study {study!r} was made with another {told}; go on as it was made, or give the new search a "
            "name with --study"
        )


def refuse_other_trainings(study: str, stored: SearchConfig, asked: SearchConfig) -> None:
    """Raises InputError naming what differs, if accuracies of one cannot stand beside the other's."""
    if told := _differing(stored, asked, lambda key: key.partition(".")[0] in _OF_TRAININGS):
        raise InputError(f"warm-start: study {study!r} trained with another {told}")


def _differing(stored: SearchConfig, asked: SearchConfig, counts: Callable[[str], bool]) -> str:
    before, now = _compared(stored), _compared(asked)
    differing = [key for key in before if counts(key) and before[key] != now.get(key)]
    if not differing:
        return ""
    key = differing[0]
    there, here = (stored.data, asked.data) if key == "data" else (before[key], now.get(key))
    others = f" (also another {', '.join(differing[1:])})" if differing[1:] else ""
    return f"{key}: it has {there}, asked was {here}{others}"


def compared_space(text: str) -> dict[str, Any]:
    """What must be equal of a space that a study keeps as text.

    Raises:
        InputError: If it is not the text of a space.
    """
    return parse_yaml(text, _Keys, "space of the study").model_dump()


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8] if content else "none"


def _compared(config: SearchConfig) -> dict[str, Any]:
    """What must be equal; images are told by their hash and plugins by their operators, wherever they lie."""
    content = config.as_dict()
    content["data"] = content.pop("data_hash")
    for name in _MAY_CHANGE:
        del content[name]
    content["space"] = compared_space(content["space"])
    content["latency table"] = _digest(content.pop("latencies"))
    for group in ("space", "budget", "fidelity", "recipe"):
        content.update({f"{group}.{key}": value for key, value in content.pop(group).items()})
    return content
