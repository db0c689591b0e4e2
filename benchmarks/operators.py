"""Times every operator against vanilla, and compares the ratios with the project's targets.

    python benchmarks/operators.py
    python benchmarks/operators.py --bare

Layers, blocks and whole networks of ResNet-50's and ResNet-20's shapes, on a GPU if there is one. Prints a
table, and writes JSON after every part.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bare import bare_case
from rich.table import Table

from nas_recalib.device import default_threads, pick_device
from nas_recalib.errors import InputError
from nas_recalib.operators import BlockChoice, psconv_triton
from nas_recalib.report.terminal import print_table
from nas_recalib.timing.cases import MSAR, SIZES, Case, Settings, list_cases
from nas_recalib.timing.run import Mean, Result, geometric_means, report, run

RESULTS = Path(__file__).parents[1] / "docs" / "results"
LAYERS = ("scconv", "psconv", "psconv(pattern=1-2)")
BLOCKS = {sizes: ("scconv", "psconv", MSAR[sizes], "ab", "ab-plus", "se") for sizes in SIZES}
NETWORKS = {sizes: ("scconv", "psconv", MSAR[sizes], "ab") for sizes in SIZES}


@dataclass(frozen=True)
class Part:
    """Cases that are timed with the same settings."""

    set: str
    sizes: str
    mode: str
    choices: tuple[str, ...]
    batch_size: int | None = None

    def cases(self) -> list[Case]:
        return list_cases(self.set, self.sizes, self.choices, mode=self.mode, batch_size=self.batch_size)


@dataclass(frozen=True)
class Target:
    """Upper limit of a choice's time relative to vanilla: of the geometric mean, or of each place."""

    set: str
    sizes: str
    mode: str
    batch: int
    choice: str
    at_most: float
    each: bool = False

    def key(self) -> tuple[object, ...]:
        return (self.set, self.sizes, self.mode, self.batch, str(BlockChoice.parse(self.choice)))


TRAINED = (
    *(Part("layers", sizes, "train", LAYERS) for sizes in SIZES),
    *(Part("blocks", sizes, "train", BLOCKS[sizes]) for sizes in SIZES),
)
INFERENCE = tuple(Part("networks", sizes, "forward", NETWORKS[sizes]) for sizes in SIZES)
PARTS = {
    "cpu": (*TRAINED, *INFERENCE),
    "cuda": (
        *TRAINED,
        *INFERENCE,
        Part("networks", "imagenet", "train", NETWORKS["imagenet"], batch_size=128),
    ),
}
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
TARGETS = {
    "cpu": (
        Target("layers", "imagenet", "train", 32, "psconv", 1.25),
        Target("layers", "imagenet", "train", 32, "scconv", 1.05),
        Target("blocks", "imagenet", "train", 32, "ab", 1.05),
        Target("blocks", "imagenet", "train", 32, MSAR["imagenet"], 1.05),
        Target("blocks", "cifar", "train", 128, "ab", 1.05),
        Target("blocks", "cifar", "train", 128, MSAR["cifar"], 1.25),
        Target("blocks", "cifar", "train", 128, "scconv", 1.60),
        Target("blocks", "cifar", "train", 128, "psconv", 1.60),
        Target("networks", "imagenet", "forward", 8, "psconv", 1.10),
        Target("networks", "imagenet", "forward", 8, "scconv", 1.00),
        Target("networks", "imagenet", "forward", 8, "ab", 1.03),
        Target("networks", "imagenet", "forward", 8, MSAR["imagenet"], 1.08),
        Target("networks", "imagenet", "forward", 1, MSAR["imagenet"], 1.25),
    ),
    "cuda": (
        Target("layers", "imagenet", "train", 32, "psconv", 1.10, each=True),  # all of 64 channels or more
        Target("networks", "imagenet", "train", 128, "psconv", 1.03),
    ),
}


