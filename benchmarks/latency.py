"""Measures how well latency tables predict networks that they were not made from.

    python benchmarks/latency.py --spaces resnet50 resnet18 --batches 1 8 --architectures 60

For every space and batch size: makes the table or resumes it, draws architectures that are in none of its
rounds, measures each twice alternately with the table's reference, and compares the predictions with the mean
of both measurements. The second measurement against the first shows the noise, below which no prediction can
be judged. Prints a table, writes JSON and an SVG for each case; cases in the JSON are not measured again.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scatter import scatter
from scipy.stats import kendalltau

from nas_recalib.architecture import Architecture
from nas_recalib.device import default_threads, pick_device
from nas_recalib.errors import InputError
from nas_recalib.files import write_atomically
from nas_recalib.latency.conditions import Conditions
from nas_recalib.latency.measure import measure_architectures
from nas_recalib.latency.table import LatencyTable, build_table, default_path, resolve_rounds
from nas_recalib.report.terminal import print_table
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import Position
from nas_recalib.timing.cases import Settings

ROOT = Path(__file__).parents[1]
WITHIN = 0.1
_EVENNESS = 0.1  # of a Dirichlet distribution; two or three of 24 choices make up most of an architecture


@dataclass(frozen=True)
class Case:
    """A latency table, and the architectures that it has to predict."""

    space: SearchSpace
    batch: int
    rounds: int
    architectures: int
    settings: Settings

    def __str__(self) -> str:
        return f"{self.space.name}, batch {self.batch}"

    @property
    def key(self) -> dict[str, Any]:
        """Everything that a result depends on, for JSON."""
        settings = {**asdict(self.settings), "device": str(self.settings.device)}
        return {
            "space": self.space.name,
            "batch": self.batch,
            "architectures": self.architectures,
            "rounds": self.rounds,
            "settings": settings,
            "conditions": Conditions.of(self.settings, self.batch).model_dump(),
        }

    @property
    def steps(self) -> int:
        return self.rounds + 2 * self.architectures


@dataclass
class Countdown:
    """Progress lines on standard error, with an estimate of the time left."""

    cases: Sequence[Case]
    _case: int = 0
    _first: int = 0
    _begun: float = field(default_factory=time.monotonic)

    def begin(self, case: Case, done: int) -> None:
        self._case, self._first, self._begun = self.cases.index(case), done, time.monotonic()

    def report(self, done: int) -> None:
        case = self.cases[self._case]
        each = (time.monotonic() - self._begun) / (done - self._first)
        left = case.steps - done + sum(later.steps for later in self.cases[self._case + 1 :])
        later = " if later cases are as slow" if self._case + 1 < len(self.cases) else ""
        line = f"{case}: {done}/{case.steps}, about {each * left / 60:.1f} min left{later}"
        print(f"case {self._case + 1}/{len(self.cases)}, {line}", file=sys.stderr, flush=True)


def unseen(table: LatencyTable, count: int, seed: int) -> list[Architecture]:
    """Return different architectures that are in no round of the table.

    Each architecture favours a few random choices, so that their latencies differ: where every block is drawn
    independently, sums over many blocks are similar, and noise decides their order.
    """
    space = table.space
    choices = sorted({str(choice) for position in space.positions for choice in position.choices})
    seen = {tuple(measured.indices) for measured in table.rounds}
    if count > space.count() - len(seen):
        raise InputError(f"architectures: {count} are more than the space has outside of the rounds")
    random = np.random.default_rng((seed, 1))
    drawn: list[tuple[int, ...]] = []
    while len(drawn) < count:
        weights = dict(zip(choices, random.dirichlet([_EVENNESS] * len(choices)) + 1e-9, strict=True))
        indices = tuple(_draw_index(position, weights, random) for position in space.positions)
        if indices not in seen:
            seen.add(indices)
            drawn.append(indices)
    return [space.from_indices(indices) for indices in drawn]


def _draw_index(position: Position, weights: dict[str, float], random: np.random.Generator) -> int:
    shares = np.array([weights[str(choice)] for choice in position.choices])
    return int(random.choice(len(shares), p=shares / shares.sum()))


def figures(estimates: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """Return the relative errors of estimates, and the rank correlation with the measurements."""
    errors = [abs(estimate / actual - 1) for estimate, actual in zip(estimates, measured, strict=True)]
    return {
        "median_absolute_error": statistics.median(errors),
        "within_10_percent": sum(error <= WITHIN for error in errors) / len(errors),
        "kendall_tau": float(kendalltau(estimates, measured).statistic),
    }


def measure(case: Case, folder: Path, countdown: Countdown) -> dict[str, Any]:
    """Make the table of a case, and compare its predictions with two measurements."""
    path = default_path(folder, case.space, case.settings, case.batch)
    countdown.begin(case, len(LatencyTable.load_unfinished(path).rounds) if path.exists() else 0)
    table = build_table(
        path,
        case.space,
        case.settings,
        case.batch,
        rounds=case.rounds,
        progress=lambda table: countdown.report(len(table.rounds)),
    )
    architectures = unseen(table, case.architectures, case.settings.seed)
    countdown.begin(case, case.rounds)
    first, second = (
        measure_architectures(
            architectures,
            case.settings,
            case.batch,
            table.reference,
            reference_ms=table.reference_ms,
            passes=1,
            progress=lambda done, _, before=before: countdown.report(case.rounds + before + done),
        )
        for before in (0, case.architectures)
    )
    predicted = [table.predict(architecture) for architecture in architectures]
    once, again = ([found.median_ms for found in measured] for measured in (first, second))
    together = [statistics.mean(both) for both in zip(once, again, strict=True)]
    return {
        **case.key,
        "reference_ms": table.reference_ms,
        "fit": asdict(table.fit),
        "prediction": figures(predicted, together),
        "ceiling": figures(again, once),
        "networks": [
            {"architecture": str(a), "predicted_ms": p, "measured_ms": m, "measured_each_ms": each}
            for a, p, m, *each in zip(architectures, predicted, together, once, again, strict=True)
        ],
    }


def picture(case: Case, result: dict[str, Any]) -> str:
    networks = result["networks"]
    device = result["conditions"]["device"]
    within = result["prediction"]["within_10_percent"]
    return scatter(
        [(network["measured_ms"], network["predicted_ms"]) for network in networks],
        title=f"{case}, {device}: {within:.0%} within 10%",
        x_label="measured, ms",
        y_label="predicted, ms",
        labels=[network["architecture"] for network in networks],
        band=WITHIN,
    )


def show(results: list[dict[str, Any]]) -> Table:
    shown = Table(title="Predicted against measured; in brackets measured again", title_justify="left")
    shown.box, shown.padding, shown.pad_edge = None, (0, 2, 0, 0), False
    for heading in ("space", "batch", "reference ms", "median error", "within 10%", "Kendall's tau"):
        shown.add_column(heading, no_wrap=True)
    for result in results:
        prediction, ceiling = result["prediction"], result["ceiling"]
        shown.add_row(
            *(result["space"], str(result["batch"]), f"{result['reference_ms']:.2f}"),
            f"{prediction['median_absolute_error']:.2%} ({ceiling['median_absolute_error']:.2%})",
            f"{prediction['within_10_percent']:.0%} ({ceiling['within_10_percent']:.0%})",
            f"{prediction['kendall_tau']:.3f} ({ceiling['kendall_tau']:.3f})",
        )
    return shown


def read_results(output: Path) -> list[dict[str, Any]]:
    """Return the cases that an earlier run has written."""
    if not output.exists():
        return []
    try:
        cases = json.loads(output.read_text())["cases"]
        return [case for case in cases if {"space", "batch", "prediction", "ceiling"} <= case.keys()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{output}: not a result of this benchmark") from error


def run(cases: list[Case], folder: Path, output: Path) -> list[dict[str, Any]]:
    """Measure the cases without a result; the file is written after each."""
    results = {(result["space"], result["batch"]): result for result in read_results(output)}
    waiting = [case for case in cases if not _done(case, results.get((case.space.name, case.batch)))]
    countdown = Countdown(waiting)
    for case in waiting:
        result = measure(case, folder, countdown)
        results[case.space.name, case.batch] = result
        content = json.dumps({"cases": list(results.values())}, indent=1) + "\n"
        drawing = output.with_name(f"{output.stem}-{case.space.name}-b{case.batch}.svg")
        write_atomically(drawing, picture(case, result))
        write_atomically(output, content)
    return [results[case.space.name, case.batch] for case in cases]


def _done(case: Case, result: dict[str, Any] | None) -> bool:
    return result is not None and case.key.items() <= result.items()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["resnet50", "resnet18"], metavar="SPACE")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], metavar="N", help="batch sizes")
    parser.add_argument(
        "--architectures", type=int, default=60, help="number to predict and measure in each case"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each table (default: 3 for each choice)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each round and each measurement")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--dtype", default="float32", help="float32, or bfloat16 under autocast")
    parser.add_argument("--compile", action="store_true", help="compile each block")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", type=Path, default=ROOT / "runs" / "latency", help="folder of the tables")
    parser.add_argument("--output", type=Path, help="JSON (default: docs/results/latency-DEVICE.json)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    try:
        device = pick_device(arguments.device)
        if arguments.architectures < 2:
            raise InputError(f"architectures: {arguments.architectures} is less than 2")
        settings = Settings(
            device,
            dtype=arguments.dtype,
            threads=arguments.threads,
            seconds=arguments.seconds,
            compile=arguments.compile,
            seed=arguments.seed,
        )
        spaces = [SearchSpace.load(name) for name in arguments.spaces]
        cases = [
            Case(space, batch, resolve_rounds(space, arguments.rounds), arguments.architectures, settings)
            for space in spaces
            for batch in arguments.batches
        ]
        output = arguments.output or ROOT / "docs" / "results" / f"latency-{device.type}.json"
        if not os.access(output.resolve().parent, os.W_OK):
            raise InputError(f"{output}: cannot be written")
        results = run(cases, arguments.tables, output)
    except InputError as error:
        sys.exit(f"error: {error}")
    print_table(show(results))


if __name__ == "__main__":
    main()
