"""What a correlation study is about, and the pieces of work that it is made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.networks.backbone import GateFan
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.objective import Failure
from nas_recalib.study.config import DTYPES, MOST_SEEDS, MOST_THREADS, compared_space
from nas_recalib.study.trials import (
    is_integer,
    is_line,
    is_number,
    is_text,
    read_budget,
    read_fidelity,
    require_types,
)

REFERENCE = "reference"
KEPT_OPTIONS = ("architectures", "seeds", "scores", "corrupt")  # that may be others in the next command


@dataclass(frozen=True)
class Plan:
    """Kept in the study.

    Attributes:
        space: The search space, as the text of its file.
        within: Width of the slice of costs, as a share of the greatest.
        upper: Greatest costs of the slice.
        data: How the images were asked for; never `auto`.
        data_hash: Of the training images.
        reference: The longer training.
        fidelities: Those that are held against it, by name.
        dtype: Of convolutions in training.
        threads: Of the CPU, for one training.
        seed: Of the draw of architectures, the split of the images and, counted on from, the trainings.
        plugins: Modules of the user's own operators.
        gate_fan: How the convolutions of recalibrations are drawn; "fan_out" in studies of versions before
            0.2, which do not say.
        architectures: Number of architectures to draw.
        seeds: Number of longer trainings of each.
        scores: Names of the scores as they were asked for, which may be "all" or "none".
        corrupt: Treatment of images that cannot be decoded: refuse or skip.
    """

    space: str
    within: float
    upper: Budget
    data: str
    data_hash: str
    reference: Fidelity
    fidelities: dict[str, Fidelity]
    dtype: str
    threads: int
    seed: int
    plugins: list[str] = field(default_factory=list)
    gate_fan: GateFan = "fan_in"
    architectures: int = 40
    seeds: int = 2
    scores: list[str] = field(default_factory=lambda: ["all"])
    corrupt: str = "refuse"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Plan":
        """Reads what `as_dict` wrote.

        Raises:
            TypeError: If it is of another form.
            KeyError: If something is missing.
        """
        parts = {key: content[key] for key in ("upper", "reference", "fidelities")}
        if not all(isinstance(part, dict) for part in parts.values()):
            raise TypeError("upper, reference and fidelities are not of their form")
        fidelities = parts["fidelities"]
        plan = cls(
            **{
                "gate_fan": "fan_out",
                **content,
                "upper": read_budget(parts["upper"]),
                "reference": read_fidelity(parts["reference"]),
                "fidelities": {name: read_fidelity(told) for name, told in fidelities.items()},
            }
        )
        require_types(
            {
                **{key: is_text(getattr(plan, key)) for key in ("space", "data", "data_hash")},
                "within": is_number(plan.within, 0, 1),
                "fidelities": all(map(is_line, fidelities)),
                "dtype": plan.dtype in DTYPES,
                "gate_fan": plan.gate_fan in get_args(GateFan),
                "threads": is_integer(plan.threads, 1, MOST_THREADS),
                "seed": is_integer(plan.seed, 0, MOST_SEEDS),
                "plugins": isinstance(plan.plugins, list) and all(map(is_text, plan.plugins)),
                "architectures": is_integer(plan.architectures, 1, MOST_SEEDS),
                "seeds": is_integer(plan.seeds, 1, MOST_SEEDS),
                "scores": isinstance(plan.scores, list) and all(map(is_line, plan.scores)),
                "corrupt": is_line(plan.corrupt),
            }
        )
        return plan

    def fidelity(self, name: str) -> Fidelity:
        return self.reference if name == REFERENCE else self.fidelities[name]

    def extended(self, study: str, asked: "Plan") -> "Plan":
        """Return this plan with the fidelities that another adds, and with all of its that may change.

        Raises:
            InputError: If anything else differs that decides what comes out; it is named.
        """
        before, now = _compared(self), _compared(asked)
        shared = self.fidelities.keys() & asked.fidelities.keys()
        before.update({f"fidelity {name}": asdict(self.fidelities[name]) for name in sorted(shared)})
        now.update({f"fidelity {name}": asdict(asked.fidelities[name]) for name in sorted(shared)})
        for key, there in before.items():
            if there != now[key]:
                raise InputError(
                    f"study {study!r} was made with another {key}: it has {there}, asked was {now[key]}; "
                    "go on as it was made, or give the new one a name with --study"
                )
        return replace(
            self,
            fidelities={**self.fidelities, **asked.fidelities},
            data=asked.data,
            plugins=asked.plugins or self.plugins,
            **{name: getattr(asked, name) for name in KEPT_OPTIONS},
        )


@dataclass(frozen=True)
class Task:
    """One training, or all scores, of one architecture.

    Attributes:
        index: Of the architecture in the order of the draw.
        fidelity: Name of the fidelity, "reference", or "" for the scores.
        seed: Of the training.
        scores: Names of the scores to compute.
    """

    index: int
    fidelity: str
    seed: int
    scores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes:
        task: Which.
        seconds: Taken, all in all.
        accuracies: On the validation images after each epoch.
        losses: Mean training loss of each epoch.
        scores: Value and seconds of each.
        failure: Why there is no value.
    """

    task: Task
    seconds: float
    accuracies: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    scores: dict[str, tuple[float, float]] | None = None
    failure: Failure | None = None


def tasks(plan: Plan, architectures: int, seeds: int, scores: Sequence[str]) -> Iterator[Task]:
    """All work, one architecture after the other, so that whatever has been done is of use.

    No cheap training has a seed of the reference's: what agrees must not be chance that both share.
    """
    for index in range(architectures):
        if scores:
            yield Task(index, "", plan.seed, tuple(scores))
        for name in plan.fidelities:
            yield Task(index, name, plan.seed)
        for number in range(1, seeds + 1):
            yield Task(index, REFERENCE, plan.seed + number)


def _compared(plan: Plan) -> dict[str, Any]:
    content = plan.as_dict()
    for key in ("data", "fidelities", "plugins", *KEPT_OPTIONS):
        del content[key]
    return {**content, "space": compared_space(plan.space)}
