"""Time the training of a search's trials, and compare it with the project's targets.

    python benchmarks/proxy.py --data folder:/data/cifar10

It measures four things: images per second in each setting of the loop, compared with an ordinary recipe with
torchvision's transforms (plain_recipe.py), which also gets decoded pixels and a process that keeps freed
memory; the overhead of the loop over its steps; the fraction of the device's peak, as large matrix products
reach it; and seconds of trials at each named fidelity, extrapolated from short pieces or, with --whole, of
whole trials. Prints tables and writes JSON.
"""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from proxy_sides import Side, Slice, list_sides, seconds_of
from proxy_trials import time_ladder
from rich.table import Table

from nas_recalib.architecture import Architecture
from nas_recalib.cli.output import cache_folder
from nas_recalib.data import open_source
from nas_recalib.device import device_name, pick_device, versions
from nas_recalib.errors import InputError
from nas_recalib.files import require_writable, write_atomically
from nas_recalib.report.terminal import print_table
from nas_recalib.space import SearchSpace
from nas_recalib.timing.cases import Settings, configure_torch
from nas_recalib.timing.paired import Ratio, Times

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FASTER = {"cpu": 3.0, "cuda": 10.0}  # least speed-up over the plain recipe
LOOP = 1.03  # greatest time relative to training on one fixed batch
QUICK = 20.0  # greatest seconds of a quick trial on two cores of a CPU
REST = 0.2  # seconds between timings, in which loader processes refill their queues


def interleave(sides: list[Side], rounds: int, device: torch.device) -> tuple[list[float], Times]:
    """Return the seconds of each side's first run, and of each in every round, in alternating order."""
    first = [seconds_of(side.run, device) for side in sides]
    done: list[tuple[float, ...]] = []
    while len(done) < rounds:
        taken = dict.fromkeys(range(len(sides)), 0.0)
        for index in sorted(taken, reverse=len(done) % 2 == 1):
            time.sleep(REST)
            sides[index].prepare()
            taken[index] = seconds_of(sides[index].run, device)
        done.append(tuple(taken.values()))
        print(f"round {len(done)}/{rounds}: {sum(done[-1]):.1f} s", file=sys.stderr, flush=True)
    return first, Times(tuple(done), iterations=1)


def compare(sides: list[Side], first: list[float], times: Times, images: int) -> dict[str, Any]:
    """Return each training side compared with the plain recipe and with the peak of its dtype."""
    names = [side.name for side in sides]
    plain = names.index("plain recipe")
    peaks = {side.dtype: index for index, side in enumerate(sides) if side.name.endswith(" product")}

    def row(index: int) -> dict[str, Any]:
        side, peak = sides[index], peaks[sides[index].dtype]
        share = side.macs / sides[peak].macs
        return {
            "name": side.name,
            "first_run_seconds": first[index],
            "seconds": times.medians[index],
            "images_a_second": images / times.medians[index],
            "against_plain": asdict(ratio(times, plain, index)),
            "share_of_peak": asdict(ratio(times, peak, index, factor=share)),
        }

    trained = [index for index in range(len(sides)) if index not in peaks.values()]
    rates = {
        str(dtype).removeprefix("torch."): sides[i].macs / times.medians[i] for dtype, i in peaks.items()
    }
    return {
        "macs_a_run": sides[plain].macs,
        "peak_macs_a_second": rates,
        "sides": [row(index) for index in trained],
        "loop_against_fixed_batch": asdict(ratio(times, 0, names.index("one fixed batch"))),
        "rounds_seconds": dict(zip(names, zip(*times.rounds, strict=True), strict=True)),
    }


def ratio(times: Times, over: int, under: int, factor: float = 1.0) -> Ratio:
    """Return the ratio of two sides' seconds over the rounds, times a factor."""
    pairs = tuple((taken[under], factor * taken[over]) for taken in times.rounds)
    return Times(pairs, times.iterations).ratio()


def judge(result: dict[str, Any], device: torch.device) -> list[dict[str, Any]]:
    """Return each target with the measured value, and whether it is met."""
    faster = result["sides"][0]["against_plain"]["median"]
    loop = result["loop_against_fixed_batch"]["median"]
    quick = [row for row in result["trials"] if row["fidelity"] == "quick" and device.type == "cpu"]
    return [
        _aim("images a second against the plain recipe", faster, "at_least", FASTER[device.type]),
        _aim("the loop against one fixed batch", loop, "at_most", LOOP),
        *(
            _aim(f"seconds of a quick trial, {row['space']}", row["seconds"], "at_most", QUICK)
            for row in quick
        ),
    ]


def _aim(what: str, seen: float, bound: str, value: float) -> dict[str, Any]:
    met = seen >= value if bound == "at_least" else seen <= value
    return {"what": what, "seen": seen, bound: value, "met": met}


