"""Signals of a correlation study, gathered beside the longer training they are compared with."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.plan import REFERENCE, Plan, Task
from nas_recalib.correlation.study import scored, trained
from nas_recalib.proxy.scores import aggregate_ranks
from nas_recalib.space import SearchSpace

KINDS = ("score", "training", "baseline")


@dataclass(frozen=True)
class Signal:
    """Something cheap that orders architectures.

    Attributes:
        name: As in `synflow` or `quick, epoch 2`.
        kind: "score" (without training), "training" or "baseline" (a cost).
        values: One for each architecture; higher is better.
        seconds: Median cost for one architecture.
        fidelity: Name of a training's fidelity.
        epoch: After which a training gives it.
    """

    name: str
    kind: str
    values: tuple[float, ...]
    seconds: float
    fidelity: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class Correlation:
    """Architectures, what cheap signals say of them, and what longer training does.

    Attributes:
        study: Its name.
        space: Where the architectures are from.
        budget: Within which.
        data: Trained on.
        device: On which machine.
        commands: That make this again.
        seed: Of everything drawn.
        architectures: In their canonical form.
        macs: Of each.
        params: Of each.
        reference: The fidelity of the longer training.
        reference_seconds: Median cost of one such training.
        runs: Accuracies of the longer training (architectures, seeds).
        signals: All that are compared with it.

    Raises:
        ValueError: If there is not one of everything for each architecture, a kind of signal is unknown, or
            two signals share a name.
    """

    study: str
    space: str
    budget: str
    data: str
    device: str
    commands: tuple[str, ...]
    seed: int
    architectures: tuple[str, ...]
    macs: tuple[int, ...]
    params: tuple[int, ...]
    reference: dict[str, Any]
    reference_seconds: float
    runs: tuple[tuple[float, ...], ...]
    signals: tuple[Signal, ...]

    def __post_init__(self) -> None:
        count = len(self.architectures)
        own: dict[str, Sequence[Any]] = {"macs": self.macs, "params": self.params, "runs": self.runs}
        for name, values in (*own.items(), *((signal.name, signal.values) for signal in self.signals)):
            if len(values) != count:
                raise ValueError(f"{name}: {len(values)} for {count} architectures")
        if len({len(row) for row in self.runs}) != 1 or not self.runs[0]:
            raise ValueError(
                "runs: expected the same number of seeds for every architecture, and one at least"
            )
        names = [signal.name for signal in self.signals]
        for signal in self.signals:
            if signal.kind not in KINDS:
                raise ValueError(f"{signal.name}: kind = {signal.kind!r} is not one of {', '.join(KINDS)}")
            if names.count(signal.name) > 1:
                raise ValueError(f"signals: {signal.name!r} is there twice")

    @cached_property
    def means(self) -> tuple[float, ...]:
        """Mean accuracy of each architecture over its seeds; not a number where a training diverged."""
        return tuple(float(np.mean(row)) if np.isfinite(row).all() else math.nan for row in self.runs)

    @property
    def seeds(self) -> int:
        """Longer trainings of each architecture."""
        return len(self.runs[0])


BASELINES = ("params", "macs")


def gather(
    study: optuna.Study,
    plan: Plan,
    space: SearchSpace,
    drawn: Sequence[Architecture],
    scores: Sequence[str],
    seeds: int,
    commands: Sequence[str],
) -> Correlation:
    """What a study says of architectures all of whose work is done.

    Args:
        study: Which.
        plan: What it is about.
        space: That the architectures are of.
        drawn: The architectures, in the order of the draw.
        scores: Names of the scores to report.
        seeds: Longer trainings of each.
        commands: That make it again.
    """
    done = trained(study)
    numbers = range(1, seeds + 1)
    runs = [[done[Task(i, REFERENCE, plan.seed + n)] for n in numbers] for i in range(len(drawn))]
    costs = [space.table.cost(space.indices_of(architecture)) for architecture in drawn]
    signals = _of_scores(study, len(drawn), scores)
    for name in plan.fidelities:
        signals += _of_training(name, [done[Task(i, name, plan.seed)] for i in range(len(drawn))])
    trials = [trial for row in runs for trial in row]
    return Correlation(
        study=study.study_name,
        space=space.name,
        budget=f"{plan.upper}, less {plan.within:.2%} at most",
        data=plan.data,
        device=", ".join(sorted({trial.user_attrs["device"] for trial in trials})),
        commands=tuple(commands),
        seed=plan.seed,
        architectures=tuple(map(str, drawn)),
        macs=tuple(cost["macs"] for cost in costs),
        params=tuple(cost["params"] for cost in costs),
        reference=plan.reference.as_dict(),
        reference_seconds=_seconds(trials),
        runs=tuple(tuple(map(_accuracy, row)) for row in runs),
        signals=tuple(signals),
    )


def _of_scores(study: optuna.Study, count: int, names: Sequence[str]) -> list[Signal]:
    told = [scored(study, index) for index in range(count)]
    signals = [
        Signal(
            name=name,
            kind="baseline" if name in BASELINES else "score",
            values=tuple(row[name][0] for row in told),
            seconds=statistics.median(row[name][1] for row in told),
        )
        for name in names
    ]
    scores = [signal for signal in signals if signal.kind == "score"]
    if len(scores) > 1:
        ranks = aggregate_ranks({signal.name: signal.values for signal in scores})
        signals.append(
            Signal("mean rank of the scores", "score", tuple(ranks), sum(signal.seconds for signal in scores))
        )
    return signals


def _of_training(fidelity: str, trials: Sequence[FrozenTrial]) -> list[Signal]:
    """Validation after each epoch, and the training losses added up (Ru et al., NeurIPS 2021)."""
    epochs = max(len(trial.intermediate_values) for trial in trials)
    seconds = _seconds(trials)
    curves = [
        Signal(
            name=f"{fidelity}, epoch {epoch}",
            kind="training",
            values=tuple(trial.intermediate_values.get(epoch, math.nan) for trial in trials),
            seconds=seconds * epoch / epochs,
            fidelity=fidelity,
            epoch=epoch,
        )
        for epoch in range(1, epochs + 1)
    ]
    sums = tuple(
        -sum(trial.user_attrs["losses"]) if trial.value is not None else math.nan for trial in trials
    )
    return [*curves, Signal(f"{fidelity}, sum of losses", "training", sums, seconds, fidelity, epochs)]


def _seconds(trials: Sequence[FrozenTrial]) -> float:
    return float(statistics.median(trial.user_attrs["seconds"] for trial in trials))


def _accuracy(trial: FrozenTrial) -> float:
    return math.nan if trial.value is None else float(trial.value)
