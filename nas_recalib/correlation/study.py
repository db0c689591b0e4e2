"""Plan of a correlation study, the tasks that it consists of, and their results, as the study stores them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic needs these before Python 3.12
)

import optuna
import pydantic.dataclasses
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.options import ARCHITECTURES, SEEDS
from nas_recalib.errors import InputError
from nas_recalib.networks.backbone import GateFan
from nas_recalib.options import MANY
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Weights
from nas_recalib.space import SearchSpace
from nas_recalib.study import stored
from nas_recalib.study.config import KEEP_OR_RENAME, DType, Seed, Threads, comparable_space
from nas_recalib.study.location import CORRELATION
from nas_recalib.study.stored import STRICT, Line, StoredBudget, StoredFidelity
from nas_recalib.study.trials import FAILURE, validate_contents

REFERENCE = "reference"
MAY_CHANGE = ("architectures", "seeds", "scores", "corrupt")  # from one command to the next

AtLeastOne = Annotated[int, Field(ge=1, le=MANY)]
_SCORES = "scores of "  # a study's attribute: value and seconds of each zero-cost proxy, by its name
_RETRIED_FAILURES = ("error", "interrupted", "out-of-memory")


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


def tasks(plan: Plan, scores: Sequence[str]) -> Iterator[Task]:
    """Yield all tasks, one architecture after the other, so that an interrupted study can be evaluated.

    A cheap training never has the seed of a longer one, so that a shared seed cannot make the two agree.
    """
    for index in range(plan.architectures):
        if scores:
            yield Task(index, "", plan.seed, tuple(scores))
        for name in plan.fidelities:
            yield Task(index, name, plan.seed)
        for number in range(1, plan.seeds + 1):
            yield Task(index, REFERENCE, plan.seed + number)


def read_plan(study: optuna.Study) -> Plan | None:
    """Return the plan of a study, or None if nothing has been written yet.

    Raises:
        InputError: If it was written by another version; the key is named.
    """
    content = study.user_attrs.get(CORRELATION)
    if isinstance(content, dict):
        content = {"gate_fan": "fan_out", "evaluated": "raw", **content}
    return None if content is None else stored.read_stored(Plan, content, study.study_name)


def write_plan(study: optuna.Study, plan: Plan) -> None:
    study.set_user_attr(CORRELATION, plan.as_dict())


def keep(
    study: optuna.Study,
    space: SearchSpace,
    architecture: Architecture,
    done: Done,
    common_attrs: Mapping[str, Any],
) -> None:
    """Store the result of a task at once: a training as a trial, zero-cost proxies in the study's attributes.

    Failed zero-cost proxies are not stored.

    Args:
        study: Study to write to.
        space: Search space of the study.
        architecture: Architecture of the task.
        done: Result of the task.
        common_attrs: User attributes written to every trial (device, versions).
    """
    if done.scores is not None:
        before = study.user_attrs.get(_scores_key(done.task.index), {})
        study.set_user_attr(_scores_key(done.task.index), {**before, **done.scores})
    if done.task.scores:
        return
    attributes: dict[str, Any] = {
        "index": done.task.index,
        "fidelity": done.task.fidelity,
        "architecture": str(architecture),
        **space.table.cost(space.indices_of(architecture)),
        "seed": done.task.seed,
        "seconds": done.seconds,
        "losses": list(done.losses),
        **common_attrs,
    }
    if done.failure is not None:
        attributes |= {FAILURE: done.failure.kind, "message": done.failure.message}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.COMPLETE if done.failure is None else TrialState.FAIL,
            value=done.accuracies[-1] if done.failure is None else None,
            params=space.encode(architecture),
            distributions={n: CategoricalDistribution(allowed) for n, allowed in space.options().items()},
            user_attrs=attributes,
            intermediate_values=dict(enumerate(done.accuracies, start=1)),
        )
    )


@with_config(stored.STRICT_VALUES)
class _TrialAttributes(TypedDict):
    index: stored.Count
    fidelity: stored.Line
    seed: stored.Count
    seconds: stored.Number
    device: stored.Line
    losses: list[float]
    failure: NotRequired[stored.Line]


class _StoredTrial(BaseModel):
    """Form of a trial of a correlation study; attributes of other names are allowed."""

    model_config = ConfigDict(strict=True, from_attributes=True)

    user_attrs: _TrialAttributes
    values: list[stored.Accuracy] | None
    intermediate_values: dict[int, stored.Accuracy]


_STORED_SCORES = TypeAdapter(
    dict[str, Annotated[tuple[float, stored.Number], Field(strict=False)]], config=stored.STRICT_VALUES
)


def validate_study(study: optuna.Study) -> None:
    """Validate all results of a correlation study before any of them is used.

    Raises:
        InputError: If the study cannot be read, or contains what `keep` does not write; the key and, if it is
            one of a trial, the trial are named.
    """
    validate_contents(study, _validate_attribute, _StoredTrial.model_validate)


def _validate_attribute(key: str, value: object) -> None:
    if key.startswith(_SCORES):
        _STORED_SCORES.validate_python(value)


def trained(study: optuna.Study) -> dict[Task, FrozenTrial]:
    """Return the trainings that are done, by their tasks.

    One that failed in such a way that it may succeed when tried again is not among them.
    """
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.user_attrs.get(FAILURE) not in _RETRIED_FAILURES]
    return {Task(*(trial.user_attrs[key] for key in ("index", "fidelity", "seed"))): trial for trial in done}


def scored(study: optuna.Study, index: int) -> dict[str, tuple[float, float]]:
    """Return the value and the seconds of each zero-cost proxy of an architecture, by its name."""
    results = study.user_attrs.get(_scores_key(index), {})
    return {name: (value, seconds) for name, (value, seconds) in results.items()}


def _scores_key(index: int) -> str:
    return f"{_SCORES}{index}"
