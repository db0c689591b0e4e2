"""The tabular benchmark, trained on a few digits, and searches simulated on synthetic tables."""

import argparse
import gzip
import importlib
import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

from nas_recalib.errors import InputError
from nas_recalib.proxy.objective import Failure
from nas_recalib.space import SearchSpace

FOLDER = Path(__file__).parents[2] / "benchmarks"
SPACE = """
name: small
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv]
recalibration: [none]
proxy: {width: 0.25}
"""
LARGER = SPACE.replace("[none]", "[none, se, ab]")
TINY = "images: 60\nvalidation: 20\nresolution: 8\nepochs: 2\n"
NAMES = ("journal", "table", "make_table", "simulator", "synthetic")


@pytest.fixture(scope="module")
def modules():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sys.path.insert(0, str(FOLDER))  # as running a script there does
    before = set(sys.modules)
    yield argparse.Namespace(**{name: importlib.import_module(f"tabular.{name}") for name in NAMES})
    while str(FOLDER) in sys.path:
        sys.path.remove(str(FOLDER))
    for name in [name for name in sys.modules if name.startswith("tabular") and name not in before]:
        del sys.modules[name]


@pytest.fixture
def small():
    return SearchSpace.parse(SPACE, "small")


@pytest.fixture(scope="module")
def larger():
    return SearchSpace.parse(LARGER, "larger")


def made_up(modules, space, *, seconds=(1.0, 1.0), seed=0, noise=0.0):
    """Return a table with one or two seeds for every architecture, all with the same seconds."""
    random = np.random.default_rng(seed)

    def runs():
        quality = random.uniform(0.3, 0.8)
        for number in range(random.integers(1, 3)):
            end = quality + noise * random.normal()
            curve = [end * (1 + epoch) / len(seconds) for epoch in range(len(seconds))]
            yield modules.table.Run(number, tuple(curve), tuple(1 - one for one in curve), tuple(seconds))

    header = {"space": space.describe(), "fidelity": {"epochs": len(seconds)}}
    choices = (range(len(position.choices)) for position in space.positions)
    found = {indices: tuple(runs()) for indices in itertools.product(*choices)}
    return modules.table.Table(space, header, ({"device": "none"},), found)


def test_the_space_has_many_networks_and_all_operators(modules):
    space = SearchSpace.load(FOLDER / "tabular" / "space.yaml")
    networks = {space.from_indices(indices) for indices in modules.table.every_architecture(space)}
    assert len(networks) == space.count() >= 500
    for position in space.positions:
        taken = {
            part.name for choice in position.choices for part in (choice.convolution, choice.recalibration)
        }
        assert taken >= {"scconv", "psconv", "msar", "ab", "vanilla", "none"}
    low, *_, high = modules.table.spread_of_costs(space, list(map(space.indices_of, networks)))["macs"]
    assert (low, high) == (_extreme(space, min), _extreme(space, max))


def _extreme(space, choose):
    indices = tuple(
        int(choose(range(len(rows)), key=lambda i, r=rows: r[i, 0])) for rows in space.table.entries
    )
    return space.from_indices(indices).cost().macs


def test_a_journal_keeps_complete_rows_and_is_locked(modules, tmp_path):
    path, opened = tmp_path / "new" / "j.jsonl", modules.journal.open_journal
    with opened(path, {"seed": 1, "sizes": (2, 3)}) as journal:
        journal.add({"a": 1})
        with pytest.raises(InputError, match="another process writes to it"), opened(path, {}):
            pass
    with path.open("ab") as file:
        file.write(b'{"a": 2, "b')
    with opened(path, {"sizes": (2, 3), "seed": 1}) as journal:
        assert journal.rows == [{"a": 1}]
        journal.add({"a": 3})
    assert path.read_text().splitlines()[1:] == ['{"a": 1}', '{"a": 3}']
    with pytest.raises(InputError, match="was started with another seed: 1, not 2"):
        opened(path, {"seed": 2, "sizes": [2, 3]}).__enter__()
    path.write_text("a list\n")
    with pytest.raises(InputError, match="jsonl:1: not a row of a journal"):
        opened(path, {}).__enter__()


