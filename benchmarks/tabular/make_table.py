"""Trainer of the tabular benchmark: every architecture of a small space, packed into one file.

    python benchmarks/tabular/make_table.py --data folder:/data/cifar10 --jobs 2

Run the same command again to resume after an interruption; nothing is trained twice. All architectures are
trained with one seed, and every eighth of a random order with a second one.
"""

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tabular.journal import commit, open_journal
from tabular.table import INDICES, Indices, Run, Table, every_architecture, gather, row_of, spread_of_costs

from nas_recalib.architecture import Architecture
from nas_recalib.cli.output import cache_folder
from nas_recalib.costs import format_quantity
from nas_recalib.data import open_source
from nas_recalib.device import default_threads, device_name, fast_dtype, pick_device, versions
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.files import require_writable
from nas_recalib.proxy.fidelity import Fidelity, find_fidelity
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.pool import default_jobs, run_in_processes
from nas_recalib.proxy.train import Epoch
from nas_recalib.proxy.trainer import Loader, Trainer, refuse_misfits
from nas_recalib.report.terminal import duration
from nas_recalib.space import SearchSpace

HERE = Path(__file__).parent
JOURNALS = Path("runs") / "tabular"
RECIPE = {"gate_fan": "fan_out", "evaluated": "raw"}  # as in version 0.1, which made the table


def all_trainings(space: SearchSpace, every: int, seed: int) -> list[tuple[Indices, int]]:
    """Return indices and seed of each training: all architectures in a random order, then some again."""
    indices = every_architecture(space)
    order = [indices[index] for index in np.random.default_rng(seed).permutation(len(indices))]
    return [*((one, seed) for one in order), *((one, seed + 1) for one in order[::every])]


@dataclass(frozen=True)
class Setup:
    """Setup of a worker process.

    Attributes:
        images: Loader of the images.
        fidelity: Fidelity of the trainings.
        device: Name of the device.
        dtype: Name of the data type of convolutions.
        threads: Number of CPU threads of a training.
        first: Architecture to train before any is timed.
    """

    images: Loader
    fidelity: Fidelity
    device: str
    dtype: str
    threads: int
    first: str


_setup: Setup
_trainer: Trainer


def begin(setup: Setup) -> None:
    """Set up a worker process, with one training before any is timed, since the first is slow."""
    global _setup, _trainer
    _setup = setup
    given = {"dtype": setup.dtype, "threads": setup.threads}
    _trainer = Trainer(setup.images, setup.device, **given, recipe=RECIPE)
    _trainer.train(Architecture.parse(setup.first), replace(setup.fidelity, epochs=1), seed=0)
    _trainer.data(setup.fidelity)


def train(indices: Indices, architecture: str, seed: int) -> tuple[Indices, Run]:
    """Train an architecture and time its epochs.

    On a CPU the seconds are processor time, which other processes do not lengthen.
    """
    clock = time.process_time if _trainer.device.type == "cpu" else time.monotonic
    ends, curve = [clock()], []

    def note(epoch: Epoch) -> bool:
        ends.append(clock())
        curve.append(epoch)
        return False

    outcome = _trainer.train(Architecture.parse(architecture), _setup.fidelity, seed, note)
    failure = None
    if isinstance(outcome, Failure):
        if outcome.kind == "error":
            raise StopSearch(f"{architecture}: {outcome.details}")
        failure = outcome.kind
        ends.append(clock())
    return indices, Run(
        seed=seed,
        accuracies=tuple(round(epoch.accuracy, 6) for epoch in curve),
        losses=tuple(round(epoch.loss, 5) for epoch in curve),
        seconds=tuple(np.diff(ends).round(3).tolist()),
        failure=failure,
    )


