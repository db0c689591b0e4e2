"""Confirmation of a search's leaders: training with new seeds, and latency measured on the device."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import optuna

from nas_recalib.architecture import Architecture
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

FINALISTS = 3
_ROUNDS = 3  # of measuring, where finalists turn out to be over the limit
_SECONDS = 2.0  # of measuring one architecture

Measure = Callable[[Sequence[Architecture]], list[Measurement]]


def confirm_leaders(
    study: optuna.Study, config: SearchConfig, proxy: Proxy, seeds: int, say: Callable[[str], None]
) -> None:
    """Train every leader with new seeds, on the same images and the same split.

    Each result is stored in the study at once, and stored results are not trained again. A leader that
    diverges is replaced by the next one. All leaders are trained with one seed before the next seed, so that
    results are comparable after an interruption.

    Args:
        study: Study with the trials.
        config: Configuration of the study.
        proxy: Proxy that trained the trials.
        seeds: Number of new seeds, which follow the seed of the study.
        say: Function that takes each line of progress.

    Raises:
        StopSearch: If a training fails for another reason than divergence.
    """
    if missing := _missing(study, config, seeds):
        total = duration(sum(row.seconds for row, _ in missing))
        say(f"confirming the leaders, new seeds for each: {seeds}; trainings: {len(missing)}, about {total}")
    while missing:
        row, seed = missing[0]
        result = _train_again(row, replace(proxy, seed=seed))
        write_confirmation(study, row.number, seed, result)
        outcome = result["failure"] if "failure" in result else f"accuracy {result['accuracy']:.4f}"
        missing = _missing(study, config, seeds)
        say(f"trial {row.number}, seed {seed}: {outcome}, {result['seconds']:.0f} s, {len(missing)} left")


def _train_again(row: TrialRow, proxy: Proxy) -> dict[str, Any]:
    """Train the architecture of a trial and return the result to store: accuracy or failure, and seconds."""
    start = time.monotonic()
    result = proxy.train(Architecture.parse(row.architecture), lambda _: False)
    seconds = round(time.monotonic() - start, 2)
    if not isinstance(result, Failure):
        return {"accuracy": result[-1].accuracy, "seconds": seconds}
    if result.kind == "diverged":
        return {"failure": result.kind, "seconds": seconds}
    message = f"confirming trial {row.number}, seed {proxy.seed}: {result.kind}: {result.message}"
    raise StopSearch(f"{message}\n{result.details}".strip())


def _missing(study: optuna.Study, config: SearchConfig, seeds: int) -> list[tuple[TrialRow, int]]:
    """Return the leaders and seeds that have not been trained, in the order of training."""
    chosen = leaders(trial_rows(study, config))
    return [
        (row, seed)
        for seed in range(config.seed + 1, config.seed + 1 + seeds)
        for row in chosen
        if row.confirmation is None or seed not in row.confirmation.accuracies
    ]


def measure_finalists(
    study: optuna.Study, say: Callable[[str], None], measure: Measure | None = None
) -> None:
    """Measure the latency of the three leading trials, and of those that replace one over the limit.

    Latencies are stored in the study. Nothing is measured where latency is not limited. Where this machine
    does not have the device of the latency table, or too little memory, that is said and nothing stored.

    Args:
        study: Study with the trials.
        say: Function that takes each line of progress.
        measure: Function that measures architectures (default: on the device of the study's latency table).
    """
    config = read_config(study)
    if config is None or config.budget.latency is None or config.latencies is None:
        return
    latencies = Latencies(**config.latencies)
    try:
        measure = measure or _measure_on_device(latencies)
        for _ in range(_ROUNDS):
            leading = [row for row in trial_rows(study, config) if not row.pruned and not row.over_limit]
            rows = [row for row in leading[:FINALISTS] if row.measured_ms is None]
            if not rows:
                break
            say(f"measuring finalists: trials {', '.join(str(row.number) for row in rows)}")
            results = measure([Architecture.parse(row.architecture) for row in rows])
            medians = {str(row.number): result.median_ms for row, result in zip(rows, results, strict=True)}
            study.set_user_attr(MEASURED, {**study.user_attrs.get(MEASURED, {}), **medians})
            for row, result in zip(rows, results, strict=True):
                over = ", over the limit" if result.median_ms * 1e6 > config.budget.latency else ""
                measured = f"{result.median_ms:.3f} ms measured ({result.lower:.3f} to {result.upper:.3f})"
                say(f"trial {row.number}: {measured}, {row.latency_ms:.3f} ms predicted{over}")
    except InputError as error:
        say(f"finalists not measured: {error}")


def _measure_on_device(latencies: Latencies) -> Measure:
    conditions = Conditions(**latencies.conditions)
    return partial(
        measure_architectures,
        settings=conditions.settings(seconds=_SECONDS),
        batch=conditions.batch,
        reference=Architecture.parse(latencies.reference),
        reference_ms=latencies.reference_ms,
    )
