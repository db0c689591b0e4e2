"""Collection of a correlation study's data: reference accuracies, zero-cost proxies and short trainings."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from nas_recalib.correlation.setup import Ready
from nas_recalib.correlation.study import REFERENCE, Task, scored, trained
from nas_recalib.proxy.scores import aggregate_ranks

KINDS = ("score", "training", "baseline")


@dataclass(frozen=True)
class Signal:
    """Cheap measurement that ranks architectures.

    Attributes:
        name: Name such as `synflow` or `quick, epoch 2`.
        kind: "score" (zero-cost proxy), "training" or "baseline" (a cost).
        values: Value of each architecture; higher is better.
        seconds: Median seconds for one architecture.
        fidelity: Name of a training's fidelity.
        epoch: Epoch of a training after which the value is known.
    """

    name: str
    kind: str
    values: tuple[float, ...]
    seconds: float
    fidelity: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class Correlation:
    """Architectures with the accuracies of their reference trainings and the values of cheap signals.

    Attributes:
        study: Name of the study.
        space: Name of the search space.
        budget: Limits of the slice that the architectures are from, as text.
        data: Data set of the trainings.
        device: Machine of the trainings, in words.
        commands: Commands that repeat the study.
        seed: Seed of every random draw.
        architectures: Canonical text of each architecture.
        macs: Multiply-accumulates of each architecture.
        params: Number of parameters of each architecture.
        reference: Fidelity of the reference training.
        reference_seconds: Median seconds of one reference training.
        runs: Accuracies of the reference trainings, of shape (architectures, seeds).
        signals: Signals that are compared with the reference training.

    Raises:
        ValueError: If a length is not the number of architectures, a kind of signal is unknown, or two
            signals share a name.
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
                raise ValueError(f"signals: {signal.name!r} is given twice")

    @cached_property
    def means(self) -> tuple[float, ...]:
        """Mean accuracy of each architecture over its seeds; NaN where a training diverged."""
        return tuple(float(np.mean(row)) if np.isfinite(row).all() else math.nan for row in self.runs)

    @property
    def seeds(self) -> int:
        """Number of reference trainings of each architecture."""
        return len(self.runs[0])


BASELINES = ("params", "macs")


def gather(ready: Ready, commands: Sequence[str]) -> Correlation:
    """Return the data of a study whose tasks are all done.

    Args:
        ready: Study with its results, plan and architectures.
        commands: Commands that repeat the study.
    """
    plan, space, drawn, done = ready.plan, ready.space, ready.drawn, trained(ready.study)
    numbers = range(1, plan.seeds + 1)
    runs = [[done[Task(i, REFERENCE, plan.seed + n)] for n in numbers] for i in range(len(drawn))]
    costs = [space.table.cost(space.indices_of(architecture)) for architecture in drawn]
    signals = _score_signals(ready)
    for name in plan.fidelities:
        signals += _training_signals(name, [done[Task(i, name, plan.seed)] for i in range(len(drawn))])
    trials = [trial for row in runs for trial in row]
    return Correlation(
        study=ready.study.study_name,
        space=space.name,
        budget=f"{plan.upper} (and at most {100 * plan.within:g}% below)",
        data=plan.data,
        device=", ".join(sorted({trial.user_attrs["device"] for trial in trials})),
        commands=tuple(commands),
        seed=plan.seed,
        architectures=tuple(map(str, drawn)),
        macs=tuple(cost["macs"] for cost in costs),
        params=tuple(cost["params"] for cost in costs),
        reference=plan.reference.as_dict(),
        reference_seconds=_seconds(trials),
        runs=tuple(tuple(math.nan if t.value is None else float(t.value) for t in row) for row in runs),
        signals=tuple(signals),
    )


def _score_signals(ready: Ready) -> list[Signal]:
    scores_of = [scored(ready.study, index) for index in range(len(ready.drawn))]
    signals = [
        Signal(
            name=name,
            kind="baseline" if name in BASELINES else "score",
            values=tuple(scores[name][0] for scores in scores_of),
            seconds=statistics.median(scores[name][1] for scores in scores_of),
        )
        for name in ready.scores
    ]
    proxies = [signal for signal in signals if signal.kind == "score"]
    if len(proxies) > 1:
        ranks = aggregate_ranks({signal.name: signal.values for signal in proxies})
        seconds = sum(signal.seconds for signal in proxies)
        signals.append(Signal("mean rank of the scores", "score", tuple(ranks), seconds))
    return signals


def _training_signals(fidelity: str, trials: Sequence[FrozenTrial]) -> list[Signal]:
    """Return the validation accuracy after each epoch, and the sum of training losses (Ru et al., 2021)."""
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