def tables(result: dict[str, Any]) -> list[Table]:
    def quartiles(ratio: dict[str, float], form: str) -> str:
        median, lower, upper = (format(ratio[key], form) for key in ("median", "lower", "upper"))
        return f"{median} ({lower} to {upper})"

    headings = ("side", "images/s", "against plain", "share of peak", "first run s")
    sides = _table("Training, the setting of searches first; quartiles in brackets", *headings)
    for row in result["sides"]:
        ratios = (quartiles(row["against_plain"], ".2f"), quartiles(row["share_of_peak"], ".1%"))
        rate, first = f"{row['images_a_second']:,.0f}", f"{row['first_run_seconds']:.1f}"
        sides.add_row(row["name"], rate, *ratios, first)
    trials = _table("Trials", "space", "fidelity", "images", "epochs", "seconds", "an hour")
    for row in result["trials"]:
        settings = (row["space"], row["fidelity"], row["images"] or "all", row["epochs"])
        trials.add_row(*map(str, settings), f"{row['seconds']:.1f}", f"{row['trials_an_hour']:,.0f}")
    targets = _table("Targets", "what", "seen", "aimed at", "met")
    for row in result["targets"]:
        bound = f"at least {row['at_least']:g}" if "at_least" in row else f"at most {row['at_most']:g}"
        targets.add_row(row["what"], f"{row['seen']:.3f}", bound, "met" if row["met"] else "not met")
    return [sides, trials, targets]


def _table(title: str, *headings: str) -> Table:
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        shown.add_column(heading, no_wrap=True)
    return shown


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="data set, as for `nas-recalib search --data`")
    parser.add_argument("--backbone", default="resnet20", help="backbone that the comparison trains")
    parser.add_argument("--choice", default="vanilla", help="choice at each of its blocks")
    parser.add_argument("--resolution", type=int, default=32, help="side of its images, in pixels")
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--workers", type=int, default=2, help="processes of the plain recipe's loader")
    parser.add_argument("--steps", type=int, default=30, help="steps of a round and of a piece")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also time compiled blocks; needs minutes of set-up, less with warm caches",
    )
    parser.add_argument(
        "--spaces", nargs="*", default=["resnet20", "resnet50"], help="spaces to time trials of"
    )
    parser.add_argument("--architectures", type=int, default=4, help="architectures drawn from each space")
    parser.add_argument("--whole", action="store_true", help="run whole trials")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON (default: docs/results/proxy-DEVICE.json)")
    return parser.parse_args()


def check(arguments: argparse.Namespace, output: Path) -> None:
    """Raise InputError for arguments out of range and an output that cannot be written."""
    least = {"batch": 2, "workers": 1, "steps": 1, "rounds": 2, "architectures": 1, "resolution": 8}
    for name, bound in least.items():
        if getattr(arguments, name) < bound:
            raise InputError(f"{name}: {getattr(arguments, name)} is not at least {bound}")
    require_writable(output)


def cut(arguments: argparse.Namespace, num_classes: int) -> Slice:
    """Return the training that each side does in a round."""
    sizes = {"input_size": arguments.resolution, "num_classes": num_classes}
    try:
        architecture = Architecture.of(arguments.backbone, arguments.choice, **sizes)
        piece = Slice(architecture, arguments.batch, arguments.steps, arguments.workers, arguments.compile)
        piece.macs()
    except ValueError as error:
        raise InputError(str(error)) from error
    return piece


def measure(arguments: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Time everything and return the results."""
    spaces = [SearchSpace.load(name) for name in arguments.spaces]
    source = open_source(arguments.data, cache_folder(None))
    piece = cut(arguments, len(source.classes))
    configure_torch(settings)
    sides = list_sides(piece, source, settings)
    first, times = interleave(sides, arguments.rounds, settings.device)
    compared = compare(sides, first, times, piece.images)
    del sides  # and the loader's workers with them
    trials = [
        row
        for space in spaces
        for row in time_ladder(
            space, source, settings, arguments.architectures, arguments.steps, whole=arguments.whole
        )
    ]
    return {"data": source.spec, "architecture": str(piece.architecture), **compared, "trials": trials}


def main() -> None:
    arguments = parse()
    try:
        device = pick_device(arguments.device)
        output = arguments.output or RESULTS / f"proxy-{device.type}.json"
        check(arguments, output)
        settings = Settings(device, mode="train", threads=arguments.threads, seed=arguments.seed)
        result = measure(arguments, settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    recorded = ("batch", "steps", "rounds", "workers", "threads", "seed")
    content = {
        "command": " ".join(["python", "benchmarks/proxy.py", *sys.argv[1:]]),
        "versions": {**versions(), "python": platform.python_version()},
        "device": device_name(device),
        **{name: getattr(arguments, name) for name in recorded},
        "targets": judge(result, device),
        **result,
    }
    write_atomically(output, json.dumps(content, indent=2) + "\n")
    print(content["device"])
    for shown in tables(content):
        print_table(shown)


if __name__ == "__main__":
    main()
