"""The leaders of a search, trained again with new seeds before one of them is called best."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna

from nas_recalib.architecture import Architecture
from nas_recalib.errors import StopSearch
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.report.terminal import duration
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.confirmation import keep_confirmation
from nas_recalib.study.summary import TrialRow, leaders, trial_rows


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
        keep_confirmation(study, row.number, seed, result)
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
