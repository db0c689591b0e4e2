"""From a correlation study's trials to its signals and what they are held against."""

import math
import statistics
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.plan import REFERENCE, Plan, Task
from nas_recalib.correlation.signals import Correlation, Signal
from nas_recalib.correlation.study import scored, trained
from nas_recalib.proxy.scores import aggregate_ranks
from nas_recalib.space import SearchSpace

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
    costs = [space.table.cost(space.picks(architecture)) for architecture in drawn]
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
