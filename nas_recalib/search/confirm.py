"""Second looks at the leaders of a search: training with new seeds, and latency measured on the device."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import optuna

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.latency.conditions import Conditions
from nas_recalib.latency.measure import Measurement, measure_architectures
from nas_recalib.pricing import Latencies
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.report.terminal import duration
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.location import read_config
from nas_recalib.study.statistics import write_confirmation
from nas_recalib.study.summary import TrialRow, leaders, trial_rows
from nas_recalib.study.trials import MEASURED


def confirm_leaders(
    study: optuna.Study, config: SearchConfig, proxy: Proxy, seeds: int, say: Callable[[str], None]
) -> None:
    """Trains every leader with so many seeds that follow the study's own; images and split stay as they are.

    Each result is kept in the study at once, and what is there already is not trained again. A leader that
    diverges makes room for the next. One seed is trained with all leaders before the next, so that what an
    interruption leaves can be compared.

    Args:
        study: With its trials.
        config: What it is about.
        proxy: How its trials were trained.
        seeds: How many.
        say: Takes each line of progress.

    Raises:
        StopSearch: If a training fails for another reason than that it diverges.
    """
    if waiting := _missing(study, config, seeds):
        about = duration(sum(row.seconds for row, _ in waiting))
        say(f"confirming the leaders, new seeds for each: {seeds}; trainings: {len(waiting)}, about {about}")
    while waiting:
        row, seed = waiting[0]
        result = _trained_again(row, replace(proxy, seed=seed))
        write_confirmation(study, row.number, seed, result)
        told = result["failure"] if "failure" in result else f"accuracy {result['accuracy']:.4f}"
        waiting = _missing(study, config, seeds)
        say(f"trial {row.number}, seed {seed}: {told}, {result['seconds']:.0f} s, {len(waiting)} left")


def _trained_again(row: TrialRow, proxy: Proxy) -> dict[str, Any]:
    """What is kept of a training: accuracy or failure, and seconds."""
    started = time.monotonic()
    result = proxy.train(Architecture.parse(row.architecture), lambda _: False)
    seconds = round(time.monotonic() - started, 2)
    if not isinstance(result, Failure):
        return {"accuracy": result[-1].accuracy, "seconds": seconds}
    if result.kind == "diverged":
        return {"failure": result.kind, "seconds": seconds}
    told = f"confirming trial {row.number}, seed {proxy.seed}: {result.kind}: {result.message}"
    raise StopSearch(f"{told}\n{result.details}".strip())


def _missing(study: optuna.Study, config: SearchConfig, seeds: int) -> list[tuple[TrialRow, int]]:
    """What is yet to be trained, by leader and seed."""
    chosen = leaders(trial_rows(study, config))
    return [
        (row, seed)
        for seed in range(config.seed + 1, config.seed + 1 + seeds)
        for row in chosen
        if row.confirmation is None or seed not in row.confirmation.accuracies
    ]


FINALISTS = 3
_VISITS = 3
_SECONDS = 2.0

Measure = Callable[[Sequence[Architecture]], list[Measurement]]


def measure_finalists(
    study: optuna.Study, say: Callable[[str], None], measure: Measure | None = None
) -> None:
    """Measures the leading three trials, and those that take the place of one over the limit, twice at most.

    What comes out is kept in the study. Does nothing where no latency is limited, and says so where the
    device that is meant is not this machine's, or one does not fit into its memory.

    Args:
        study: With its trials.
        say: Takes each line of progress.
        measure: In the place of measuring on the device that the study's table is of.
    """
    config = read_config(study)
    if config is None or config.budget.latency is None or config.latencies is None:
        return
    latencies = Latencies(**config.latencies)
    try:
        measure = measure or _on_its_device(latencies)
        for _ in range(_VISITS):
            batch = _next(study, config)
            if not batch:
                break
            say(f"measuring finalists: trials {', '.join(str(row.number) for row in batch)}")
            results = measure([Architecture.parse(row.architecture) for row in batch])
            found = {str(row.number): result.median_ms for row, result in zip(batch, results, strict=True)}
            study.set_user_attr(MEASURED, {**study.user_attrs.get(MEASURED, {}), **found})
            for row, result in zip(batch, results, strict=True):
                say(_line(row, result, config.budget))
    except InputError as error:
        say(f"finalists not measured: {error}")


def _on_its_device(latencies: Latencies) -> Measure:
    conditions = Conditions(**latencies.conditions)
    settings = conditions.settings(seconds=_SECONDS)

    def measure(architectures: Sequence[Architecture]) -> list[Measurement]:
        reference = Architecture.parse(latencies.reference)
        return measure_architectures(
            architectures, settings, conditions.batch, reference, reference_ms=latencies.reference_ms
        )

    return measure


def _next(study: optuna.Study, config: SearchConfig) -> list[TrialRow]:
    """The leaders that have not been measured; none once enough are within the limit."""
    within = [row for row in trial_rows(study, config) if not row.pruned and not row.over_limit][:FINALISTS]
    return [row for row in within if row.measured_ms is None]


def _line(row: TrialRow, result: Measurement, budget: Budget) -> str:
    over = ", over the limit" if budget.latency and result.median_ms * 1e6 > budget.latency else ""
    quartiles = f"{result.lower:.3f} to {result.upper:.3f}"
    told = f"{result.median_ms:.3f} ms measured ({quartiles}), {row.latency_ms:.3f} ms predicted"
    return f"trial {row.number}: {told}{over}"
