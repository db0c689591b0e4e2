"""Plan of a correlation study, as the study stores it, and the tasks that it consists of."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import pydantic.dataclasses
from pydantic import Field

from nas_recalib.correlation.options import ARCHITECTURES, SEEDS
from nas_recalib.errors import InputError
from nas_recalib.networks.backbone import GateFan
from nas_recalib.options import MANY
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Weights
from nas_recalib.study.config import KEEP_OR_RENAME, DType, Seed, Threads, comparable_space
from nas_recalib.study.stored import STRICT, Line, StoredBudget, StoredFidelity

REFERENCE = "reference"
MAY_CHANGE = ("architectures", "seeds", "scores", "corrupt")  # from one command to the next

AtLeastOne = Annotated[int, Field(ge=1, le=MANY)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Plan:
    """Configuration of a correlation study, kept in the study.

    Attributes:
        space: The search space, as the text of its file.
        within: Width of the slice of costs, as a fraction of its upper ends.
        upper: Upper ends of the slice.
        data: Name of the data set; never `auto`.
        data_hash: Hash of the training images.
        reference: Fidelity of the longer training.
        fidelities: Fidelities that are compared with it, by name.
        dtype: Data type of convolutions in training.
        threads: Number of CPU threads of a training.
        seed: Seed of the draw of architectures and of the split of the images; the trainings have this one
            and those that follow.
        plugins: Modules of the user's own operators.
        gate_fan: Initialisation of the convolutions of recalibrations; studies of versions before 0.2 do not
            store it, and theirs is "fan_out".
        evaluated: Weights that are evaluated after each epoch; theirs is "raw".
        architectures: Number of architectures to draw.
        seeds: Number of longer trainings of each architecture.
        scores: Names of the zero-cost proxies as they were given, or "all" or "none".
        corrupt: Treatment of images that cannot be decoded: refuse or skip.
    """

    space: str
    within: Annotated[float, Field(ge=0, le=1)]
    upper: StoredBudget
    data: str
    data_hash: str
    reference: StoredFidelity
    fidelities: dict[Line, StoredFidelity]
    dtype: DType
    threads: Threads
    seed: Seed
    plugins: list[str] = field(default_factory=list)
    gate_fan: GateFan = "fan_in"
    evaluated: Weights = "averaged"
    architectures: AtLeastOne = ARCHITECTURES
    seeds: AtLeastOne = SEEDS
    scores: list[Line] = field(default_factory=lambda: ["all"])
    corrupt: Line = "refuse"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def fidelity(self, name: str) -> Fidelity:
        return self.reference if name == REFERENCE else self.fidelities[name]

    def extended(self, study: str, given: "Plan") -> "Plan":
        """Return this plan with the fidelities that another adds, and with its values that may change.

        Args:
            study: Name of the study, for the message.
            given: Plan that the command asks for.

        Raises:
            InputError: If anything else differs; it is named with both values.
        """
        stored, asked = _comparable(self), _comparable(given)
        for name in sorted(self.fidelities.keys() & given.fidelities.keys()):
            stored[f"fidelity {name}"] = asdict(self.fidelities[name])
            asked[f"fidelity {name}"] = asdict(given.fidelities[name])
        for key, value in stored.items():
            if value != asked[key]:
                raise InputError(
                    f"study {study!r} was made with another {key}: stored {value}, given {asked[key]}; "
                    f"{KEEP_OR_RENAME}"
                )
        return replace(
            self,
            fidelities={**self.fidelities, **given.fidelities},
            data=given.data,
            plugins=given.plugins or self.plugins,
            **{name: getattr(given, name) for name in MAY_CHANGE},
        )


def _comparable(plan: Plan) -> dict[str, Any]:
    content = plan.as_dict()
    for key in ("data", "fidelities", "plugins", *MAY_CHANGE):
        del content[key]
    return {**content, "space": comparable_space(plan.space)}


@dataclass(frozen=True)
class Task:
    """One training, or all zero-cost proxies, of one architecture.

    Attributes:
        index: Index of the architecture in the order of the draw.
        fidelity: Name of the fidelity, "reference", or "" for the zero-cost proxies.
        seed: Seed of the training.
        scores: Names of the zero-cost proxies to compute.
    """

    index: int
    fidelity: str
    seed: int
    scores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """Result of a task.

    Attributes:
        task: Task that was done.
        seconds: Seconds that it took.
        accuracies: Validation accuracy after each epoch.
        losses: Mean training loss of each epoch.
        scores: Value and seconds of each zero-cost proxy, by its name.
        failure: Reason why there is no value.
    """

    task: Task
    seconds: float
    accuracies: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    scores: dict[str, tuple[float, float]] | None = None
    failure: Failure | None = None


def tasks(plan: Plan, architectures: int, seeds: int, scores: Sequence[str]) -> Iterator[Task]:
    """Yield all tasks, one architecture after the other, so that an interrupted study can be evaluated.

    A cheap training never has the seed of a longer one, so that a shared seed cannot make the two agree.
    """
    for index in range(architectures):
        if scores:
            yield Task(index, "", plan.seed, tuple(scores))
        for name in plan.fidelities:
            yield Task(index, name, plan.seed)
        for number in range(1, seeds + 1):
            yield Task(index, REFERENCE, plan.seed + number)