def make(space: SearchSpace, arguments: argparse.Namespace) -> Table:
    """Run the trainings that are not in the journal yet.

    Raises:
        InputError: If an option is not valid, or the journal was started with other options.
        StopSearch: If a worker process dies.
    """
    device = pick_device(arguments.device)
    source = open_source(arguments.data, cache_folder(None))
    fidelity = find_fidelity(arguments.fidelity, space, source, device)
    refuse_misfits(space, fidelity)
    images = Loader(source.spec, cache_folder(None), "refuse", arguments.seed)
    split = images.load(fidelity).split  # decoded once, before several processes read it
    dtype = str(fast_dtype(device)).removeprefix("torch.")
    first = str(space.from_indices((0,) * len(space.positions)))
    setup = Setup(images, fidelity, str(device), dtype, arguments.threads, first)
    header = {
        "space": space.describe(),
        "fidelity": fidelity.as_dict(),
        "data": source.spec.partition(":")[0],
        "data_hash": source.fingerprint(),
        "split_hash": split,
        "dtype": setup.dtype,
        "threads": setup.threads,
        "seed": arguments.seed,
    }
    jobs = arguments.jobs or default_jobs(device, setup.threads)
    here = {"device": device_name(device, setup.threads), "jobs": jobs}
    origin = {**here, "versions": versions(), "commit": commit()}
    wanted = all_trainings(space, arguments.every, arguments.seed)
    say(describe(space))
    with open_journal(arguments.journal or JOURNALS / f"{space.name}.jsonl", header) as journal:
        done = {(tuple(row[INDICES]), row["seed"]) for row in journal.rows}
        missing = [
            (indices, str(space.from_indices(indices)), seed)
            for indices, seed in wanted
            if (indices, seed) not in done
        ]
        say(f"{len(wanted)} trainings, of which {len(missing)} are left; {origin['device']}")
        start, before = time.monotonic(), len(journal.rows)

        def keep(result: tuple[Indices, Run]) -> None:
            journal.add(row_of(*result, origin))
            count = len(journal.rows) - before
            rest = (time.monotonic() - start) / count * (len(missing) - count)
            say(f"{count}/{len(missing)}: {describe_run(result[1])}; about {duration(rest)} left")

        run_in_processes(train, missing, keep, jobs=jobs, initializer=begin, initargs=(setup,))
        return gather(space, header, journal.rows, wanted)


def describe_run(run: Run) -> str:
    return run.failure or f"accuracy {run.accuracies[-1]:.4f} in {sum(run.seconds):.1f} s"


def describe(space: SearchSpace) -> str:
    """Describe the number of networks of a space and the distribution of their costs."""
    indices = every_architecture(space)
    costs = spread_of_costs(space, indices)
    spreads = (
        f"{name} from {format_quantity(low)} to {format_quantity(high)}, median {format_quantity(median)}"
        for name, (low, _, median, _, high) in costs.items()
    )
    operators = dict.fromkeys(str(choice) for position in space.positions for choice in position.choices)
    return (
        f"{space.name}: {len(indices)} different networks of {', '.join(operators)}, "
        f"gates drawn by {RECIPE['gate_fan']}; {'; '.join(spreads)}"
    )


def summarise(table: Table, size: int) -> str:
    runs = [run for found in table.runs.values() for run in found]
    seeds = Counter(len(found) for found in table.runs.values())
    failed = sum(run.failure is not None for run in runs)
    return (
        f"{len(table.runs)} networks, {seeds[2]} of them with a second seed, {failed} trainings failed; "
        f"{table.seconds:.1f} s each; best {table.best:.4f}, best hundredth from {table.top:.4f}; "
        f"{size:,} bytes"
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="as `nas-recalib search --data` takes it")
    parser.add_argument("--space", default=str(HERE / "space.yaml"), help="name or file")
    parser.add_argument("--fidelity", default=str(HERE / "fidelity.yaml"), help="name or file")
    parser.add_argument("--every", type=int, default=8, help="train each Nth with a second seed")
    parser.add_argument(
        "--jobs", type=int, help="trainings at once (default: as many as there are threads for)"
    )
    parser.add_argument("--threads", type=int, default=default_threads(), help="CPU threads of a training")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, help="results so far (default: runs/tabular/SPACE.jsonl)")
    parser.add_argument("--output", type=Path, help="packed (default: benchmarks/tabular/SPACE.json.gz)")
    parser.add_argument("--count", action="store_true", help="only say how many networks there are")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    try:
        for name in ("every", "threads", "jobs"):
            value = getattr(arguments, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: {value} is not at least 1")
        space = SearchSpace.load(arguments.space)
        if arguments.count:
            print(describe(space))
            return
        output = arguments.output or HERE / f"{space.name}.json.gz"
        require_writable(output)
        table = make(space, arguments)
        print(summarise(table, table.pack(output)))
    except InputError as error:
        sys.exit(f"error: {error}")
    except StopSearch as error:
        sys.exit(f"stopped: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
