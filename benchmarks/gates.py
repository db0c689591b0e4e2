"""Compares recalibrations as version 0.1 had them with those of the papers, by training ResNet-20.

    python benchmarks/gates.py --data folder:/data/cifar10

Accuracy Booster with its gates drawn by fan-out and by fan-in; MS-SAR without and with the batch norm before
its sigmoid, at D' = D / L and at the width of the paper's tables; and vanilla. After an interruption or a
crash the same command resumes, and no training is done twice. Prints a table, writes JSON.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tabular.journal import commit, open_journal

from nas_recalib.architecture import Architecture
from nas_recalib.cli.output import cache_folder
from nas_recalib.data import open_source
from nas_recalib.device import default_threads, device_name, fast_dtype, pick_device, versions
from nas_recalib.errors import InputError
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.trainer import Loader, Trainer

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NETWORKS = {
    "vanilla": ("vanilla", "fan_in"),
    "AB before": ("ab", "fan_out"),
    "AB": ("ab", "fan_in"),
    "MS-SAR before": ("msar(norm=hidden)", "fan_out"),
    "MS-SAR, r = 1": ("msar", "fan_in"),
    "MS-SAR, r = 3": ("msar(reduction=3)", "fan_in"),
}
PAIRS = (("AB", "AB before"), ("MS-SAR, r = 3", "MS-SAR before"), ("MS-SAR, r = 1", "MS-SAR before"))


def train_all(arguments: argparse.Namespace, fidelity: Fidelity) -> dict[str, Any]:
    """Train the networks and seeds that the journal lacks, and return all measurements."""
    device = pick_device(arguments.device)
    dtype = str(fast_dtype(device)).removeprefix("torch.")
    source = open_source(arguments.data, cache_folder(None))
    images = Loader(source.spec, cache_folder(None), "refuse", seed=0)
    header = {
        "data": source.spec.partition(":")[0],
        "data_hash": source.fingerprint(),
        "split_hash": images.load(fidelity).split,
        "fidelity": fidelity.as_dict(),
        "dtype": dtype,
        "threads": arguments.threads,
        "device": device_name(device, arguments.threads),
        "versions": versions(),
    }
    wanted = [(name, seed) for seed in range(arguments.seeds) for name in arguments.networks]
    with open_journal(arguments.journal, header) as journal:
        done = {(row["network"], row["seed"]) for row in journal.rows}
        for name, seed in wanted:
            if (name, seed) in done:
                continue
            choice, gate_fan = NETWORKS[name]
            recipe = {"gate_fan": gate_fan, "evaluated": "raw"}
            trainer = Trainer(images, str(device), dtype=dtype, threads=arguments.threads, recipe=recipe)
            begun = time.process_time()
            curve = trainer.train(Architecture.of("resnet20", choice), fidelity, seed)
            if isinstance(curve, Failure):
                raise InputError(f"{name}, seed {seed}: {curve.message}")
            row = {
                "network": name,
                "seed": seed,
                "commit": commit(),
                "accuracies": [round(epoch.accuracy, 6) for epoch in curve],
                "losses": [round(epoch.loss, 5) for epoch in curve],
                "cpu_seconds": round(time.process_time() - begun, 1),
            }
            journal.add(row)
            print(f"{name}, seed {seed}: {row['accuracies'][-1]:.4f}", file=sys.stderr, flush=True)
        return {**header, "runs": [row for row in journal.rows if (row["network"], row["seed"]) in wanted]}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and deviation of each network's last epoch, and the differences of equal seeds."""
    ends: dict[str, dict[int, float]] = {run["network"]: {} for run in runs}
    for run in runs:
        ends[run["network"]][run["seed"]] = run["accuracies"][-1]
    networks = {
        name: {
            "choice": NETWORKS[name][0],
            "gate_fan": NETWORKS[name][1],
            "params": Architecture.of("resnet20", NETWORKS[name][0]).cost().params,
            "macs": Architecture.of("resnet20", NETWORKS[name][0]).cost().macs,
            "mean": statistics.fmean(by_seed.values()),
            "deviation": statistics.stdev(by_seed.values()) if len(by_seed) > 1 else None,
        }
        for name, by_seed in ends.items()
    }
    differences = {
        f"{after} less {before}": [round(ends[after][seed] - ends[before][seed], 4) for seed in ends[after]]
        for after, before in PAIRS
        if after in ends and before in ends
    }
    return {"networks": networks, "differences": differences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="as `nas-recalib search --data` takes it")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--validation", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument(
        "--journal", type=Path, default=Path("runs/gates.jsonl"), help="file of finished trainings"
    )
    parser.add_argument("--output", type=Path, help="JSON (default: docs/results/gates-DEVICE.json)")
    arguments = parser.parse_args()
    output = arguments.output or RESULTS / f"gates-{pick_device(arguments.device).type}.json"
    fidelity = Fidelity(arguments.images, arguments.validation, 16, 1.0, arguments.epochs)
    try:
        require_writable(output)
        found = train_all(arguments, fidelity)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    summary = summarise(found["runs"])
    write_atomically(output, json.dumps({**found, **summary}, indent=2) + "\n")
    for name, network in summary["networks"].items():
        spread = "" if network["deviation"] is None else f" +/- {network['deviation']:.4f}"
        print(f"{name:15} {network['mean']:.4f}{spread} ({network['params'] / 1e3:.1f}k params)")
    for name, each in summary["differences"].items():
        print(f"{name}: {statistics.fmean(each):+.4f} ({', '.join(f'{d:+.4f}' for d in each)})")


if __name__ == "__main__":
    main()
