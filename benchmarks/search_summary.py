"""Summary of many simulated searches: medians over seeds with bootstrap intervals."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

INSTANTS = 40  # instants to evaluate regret at, evenly over the time of a search
_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)

Numbers = NDArray[np.float64]
Combination = tuple[str, str, str]


def summarise(rows: Sequence[dict[str, Any]], references: Sequence[str]) -> list[dict[str, Any]]:
    """Summarise searches by benchmark, strategy and pruner.

    Args:
        rows: Rows of the journal, with the same seeds in the same order for each combination.
        references: Strategies to compare times with, as they are without a pruner.

    Returns:
        One result for each combination; a value that is not finite, such as the median time to something that
        half of the searches do not reach, is None.
    """
    grouped: dict[Combination, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["benchmark"], row["strategy"], row["pruner"]), []).append(row)
    count = min(map(len, grouped.values()))
    draws = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    times = {key: hours_to_top(some) for key, some in grouped.items()}

    def against(key: Combination, reference: str) -> dict[str, float | None] | None:
        other = times.get((key[0], reference, "none"))
        return None if other is None else faster(times[key], other, draws)

    return [
        {
            **dict(zip(("benchmark", "strategy", "pruner"), key, strict=True)),
            "searches": len(some),
            "trials": float(np.median([row["trials"] for row in some])),
            "hours": instants(some).tolist(),
            "regret": median(regrets(some), draws),
            "reached": int(np.isfinite(times[key]).sum()),
            "hours_to_top": median(times[key], draws),
            "trials_to_top": median(trials_to_top(some), draws),
            "faster_than": {name: against(key, name) for name in references},
        }
        for key, some in grouped.items()
    ]


def instants(rows: Sequence[dict[str, Any]]) -> Numbers:
    """Return the hours at which regret is evaluated, (INSTANTS,)."""
    return np.arange(1, INSTANTS + 1) / INSTANTS * max(row["given"] for row in rows) / 3600


def regrets(rows: Sequence[dict[str, Any]]) -> Numbers:
    """Return the regret of each search, (searches, INSTANTS); infinite before its first complete trial."""
    hours = instants(rows)

    def course(steps: Sequence[tuple[float, int, float]]) -> Numbers:
        changes = np.array([seconds / 3600 for seconds, _, _ in steps])
        values = np.array([math.inf, *(regret for _, _, regret in steps)])
        return values[np.searchsorted(changes, hours * (1 + 1e-12), side="right")]

    return np.stack([course(row["steps"]) for row in rows])


def hours_to_top(rows: Sequence[dict[str, Any]]) -> Numbers:
    """Return the hours until each search found one of the best hundredth; infinite where it never did."""
    return np.array([math.inf if row["top"] is None else row["top"][0] / 3600 for row in rows])


def trials_to_top(rows: Sequence[dict[str, Any]]) -> Numbers:
    """The same in trials, pruned ones with them."""
    return np.array([math.inf if row["top"] is None else row["top"][1] for row in rows])


def median(values: Numbers, draws: NDArray[np.int64]) -> dict[str, Any]:
    """Over the first axis, with an interval."""
    low, high = np.percentile(np.median(values[draws], axis=1), _INTERVAL, axis=0, method="nearest")
    return {
        name: _finite(value)
        for name, value in zip(("median", "low", "high"), (np.median(values, axis=0), low, high), strict=True)
    }


def faster(times: Numbers, others: Numbers, draws: NDArray[np.int64]) -> dict[str, float | None]:
    """Return how many times as fast as others, by medians; both have the same seeds, resampled together."""
    with np.errstate(invalid="ignore"):  # both infinite
        ratio = np.median(others) / np.median(times)
        ratios = np.median(others[draws], axis=1) / np.median(times[draws], axis=1)
    low, high = np.percentile(ratios, _INTERVAL, method="nearest")  # not a number where one ratio is
    return {"ratio": _finite(ratio), "low": _finite(low), "high": _finite(high)}


def _finite(value: Any) -> Any:
    """Replace values that are not finite by None, for JSON."""
    if np.ndim(value):
        return [_finite(one) for one in value]
    return float(value) if math.isfinite(value) else None


def headings(seeds: int, trials: int, workers: int) -> str:
    return (
        f"Medians over {seeds} searches, each with the time of {trials} complete trainings on {workers} "
        "simulated workers;\nin brackets 95% intervals. Regret is at the end, in percentage points. The top "
        "is the best hundredth by true quality;\nratios say how many times as fast it is reached as by a "
        "reference without a pruner."
    )


def shown(results: Sequence[dict[str, Any]]) -> Table:
    references = list(results[0]["faster_than"])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    names = [
        "benchmark",
        "strategy",
        "pruner",
        "trials",
        "regret",
        "hours to top",
        "trials to top",
        "reached",
    ]
    for name in (*names, *(f"against {reference}" for reference in references)):
        table.add_column(name, no_wrap=True)
    for row in results:
        regret = {name: values[-1] and 100 * values[-1] for name, values in row["regret"].items()}
        table.add_row(
            *(row[name] for name in ("benchmark", "strategy", "pruner")),
            f"{row['trials']:.0f}",
            _formatted(regret, ".2f"),
            _formatted(row["hours_to_top"], ".2f"),
            _formatted(row["trials_to_top"], ".0f"),
            f"{row['reached']} of {row['searches']}",
            *(_formatted(row["faster_than"][reference], ".2f") for reference in references),
        )
    return table


def _formatted(interval: dict[str, float | None] | None, form: str) -> str:
    """Format a value with its interval, with a dash for what is not finite."""
    if interval is None:
        return "-"
    value, low, high = ("-" if one is None else format(one, form) for one in interval.values())
    return value if value == low == high else f"{value} ({low} to {high})"
