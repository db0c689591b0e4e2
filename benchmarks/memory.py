"""Compares the estimated peak memory of inference with the measured one.

    python benchmarks/memory.py --threads 1

All backbones with each of the papers' operators at every block, at their own image sizes, on a CPU or, with
--device, on a GPU. Networks in the output file, of the same versions and device, are not measured again, so
that the benchmark can run in pieces (--backbones). Prints the worst of each backbone, and writes JSON after
every network.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from measured_memory import measured_memory

from nas_recalib.architecture import Architecture, build
from nas_recalib.device import device_name, pick_device, versions
from nas_recalib.errors import InputError
from nas_recalib.networks import backbone_names, get_backbone
from nas_recalib.operators import BlockChoice

RESULTS = Path(__file__).parents[1] / "docs" / "results"
CHOICES = ("vanilla", "scconv", "psconv", "msar", "ab")
BATCHES = (1, 8)


def measure(architecture: Architecture, batch: int, device: torch.device) -> dict[str, Any]:
    """Return a row with the estimated and the measured bytes, and the relative error."""
    size = architecture.input_size
    network = build(architecture).eval().to(device)
    measured = measured_memory(network, torch.zeros(batch, 3, size, size, device=device))
    estimated = architecture.memory(batch, device=device.type)
    return {
        "backbone": architecture.backbone,
        "choice": str(architecture.choices[0]),
        "batch": batch,
        "estimated": estimated,
        "measured": measured,
        "error": estimated / measured - 1,
    }


def start(output: Path, device: torch.device, threads: int) -> dict[str, Any]:
    """Return the content of the file if it is of these versions, device and threads, else without rows."""
    conditions = {"versions": versions(), "device": device_name(device), "threads": threads}
    if output.is_file():
        found: dict[str, Any] = json.loads(output.read_text())
        if all(found.get(key) == value for key, value in conditions.items()):
            return found
    return {"command": "python benchmarks/memory.py", **conditions, "rows": []}


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Return the row with the worst estimate of each backbone."""
    names = dict.fromkeys(row["backbone"] for row in rows)
    worst = (max((r for r in rows if r["backbone"] == n), key=lambda r: abs(r["error"])) for n in names)
    return [line(row) for row in worst]


def line(row: dict[str, Any]) -> str:
    sizes = f"estimated {row['estimated'] / 1e6:9.2f} MB, measured {row['measured'] / 1e6:9.2f} MB"
    return f"{row['backbone']:18}{row['choice']:14}batch {row['batch']}: {sizes}, {row['error']:+.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--backbones", nargs="+", default=backbone_names(), help="backbones to measure (default: all)"
    )
    parser.add_argument("--choices", nargs="+", default=CHOICES, help="choices to take at every block")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="batch sizes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON (default: docs/results/memory-DEVICE.json)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        device = pick_device(arguments.device)
        for name in arguments.backbones:
            get_backbone(name)
        output = arguments.output or RESULTS / f"memory-{device.type}.json"
        if not os.access(output.resolve().parent, os.W_OK):
            raise InputError(f"{output}: cannot be written")
        content = start(output, device, arguments.threads)
        rows = content["rows"]
        done = {(row["backbone"], row["choice"], row["batch"]) for row in rows}
        for name in arguments.backbones:
            for choice in map(BlockChoice.parse, arguments.choices):
                for batch in arguments.batches:
                    if (name, str(choice), batch) in done:
                        continue
                    try:
                        architecture = Architecture.of(name, choice)
                        architecture.cost()
                    except ValueError as error:
                        print(f"left out: {name}, {choice}: {error}", file=sys.stderr)
                        break
                    rows.append(measure(architecture, batch, device))
                    print(line(rows[-1]), file=sys.stderr, flush=True)
                    output.write_text(json.dumps(content, indent=1) + "\n")
    except ValueError as error:
        sys.exit(f"error: {error}")
    print("worst of each backbone:", *summary(rows), sep="\n")


if __name__ == "__main__":
    main()