def test_a_packed_table_is_loaded_unchanged(modules, small, tmp_path):
    table = made_up(modules, small, noise=0.1)
    failed = modules.table.Run(5, (0.25,), (2.0,), (1.5, 0.25), 0, "diverged")
    table.runs[0, 1, 0] = (*table.runs[0, 1, 0], failed)
    size = table.pack(tmp_path / "t.json.gz")
    assert size == (tmp_path / "t.json.gz").stat().st_size
    assert modules.table.Table.load(tmp_path / "t.json.gz") == table
    table.pack(tmp_path / "again.json.gz")
    assert (tmp_path / "again.json.gz").read_bytes() == (tmp_path / "t.json.gz").read_bytes()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "not found; run benchmarks/tabular/make_table.py to make it"),
        (b"plain", "cannot be read as a packed table"),
        (gzip.compress(b"[1, 2", mtime=0)[:-4], "cannot be read as a packed table"),
        (gzip.compress(b'{"format": "other"}', mtime=0), "is not of the format nas-recalib/tabular/1"),
    ],
)
def test_other_files_are_refused(modules, tmp_path, content, complaint):
    path = tmp_path / "t.json.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        modules.table.Table.load(path)


def test_quality_is_the_mean_of_seeds_and_the_top_is_its_best_hundredth(modules, larger):
    table = made_up(modules, larger, noise=0.05)
    ends = {indices: [run.accuracies[-1] for run in runs] for indices, runs in table.runs.items()}
    assert {indices: table.quality(indices) for indices in ends} == pytest.approx(
        {indices: np.mean(some) for indices, some in ends.items()}
    )
    ranked = sorted(map(table.quality, ends), reverse=True)
    assert len(ranked) == 6**3
    assert (table.best, table.top) == (ranked[0], ranked[2])
    twice = next(indices for indices, runs in table.runs.items() if len(runs) == 2)
    seen = [table.observe(twice, seed) for seed in range(20)]
    assert set(seen) == set(table.runs[twice])
    assert seen == [table.observe(twice, seed) for seed in range(20)]
    broken = {**table.runs, twice: (table.runs[twice][0], replace(seen[0], failure="diverged"))}
    assert replace(table, runs=broken).quality(twice) == ends[twice][0]


def command(folder, *options):
    """Return a command on a space of eight networks, two of which get a second seed."""
    files = [f"--{name}={folder / name}.yaml" for name in ("space", "fidelity")]
    quick = ["--data=digits", "--device=cpu", "--threads=1", "--jobs=1", "--seed=3", "--every=4"]
    script = FOLDER / "tabular" / "make_table.py"
    return [sys.executable, script, *quick, *files, f"--output={folder}/out.json.gz", *options]


def run_in_this_process(do, tasks, keep, *, initializer, initargs=(), **_):
    initializer(*initargs)
    for task in tasks:
        keep(do(*task))


def kill(modules, folder, journal):
    with subprocess.Popen(command(folder), cwd=folder, stderr=subprocess.DEVNULL) as process:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert process.poll() is None, "it ended too early"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


def interrupt(modules, folder, journal):
    def some(do, tasks, keep, **others):
        run_in_this_process(do, itertools.islice(tasks, 2), keep, **others)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr("sys.argv", [str(part) for part in command(folder)[1:]])
        patched.setattr(modules.make_table, "run_in_processes", some)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            modules.make_table.main()


