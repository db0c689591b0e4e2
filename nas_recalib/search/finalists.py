"""The finalists of a search under a latency limit, measured for real."""

from collections.abc import Callable, Sequence

import optuna

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.latency import Measured, measure_architectures
from nas_recalib.latency.conditions import Conditions
from nas_recalib.pricing import Latencies
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.place import read_config
from nas_recalib.study.sound import MEASURED
from nas_recalib.study.summary import TrialRow, trial_rows

FINALISTS = 3
_VISITS = 3
_SECONDS = 2.0

Measure = Callable[[Sequence[Architecture]], list[Measured]]


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

    def measure(architectures: Sequence[Architecture]) -> list[Measured]:
        reference = Architecture.parse(latencies.reference)
        return measure_architectures(
            architectures, settings, conditions.batch, reference, reference_ms=latencies.reference_ms
        )

    return measure


def _next(study: optuna.Study, config: SearchConfig) -> list[TrialRow]:
    """The leaders that have not been measured; none once enough are within the limit."""
    within = [row for row in trial_rows(study, config) if not row.pruned and not row.over][:FINALISTS]
    return [row for row in within if row.measured_ms is None]


def _line(row: TrialRow, result: Measured, budget: Budget) -> str:
    over = ", over the limit" if budget.latency and result.median_ms * 1e6 > budget.latency else ""
    quartiles = f"{result.lower:.3f} to {result.upper:.3f}"
    told = f"{result.median_ms:.3f} ms measured ({quartiles}), {row.latency_ms:.3f} ms predicted"
    return f"trial {row.number}: {told}{over}"
