"""Shows how well tables of latencies predict networks that they were not made from.

    python benchmarks/latency.py --spaces resnet50 resnet18 --batches 1 8 --architectures 60

For every space and batch: makes the table, or goes on with the one there is; draws architectures that were in
none of its rounds; measures each twice, beside the table's reference; and compares predictions with the mean
of both. Beside it, the second measurement against the first: the noise, in which a prediction's last errors
cannot be told. Prints a table, writes JSON and one SVG a case; what the JSON has already is not measured
again.
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
from nas_recalib.latency import LatencyTable, build_table, default_path, measure_architectures, rounds_for
from nas_recalib.latency.conditions import Conditions
from nas_recalib.report.terminal import print_table
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import Position
from nas_recalib.timing import Settings

ROOT = Path(__file__).parents[1]
WITHIN = 0.1
_EVENNESS = 0.1  # of a Dirichlet distribution; two or three of 24 choices make up most of an architecture


@dataclass(frozen=True)
class Case:
    """One table, and the architectures that it is to predict."""

    space: SearchSpace
    batch: int
    rounds: int
    architectures: int
    settings: Settings

    def __str__(self) -> str:
        return f"{self.space.name}, batch {self.batch}"

    @property
    def key(self) -> dict[str, Any]:
        """What a result is a result of, for JSON."""
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
    """Tells on standard error what is done, and about how long the rest will take."""

    cases: Sequence[Case]
    _case: int = 0
    _first: int = 0
    _begun: float = field(default_factory=time.monotonic)

    def begin(self, case: Case, done: int) -> None:
        self._case, self._first, self._begun = self.cases.index(case), done, time.monotonic()

    def tell(self, done: int) -> None:
        case = self.cases[self._case]
        each = (time.monotonic() - self._begun) / (done - self._first)
        left = case.steps - done + sum(later.steps for later in self.cases[self._case + 1 :])
        told = f"{case}: {done}/{case.steps}, about {each * left / 60:.1f} min left"
        later = ", should later cases be as slow" if self._case + 1 < len(self.cases) else ""
        print(f"case {self._case + 1}/{len(self.cases)}, {told}{later}", file=sys.stderr, flush=True)


def unseen(table: LatencyTable, count: int, seed: int) -> list[Architecture]:
    """Architectures that are in no round of the table, all different.

    Each favours a few choices, others each time, so that they lie apart: where every block is drawn by
    itself, sums over many blocks are much alike, and their order is that of the noise.
    """
    space = table.space
    choices = sorted({str(choice) for position in space.positions for choice in position.choices})
    seen = {tuple(done.indices) for done in table.rounds}
    if count > space.count() - len(seen):
        raise InputError(f"architectures: {count} are more than there are outside of the rounds")
    random = np.random.default_rng((seed, 1))
    drawn: list[tuple[int, ...]] = []
    while len(drawn) < count:
        liking = dict(zip(choices, random.dirichlet([_EVENNESS] * len(choices)) + 1e-9, strict=True))
        indices = tuple(_pick(position, liking, random) for position in space.positions)
        if indices not in seen:
            seen.add(indices)
            drawn.append(indices)
    return [space.from_indices(indices) for indices in drawn]


def _pick(position: Position, liking: dict[str, float], random: np.random.Generator) -> int:
    weights = np.array([liking[str(choice)] for choice in position.choices])
    return int(random.choice(len(weights), p=weights / weights.sum()))


def figures(estimates: Sequence[float], measured: Sequence[float]) -> dict[str, float]:
    """How far estimates are from what was measured, and how alike their order is."""
    errors = [abs(estimate / told - 1) for estimate, told in zip(estimates, measured, strict=True)]
    return {
        "median_absolute_error": statistics.median(errors),
        "within_10_percent": sum(error <= WITHIN for error in errors) / len(errors),
        "kendall_tau": float(kendalltau(estimates, measured).statistic),
    }


def measure(case: Case, folder: Path, countdown: Countdown) -> dict[str, Any]:
    """Makes the table of a case, and sets its predictions beside two measurements."""
    path = default_path(folder, case.space, case.settings, case.batch)
    countdown.begin(case, len(LatencyTable.load_unfinished(path).rounds) if path.exists() else 0)
    table = build_table(
        path,
        case.space,
        case.settings,
        case.batch,
        rounds=case.rounds,
        progress=lambda made: countdown.tell(len(made.rounds)),
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
            progress=lambda done, _, before=before: countdown.tell(case.rounds + before + done),
        )
        for before in (0, case.architectures)
    )
    predicted = [table.predict(architecture) for architecture in architectures]
    once, again = ([told.median_ms for told in measured] for measured in (first, second))
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
    told = result["prediction"]
    return scatter(
        [(network["measured_ms"], network["predicted_ms"]) for network in networks],
        title=f"{case}, {device}: {told['within_10_percent']:.0%} within 10%",
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
        told, most = result["prediction"], result["ceiling"]
        shown.add_row(
            *(result["space"], str(result["batch"]), f"{result['reference_ms']:.2f}"),
            f"{told['median_absolute_error']:.2%} ({most['median_absolute_error']:.2%})",
            f"{told['within_10_percent']:.0%} ({most['within_10_percent']:.0%})",
            f"{told['kendall_tau']:.3f} ({most['kendall_tau']:.3f})",
        )
    return shown


def read_results(output: Path) -> list[dict[str, Any]]:
    """What an earlier run has written."""
    if not output.exists():
        return []
    try:
        cases = json.loads(output.read_text())["cases"]
        return [case for case in cases if {"space", "batch", "prediction", "ceiling"} <= case.keys()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{output}: not a result of this benchmark") from error


def run(cases: list[Case], folder: Path, output: Path) -> list[dict[str, Any]]:
    """Measures what has not been measured yet; writes after every case."""
    results = {(told["space"], told["batch"]): told for told in read_results(output)}
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
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], metavar="N")
    parser.add_argument(
        "--architectures", type=int, default=60, help="to predict and to measure, in each case"
    )
    parser.add_argument("--rounds", type=int, help="of each table (default: 3 for every choice)")
    parser.add_argument("--seconds", type=float, default=1.0, help="spent on each round and each measurement")
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
            Case(space, batch, rounds_for(space, arguments.rounds), arguments.architectures, settings)
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