@pytest.mark.parametrize("end", [interrupt, pytest.param(kill, marks=pytest.mark.soak)])
def test_a_killed_run_is_resumed_and_trains_nothing_twice(modules, tmp_path, monkeypatch, capsys, end):
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "fidelity.yaml").write_text(TINY)
    journal = tmp_path / "runs/tabular/small.jsonl"
    end(modules, tmp_path, journal)
    capsys.readouterr()
    before = journal.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    journal.write_bytes(before + b'{"picks": [0, 1')
    assert before.count(b"\n") < 11, "killed in the middle"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(part) for part in command(tmp_path)[1:]])
    monkeypatch.setattr(
        modules.make_table, "run_in_processes", run_in_this_process
    )  # a second process would start slowly
    modules.make_table.main()
    output = capsys.readouterr()
    assert "small: 8 different networks of vanilla, scconv, gates drawn by fan_out; macs from" in output.err
    assert output.out.startswith("8 networks, 2 of them with a second seed, 0 trainings failed; ")

    assert journal.read_bytes().startswith(before)
    header, *rows = map(json.loads, journal.read_text().splitlines())
    trained = [(tuple(row["picks"]), row["seed"]) for row in rows]
    assert len(trained) == len(set(trained)) == 8 + 2
    assert {indices for indices, seed in trained if seed == 3} == set(itertools.product((0, 1), repeat=3))
    assert sum(seed == 4 for _, seed in trained) == 2
    assert header["fidelity"] == {"images": 60, "validation": 20, "resolution": 8, "width": 0.25, "epochs": 2}
    origin = {"device", "jobs", "versions", "commit"}
    assert all(row["origin"].keys() == origin and min(row["seconds"]) > 0 for row in rows)

    table = modules.table.Table.load(tmp_path / "out.json.gz")
    trained_runs = {(indices, run.seed): run for indices, runs in table.runs.items() for run in runs}
    assert {key: list(run.accuracies) for key, run in trained_runs.items()} == {
        (tuple(row["picks"]), row["seed"]): row["accuracies"] for row in rows
    }
    check_against_a_training_here(modules, tmp_path, table)


def check_against_a_training_here(modules, folder, table):
    make_table = modules.make_table
    space, fidelity = table.space, modules.make_table.Fidelity(**table.header["fidelity"])
    loader = make_table.Loader("digits", folder, "refuse", 3)
    trainer = make_table.Trainer(
        loader, "cpu", dtype=table.header["dtype"], threads=1, recipe=make_table.RECIPE
    )
    indices, (run, *_) = next(iter(table.runs.items()))
    curve = trainer.train(space.from_indices(indices), fidelity, run.seed)
    assert not isinstance(curve, Failure)
    assert [round(epoch.accuracy, 6) for epoch in curve] == list(run.accuracies)
    assert [round(epoch.loss, 5) for epoch in curve] == list(run.losses)

    rows = [modules.table.row_of(indices, one, {}) for indices, runs in table.runs.items() for one in runs]
    wanted = make_table.all_trainings(space, 4, 3)
    with pytest.raises(InputError, match="1 of 10 trainings are not done"):
        modules.table.gather(space, table.header, rows[1:], wanted)


def epochs_of(points):
    """Return the simulated seconds between the ends of trials, for one worker."""
    return np.diff([0.0, *(point.seconds for point in points)]).tolist()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("strategy", "pruner"), [("random", "median"), ("tpe", "halving")])
def test_the_clock_never_goes_back_and_the_same_search_is_the_same(
    modules, larger, workers, strategy, pruner
):
    table = made_up(modules, larger, seconds=(3.0, 1.0, 2.0, 1.5), noise=0.1)
    asked = (table, strategy, pruner, 5)
    points = modules.simulator.simulate(*asked, workers=workers, trials=20)
    assert min(epochs_of(points)) >= 0
    assert 20 <= points[-1].trials < 20 + workers
    counts = [point.trials for point in points]
    assert sorted(set(counts)) == list(range(1, counts[-1] + 1))
    assert points == modules.simulator.simulate(*asked, workers=workers, trials=20)


def test_the_number_of_trials_is_proportional_to_the_workers(modules, larger):
    table = made_up(modules, larger, seconds=(1.0, 2.0))
    ended = {
        workers: modules.simulator.simulate(table, "random", "none", 0, workers=workers, seconds=24.5)
        for workers in (1, 2, 4)
    }
    assert {workers: len(points) for workers, points in ended.items()} == {1: 8, 2: 16, 4: 32}
    assert ended[1][-1].seconds == 24.0


def test_a_pruned_trial_takes_only_the_time_of_its_epochs(modules, larger):
    table = made_up(modules, larger, seconds=(1.0, 10.0, 100.0, 1000.0))
    points = modules.simulator.simulate(table, "random", "median", 0, trials=30)
    costs = epochs_of(points)
    assert set(costs[:5]) == {1111.0}, "the median of nothing prunes nothing"
    assert {1111.0} < set(costs) <= {1.0, 11.0, 111.0, 1111.0}
    pruned = [point for point, cost in zip(points, costs, strict=True) if cost < 1111]
    assert all(points[point.trials - 2].observed == point.observed for point in pruned), "and are never best"


