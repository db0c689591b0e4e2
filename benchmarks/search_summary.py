"""What many simulated searches come to: medians over seeds with bootstrap intervals."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

INSTANTS = 40  # at which regret is told, evenly over the time that a search is given
_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)

Numbers = NDArray[np.float64]
Combination = tuple[str, str, str]


def summarise(rows: Sequence[dict[str, Any]], references: Sequence[str]) -> list[dict[str, Any]]:
    """One result for each benchmark, strategy and pruner.

    Args:
        rows: Of searches; for each combination as many, with the same seeds in the same order.
        references: Strategies that times are held against, those that were run without a pruner.

    Returns:
        What is unknown, such as the time to something that half of the searches do not reach, is None.
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
    """Hours at which regret is told, (INSTANTS,)."""
    return np.arange(1, INSTANTS + 1) / INSTANTS * max(row["given"] for row in rows) / 3600


def regrets(rows: Sequence[dict[str, Any]]) -> Numbers:
    """Of each search's best so far, (searches, INSTANTS); infinite while it has none."""
    hours = instants(rows)

    def course(steps: Sequence[tuple[float, int, float]]) -> Numbers:
        changes = np.array([seconds / 3600 for seconds, _, _ in steps])
        values = np.array([math.inf, *(regret for _, _, regret in steps)])
        return values[np.searchsorted(changes, hours * (1 + 1e-12), side="right")]

    return np.stack([course(row["steps"]) for row in rows])


def hours_to_top(rows: Sequence[dict[str, Any]]) -> Numbers:
    """Until each search's best is among the best hundredth; infinite where it never is."""
    return np.array([math.inf if row["top"] is None else row["top"][0] / 3600 for row in rows])


def trials_to_top(rows: Sequence[dict[str, Any]]) -> Numbers:
    """The same in trials, pruned ones with them."""
    return np.array([math.inf if row["top"] is None else row["top"][1] for row in rows])


def median(values: Numbers, draws: NDArray[np.int64]) -> dict[str, Any]:
    """Over the first axis, with an interval."""
    low, high = np.percentile(np.median(values[draws], axis=1), _INTERVAL, axis=0, method="nearest")
    return {
        name: _known(told)
        for name, told in zip(("median", "low", "high"), (np.median(values, axis=0), low, high), strict=True)
    }


def faster(times: Numbers, others: Numbers, draws: NDArray[np.int64]) -> dict[str, float | None]:
    """How many times as fast as others, by medians; both have the same seeds, which are drawn together."""
    with np.errstate(invalid="ignore"):  # neither gets there
        ratio = np.median(others) / np.median(times)
        ratios = np.median(others[draws], axis=1) / np.median(times[draws], axis=1)
    low, high = np.percentile(ratios, _INTERVAL, method="nearest")  # unknown where one ratio is
    return {"ratio": _known(ratio), "low": _known(low), "high": _known(high)}


def _known(value: Any) -> Any:
    """As JSON takes it."""
    if np.ndim(value):
        return [_known(one) for one in value]
    return float(value) if math.isfinite(value) else None


def headings(seeds: int, trials: int, workers: int) -> str:
    return (
        f"Medians over {seeds} searches, each with the time of {trials} whole trainings on {workers} "
        "simulated workers;\nin brackets 95% intervals. Regret is at the end, in percentage points. The top "
        "is the truly best hundredth;\nratios tell how many times as fast it is reached as without a pruner."
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
        regret = {name: told[-1] and 100 * told[-1] for name, told in row["regret"].items()}
        table.add_row(
            *(row[name] for name in ("benchmark", "strategy", "pruner")),
            f"{row['trials']:.0f}",
            _written(regret, ".2f"),
            _written(row["hours_to_top"], ".2f"),
            _written(row["trials_to_top"], ".0f"),
            f"{row['reached']} of {row['searches']}",
            *(_written(row["faster_than"][reference], ".2f") for reference in references),
        )
    return table


def _written(told: dict[str, float | None] | None, form: str) -> str:
    """A value with its interval; what is unknown is a dash."""
    if told is None:
        return "-"
    value, low, high = ("-" if one is None else format(one, form) for one in told.values())
    return value if value == low == high else f"{value} ({low} to {high})"
