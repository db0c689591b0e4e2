"""Benchmark of every strategy with every pruner, with recorded trainings and in simulated time.

    python benchmarks/search.py --jobs 2

Searches run on the tabular benchmark of tabular/make_table.py, and on synthetic functions of 16 blocks, one
for each seed. Every search has the time of the same number of complete trainings. Results are the regret
over simulated hours, the time until the best architecture found is among the best hundredth, and the speed
relative to random search. Run the same command again to resume after an interruption. Prints a table and
writes JSON and a chart.
"""

import argparse
import hashlib
import json
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import optuna
from search_chart import chart
from search_summary import headings, shown, summarise
from tabular.journal import open_journal
from tabular.simulator import ALL_STRATEGIES, Benchmark, Point, simulate
from tabular.synthetic import synthetic
from tabular.table import Table

import nas_recalib.search
from nas_recalib.device import versions
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.files import require_writable
from nas_recalib.proxy.pool import run_in_processes
from nas_recalib.report.terminal import print_table
from nas_recalib.search.pruning import PRUNERS

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results"
TABLE = HERE / "tabular" / "resnet20-stage.json.gz"
BENCHMARKS = ("tabular", "synthetic")
REFERENCES = ("random", "mutation")  # strategies to compare others with, without a pruner

Key = tuple[int, str, str, str]  # seed, benchmark, strategy and pruner
_load_table = cache(Table.load)


def find_benchmark(name: str, table: Path, seed: int) -> Benchmark:
    return _load_table(table) if name == "tabular" else synthetic(seed)


def begin() -> None:
    """Silence Optuna in a worker process."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def search(
    benchmark: str, strategy: str, pruner: str, seed: int, table: Path, trials: int, workers: int
) -> dict[str, Any]:
    """Run one search and return its row for the journal."""
    instance = find_benchmark(benchmark, table, seed)
    seconds = trials * instance.seconds / workers
    points = simulate(instance, strategy, pruner, seed, workers=workers, seconds=seconds)
    key = {"benchmark": benchmark, "strategy": strategy, "pruner": pruner, "seed": seed}
    return {**key, "given": seconds, **summary_of(points, instance)}


def summary_of(points: list[Point], benchmark: Benchmark) -> dict[str, Any]:
    """Return the steps at which the best result changed, with its regret, and when it was in the top."""
    steps, top, last = [], None, None
    for point in points:
        if point.quality is None:
            continue
        if point.quality != last:
            steps.append([point.seconds, point.trials, benchmark.best - point.quality])
        if top is None and point.quality >= benchmark.top:
            top = [point.seconds, point.trials]
        last = point.quality
    return {"trials": points[-1].trials if points else 0, "steps": steps, "top": top}


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the searches that are not in the journal yet.

    Returns:
        Rows of the journal with the same number of seeds, so that slow strategies can be run separately.

    Raises:
        InputError: If the table cannot be read, or the journal was started with other options.
        StopSearch: If a worker process dies.
    """
    keys = list(
        product(range(arguments.seeds), arguments.benchmarks, arguments.strategies, arguments.pruners)
    )
    for benchmark in arguments.benchmarks:
        find_benchmark(benchmark, arguments.table, 0)
    header = {
        "trials": arguments.trials,
        "workers": arguments.workers,
        "table": fingerprint(arguments.table) if arguments.table.exists() else None,
        "search": fingerprint(*sorted(Path(nas_recalib.search.__file__).parent.rglob("*.py"))),
        "versions": versions(),
    }
    with open_journal(arguments.journal, header) as journal:
        done = {_key(row): row for row in journal.rows}
        given = (arguments.table, arguments.trials, arguments.workers)
        missing = [(name, *how, seed, *given) for seed, name, *how in keys if (seed, name, *how) not in done]
        print(f"{len(keys)} searches, of which {len(missing)} are left", file=sys.stderr, flush=True)

        def keep(row: dict[str, Any]) -> None:
            journal.add(row)
            done[_key(row)] = row
            count = sum(key in done for key in keys)
            if count % 20 == 0 or count == len(keys):
                print(f"{count}/{len(keys)}", file=sys.stderr, flush=True)

        run_in_processes(search, missing, keep, jobs=arguments.jobs, initializer=begin)
    return [done[key] for key in sorted(done, key=_order) if _is_complete(done, key, arguments.seeds)]


def _is_complete(done: dict[Key, dict[str, Any]], key: Key, seeds: int) -> bool:
    """Whether all seeds of the combination that a search belongs to have been run."""
    return key[0] < seeds and all((seed, *key[1:]) in done for seed in range(seeds))


def _order(key: Key) -> tuple[int, ...]:
    seed, *names = key
    lists = (BENCHMARKS, tuple(ALL_STRATEGIES), tuple(PRUNERS))
    return (*(one.index(name) for one, name in zip(lists, names, strict=True)), seed)


def _key(row: dict[str, Any]) -> Key:
    return row["seed"], row["benchmark"], row["strategy"], row["pruner"]


def fingerprint(*paths: Path) -> str:
    """Return a hash of the contents of files."""
    return hashlib.sha256(b"|".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--benchmarks", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--table", type=Path, default=TABLE, help="the packed tabular benchmark")
    parser.add_argument("--strategies", nargs="+", choices=ALL_STRATEGIES, default=list(ALL_STRATEGIES))
    parser.add_argument("--pruners", nargs="+", choices=PRUNERS, default=list(PRUNERS))
    parser.add_argument("--seeds", type=int, default=50, help="searches of each")
    parser.add_argument("--trials", type=int, default=100, help="complete trainings a search has time for")
    parser.add_argument("--workers", type=int, default=1, help="simulated workers")
    parser.add_argument("--jobs", type=int, default=1, help="searches to run at once")
    parser.add_argument("--journal", type=Path, default=Path("runs") / "search-benchmark.jsonl")
    parser.add_argument("--output", type=Path, default=RESULTS / "search.json", help="JSON; .svg beside it")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    chart_path = arguments.output.with_suffix(".svg")
    try:
        for name, least in (("seeds", 2), ("trials", 1), ("workers", 1), ("jobs", 1)):
            if getattr(arguments, name) < least:
                raise InputError(f"{name}: {getattr(arguments, name)} is not at least {least}")
        require_writable(arguments.output)
        rows = measure(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except StopSearch as error:
        sys.exit(f"stopped: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    results = summarise(rows, REFERENCES)
    content = {
        "command": " ".join(["python", "benchmarks/search.py", *sys.argv[1:]]),
        "versions": versions(),
        **{name: getattr(arguments, name) for name in ("seeds", "trials", "workers")},
        "results": results,
    }
    arguments.output.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    chart_path.write_text(chart(results))
    print(headings(arguments.seeds, arguments.trials, arguments.workers))
    print_table(shown(results))


if __name__ == "__main__":
    main()
