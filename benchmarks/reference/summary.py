"""Summary of the reference set: noise, spread and ceiling, convergence, and how early its end shows.

    python benchmarks/reference/summary.py

Reads the journal of train_reference.py, finished or not, prints tables and writes JSON.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from nas_recalib.correlation.rank_correlation import noise_ceiling, rank_correlation
from nas_recalib.errors import InputError
from nas_recalib.files import require_writable, write_atomically

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "docs" / "results"
CURVES = ("accuracies", "val_losses", "raw_accuracies", "raw_val_losses")
SEEDS = 2  # that every network has
LAST = 0.1  # fraction of the training in which little should change

Rows = Sequence[Mapping[str, Any]]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the complete trainings of a journal.

    Raises:
        InputError: If there is no journal, or it holds no training.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; run train_reference.py to make it") from error
    rows = [json.loads(line) for line in lines[1:]]
    if not rows:
        raise InputError(f"{path}: holds no training yet")
    return rows


def by_network(rows: Rows, curve: str, epoch: int = -1) -> dict[str, list[float]]:
    """Return the values of each network after an epoch, by seed in order; greater is better."""
    sign = -1.0 if "loss" in curve else 1.0
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        values.setdefault(row["network"], {})[row["seed"]] = sign * row[curve][epoch]
    return {name: [found[seed] for seed in sorted(found)] for name, found in values.items()}


def summarise(rows: Rows) -> dict[str, Any]:
    """Return means by network, the noise ceiling of each curve's end, convergence, and early epochs."""
    groups = {row["network"]: row["group"] for row in rows}
    accuracies, losses = by_network(rows, "accuracies"), by_network(rows, "val_losses")
    epochs = len(rows[0]["accuracies"])
    before = epochs - 1 - max(1, round(LAST * epochs))
    change = [row["accuracies"][-1] - row["accuracies"][before] for row in rows]
    networks = {
        name: {
            "group": groups[name],
            "seeds": len(values),
            "accuracy": round(statistics.fmean(values), 5),
            "deviation": round(statistics.stdev(values), 5) if len(values) > 1 else None,
            "val_loss": round(-statistics.fmean(losses[name]), 5),
        }
        for name, values in accuracies.items()
    }
    result = {"trainings": len(rows), "last_tenth": round(statistics.fmean(change), 5), "networks": networks}
    repeated = [name for name, values in accuracies.items() if len(values) >= SEEDS]
    if len(repeated) < 3:
        return result
    return {
        **result,
        "ceilings": {curve: asdict(_ceiling(rows, curve, repeated)) for curve in CURVES},
        "early": {
            curve: [asdict(_early(rows, curve, epoch, repeated)) for epoch in range(epochs)]
            for curve in CURVES
        },
    }


def _ceiling(rows: Rows, curve: str, names: Sequence[str]) -> Any:
    ends = by_network(rows, curve)
    return noise_ceiling([ends[name][:SEEDS] for name in names], seed=0)


def _early(rows: Rows, curve: str, epoch: int, names: Sequence[str]) -> Any:
    """Return tau of one seed after an epoch with the accuracy of the other seed at the end."""
    early, ends = by_network(rows, curve, epoch), by_network(rows, "accuracies")
    return rank_correlation([early[name][0] for name in names], [ends[name][1] for name in names], seed=0).tau


def show(summary: Mapping[str, Any]) -> None:
    """Print the networks from best to worst, then ceilings and convergence."""
    print(f"{'network':14} {'group':8} {'accuracy':>17} {'loss':>7} {'seeds':>5}")
    ranked = sorted(summary["networks"].items(), key=lambda item: -item[1]["accuracy"])
    for name, network in ranked:
        spread = "" if network["deviation"] is None else f" ± {network['deviation']:.4f}"
        accuracy = f"{network['accuracy']:.4f}{spread}"
        print(
            f"{name:14} {network['group']:8} {accuracy:>17} {network['val_loss']:7.4f} {network['seeds']:5}"
        )
    print(
        f"{summary['trainings']} trainings; the last tenth adds {100 * summary['last_tenth']:.2f} points of "
        "accuracy on average"
    )
    for curve, ceiling in summary.get("ceilings", {}).items():
        expected, between = ceiling["expected"], ceiling["between_seeds"]
        print(
            f"{curve}: ceiling of tau {expected['value']:.2f} ({expected['low']:.2f} to "
            f"{expected['high']:.2f}), between seeds {between['value']:.2f}, deviation of a seed "
            f"{ceiling['seed_std']:.4f}, of networks {ceiling['architecture_std']:.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--journal", type=Path, default=HERE / "resnet20.jsonl")
    parser.add_argument("--output", type=Path, default=RESULTS / "reference-resnet20.json")
    arguments = parser.parse_args()
    try:
        require_writable(arguments.output)
        summary = summarise(read_rows(arguments.journal))
    except InputError as error:
        sys.exit(f"error: {error}")
    write_atomically(arguments.output, json.dumps(summary, indent=2) + "\n")
    show(summary)


if __name__ == "__main__":
    main()