def test_a_resumed_training_takes_the_time_of_its_remaining_epochs(modules, larger):
    table = made_up(modules, larger, seconds=(1.0, 10.0, 100.0))
    clock = modules.simulator.Clock()
    trainings = modules.simulator.Trainings(table, clock, 0)
    architecture = larger.from_indices((1, 2, 5))
    spent, curves, states = [], [], [None]

    def worker():
        for _ in range(3):
            step = next(trainings.steps(architecture, states[-1]))
            states.append(step.state_dict())
            curves.append(step.curve)
            spent.append(clock.now)

    clock.run([worker])
    assert spent == [1.0, 11.0, 111.0]
    assert [len(curve) for curve in curves] == [1, 2, 3]
    assert curves[2][:2] == curves[1]


def test_the_best_is_chosen_by_observed_accuracy_and_judged_by_true_quality(modules, small):
    table = made_up(modules, small, noise=0.3, seed=2)
    for seed in range(4):
        seen = {indices: table.observe(indices, seed).accuracies[-1] for indices in table.runs}
        best = max(seen, key=seen.get)
        *_, end = modules.simulator.simulate(table, "random", "none", seed)
        assert (end.trials, end.seconds) == (8, 16.0), "all of the space"
        assert (end.observed, end.quality) == (seen[best], table.quality(best))


def test_failures_take_time_and_are_never_best(modules, small):
    table = made_up(modules, small, seconds=(1.0, 1.0))
    best = max(table.runs, key=table.quality)
    broken = modules.table.Run(0, (0.9,), (0.5,), (1.0, 0.5), 0, "diverged")
    table = replace(table, runs={**table.runs, best: (broken,)})
    *_, end = modules.simulator.simulate(table, "random", "none", 0)
    assert (end.trials, end.seconds) == (8, 7 * 2 + 1.5)
    assert end.quality == table.best < 0.9


def test_an_error_of_a_worker_ends_all(modules, larger):
    clock = modules.simulator.Clock()
    times = []

    def fail():
        clock.wait(2.5)
        raise KeyError("broken")

    def work():
        while True:
            clock.wait(1.0)
            times.append(clock.now)

    with pytest.raises(KeyError, match="broken"):
        clock.run([work, fail])
    assert times == [1.0, 2.0]


def test_the_synthetic_best_is_exact(modules, larger):
    function = modules.synthetic.Synthetic(larger, 3)
    every = [function.quality(indices) for indices in itertools.product(range(6), repeat=3)]
    assert function.best == pytest.approx(max(every), abs=1e-12)
    assert np.mean([quality >= function.top for quality in every]) == pytest.approx(0.01, abs=0.01)
    assert np.mean(every) == pytest.approx(0.6, abs=0.002)
    again, other = modules.synthetic.Synthetic(larger, 3), modules.synthetic.Synthetic(larger, 4)
    assert again.quality((0, 1, 2)) == function.quality((0, 1, 2)) != other.quality((0, 1, 2))


def test_synthetic_curves_approach_the_quality(modules, larger):
    function = modules.synthetic.Synthetic(larger, 0)
    indices = [tuple(one) for one in np.random.default_rng(0).integers(6, size=(200, 3)).tolist()]
    truth = np.array([function.quality(one) for one in indices])
    curves = np.array([function.observe(one, 7).accuracies for one in indices])
    agreement = [np.corrcoef(truth, curves[:, epoch])[0, 1] for epoch in range(function.epochs)]
    assert agreement == sorted(agreement)
    assert agreement[0] > 0.3
    assert 0.93 < agreement[-1] < 0.99, "the rest is the noise of seeds"
    assert (np.diff(curves.mean(axis=0)) > 0).all()
    ends = [function.observe(indices[0], seed).accuracies[-1] for seed in range(300)]
    assert np.mean(ends) == pytest.approx(truth[0], abs=0.001)
    seconds = [sum(function.observe(one, 7).seconds) for one in indices]
    assert np.mean(seconds) == pytest.approx(function.seconds, rel=0.05)
    macs = [larger.table.cost(one)["macs"] for one in indices]
    assert np.corrcoef(macs, seconds)[0, 1] > 0.8