def measure(
    parts: list[Part], settings: Settings, change: Callable[[Case], Case]
) -> Iterator[tuple[Settings, list[Result]]]:
    """Time part by part, each case after `change`; print a line for each case to standard error."""
    for number, part in enumerate(parts, start=1):
        part_settings = replace(settings, mode=part.mode)
        cases = [change(case) for case in part.cases()]
        results = []
        for result in run(cases, part_settings):
            results.append(result)
            ratio = result.times.ratio().median
            done = f"part {number}/{len(parts)}, {len(results)}/{len(cases)}"
            print(f"{done}: {result.case}, {part.mode}: {ratio:.3f}", file=sys.stderr, flush=True)
        yield part_settings, results


def compare(means: list[tuple[str, Mean]], targets: tuple[Target, ...]) -> list[dict[str, Any]]:
    """Return every mean with its mode, and its target where there is one."""
    by_key = {target.key(): target for target in targets}
    rows = []
    for mode, mean in means:
        target = by_key.get((mean.set, mean.sizes, mode, mean.batch, mean.choice))
        rows.append({"mode": mode, **asdict(mean), "target": target and judge(mean, target)})
    return rows


def judge(mean: Mean, target: Target) -> dict[str, object]:
    reached = mean.worst if target.each else mean.ratio
    of = "each place" if target.each else "geometric mean"
    return {"at_most": target.at_most, "of": of, "met": reached <= target.at_most}


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ("set", "sizes", "mode", "batch", "choice", "places", "ratio", "worst", "at most", "of", "met")
    for heading in headings:
        shown.add_column(heading, no_wrap=True)
    for row in rows:
        target = row["target"] or {"at_most": "", "of": "", "met": None}
        shown.add_row(
            *(str(row[key]) for key in ("set", "sizes", "mode", "batch", "choice", "places")),
            *(f"{row[key]:.3f}" for key in ("ratio", "worst")),
            *(str(target[key]) for key in ("at_most", "of")),
            {True: "yes", False: "no", None: ""}[target["met"]],
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--sizes", choices=("imagenet", "cifar"), help="image sizes to time (default: both)")
    parser.add_argument("--batch-size", type=int, help="batch size of every case, for a quick look")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each pair")
    parser.add_argument(
        "--bare",
        action="store_true",
        help="time only the operators' convolutions: a lower bound (see bare.py)",
    )
    parser.add_argument(
        "--output", type=Path, help="JSON (default: docs/results/operators[-bare]-DEVICE.json)"
    )
    arguments = parser.parse_args()
    psconv_triton.ENABLED = True
    try:
        device = pick_device(arguments.device)
        dtype = DTYPES[device.type]
        settings = Settings(device, dtype=dtype, threads=arguments.threads, seconds=arguments.seconds)
        parts = [
            replace(part, batch_size=arguments.batch_size or part.batch_size)
            for part in PARTS[device.type]
            if arguments.sizes in (None, part.sizes)
        ]
        name = f"operators-bare-{device.type}" if arguments.bare else f"operators-{device.type}"
        output = arguments.output or RESULTS / f"{name}.json"
        if not os.access(output.resolve().parent, os.W_OK):
            raise InputError(f"{output}: cannot be written")
        content: dict[str, Any] = {"summary": [], "parts": []}
        means: list[tuple[str, Mean]] = []
        for part_settings, results in measure(parts, settings, bare_case if arguments.bare else lambda c: c):
            means += [(part_settings.mode, mean) for mean in geometric_means(results)]
            content["parts"].append(report(results, part_settings))
            content["summary"] = compare(means, TARGETS[device.type])
            output.write_text(json.dumps(content, indent=2) + "\n")
    except InputError as error:
        sys.exit(f"error: {error}")
    first = content["parts"][0]
    what = "Time of the bare calls" if arguments.bare else "Time"
    title = f"{what} against vanilla: {first['device']}, {dtype}, {settings.memory_format}"
    print_table(table(title, content["summary"]))


if __name__ == "__main__":
    main()
