"""Time the costs, counts and draws of a search under a budget, on one core.

    python benchmarks/budget.py

Also times thop's count of a single architecture where thop is installed, and compares the costs of random
architectures, evenly from all spaces, with a direct count of their whole networks. Prints a table and writes
JSON.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from nas_recalib.architecture import Architecture, build
from nas_recalib.costs import Budget, CostTable, Feasible, count_cost
from nas_recalib.device import device_name, versions
from nas_recalib.errors import InputError
from nas_recalib.report.terminal import print_table
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import space_names

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def one_core() -> None:
    """Restrict this process to one core where the system supports it."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the median time of a call over the rounds, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measure(
    table: CostTable, budget: Budget, count: int, draws: int, seed: int, rounds: int
) -> dict[str, float]:
    """Return the seconds for `count` costs and for preparing a budget, and the draws per second."""
    random = np.random.default_rng(seed)
    indices = np.stack([random.integers(len(rows), size=count) for rows in table.entries], axis=1)
    feasible = Feasible(table, budget)
    fitting = feasible.count()
    return {
        "architectures": count,
        "seconds_for_their_costs": seconds(lambda: table.costs(indices), rounds),
        "seconds_of_set_up": seconds(lambda: Feasible(table, budget).count(), rounds),
        "within_budget": fitting,
        "draws_a_second": draws / seconds(lambda: feasible.sample_many(draws, random), rounds),
        "seconds_for_one_nearest": seconds(lambda: feasible.repair(indices[0].tolist(), random), 20 * rounds),
    }


def thop_seconds(space: SearchSpace, rounds: int) -> float | None:
    """Return the seconds of thop's count of one network, or None without thop."""
    try:
        import thop
    except ImportError:
        return None
    sizes = {"input_size": space.input_size, "num_classes": space.num_classes}
    network = build(Architecture.of(space.backbone, "vanilla", **sizes)).eval()
    image = torch.zeros(1, 3, space.input_size, space.input_size)
    return seconds(lambda: thop.profile(network, (image,), verbose=False), rounds)


def differing(count: int, seed: int) -> int:
    """Return how many random architectures, evenly from all spaces, cost other than their whole networks."""
    names = space_names()
    random = np.random.default_rng(seed)
    found = 0
    for index in range(count):
        space = SearchSpace.load(names[index % len(names)])
        indices = tuple(int(random.integers(len(position.choices))) for position in space.positions)
        architecture = space.from_indices(indices)
        with torch.device("meta"):
            network = architecture.shape.build(architecture.blocks, space.num_classes, 3)
        counted = count_cost(network, (1, 3, space.input_size, space.input_size))
        found += space.table.cost(indices) != vars(counted)
    return found


def shown(result: dict[str, Any]) -> Table:
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rows.add_column("what", no_wrap=True)
    rows.add_column("seen", justify="right", no_wrap=True)
    rows.add_row(
        f"costs of {result['architectures']:,} architectures", f"{result['seconds_for_their_costs']:.4f} s"
    )
    rows.add_row("set-up for counting and drawing", f"{result['seconds_of_set_up']:.4f} s")
    rows.add_row("draws per second", f"{result['draws_a_second']:,.0f}")
    rows.add_row("repair of one proposal", f"{1000 * result['seconds_for_one_nearest']:.3f} ms")
    rows.add_row(
        f"architectures of {result['counted_directly']} whose cost is not that of the network",
        str(result["counted_differently"]),
    )
    if result["seconds_of_thop_for_one"] is not None:
        rows.add_row("thop, one architecture", f"{result['seconds_of_thop_for_one']:.4f} s")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--space", default="resnet50", help="name or file")
    parser.add_argument("--budget", default="4G", help="limit on multiply-accumulates")
    parser.add_argument("--params", help="limit on parameters")
    parser.add_argument("--count", type=int, default=100_000, help="architectures to cost")
    parser.add_argument("--draws", type=int, default=20_000, help="architectures to draw")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that the median is taken over")
    parser.add_argument("--direct", type=int, default=300, help="architectures counted on whole networks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "budget-cpu.json")
    arguments = parser.parse_args()
    try:
        if min(arguments.count, arguments.draws, arguments.rounds) < 1:
            raise InputError("count, draws and rounds: each is at least 1")
        if not os.access(arguments.output.resolve().parent, os.W_OK):
            raise InputError(f"{arguments.output}: cannot be written")
        space = SearchSpace.load(arguments.space)
        budget = Budget.parse(arguments.budget, arguments.params)
        Feasible(space.table, budget)  # refuses a budget that no architecture is within
    except InputError as error:
        sys.exit(f"error: {error}")
    one_core()
    content = {
        "command": " ".join(["python", "benchmarks/budget.py", *sys.argv[1:]]),
        "versions": {**versions(), "numpy": version("numpy"), "python": platform.python_version()},
        "device": device_name(torch.device("cpu")),
        "seed": arguments.seed,
        "space": space.name,
        "budget": str(budget),
        "rounds": arguments.rounds,
        **measure(space.table, budget, arguments.count, arguments.draws, arguments.seed, arguments.rounds),
        "counted_directly": arguments.direct,
        "counted_differently": differing(arguments.direct, arguments.seed),
        "seconds_of_thop_for_one": thop_seconds(space, arguments.rounds),
    }
    arguments.output.write_text(json.dumps(content, indent=2) + "\n")
    print(f"{space.name} under {budget}: {content['device']}")
    print_table(shown(content))


if __name__ == "__main__":
    main()
