"""The benchmark of searches runs on a synthetic table, and its summary is right on synthetic searches."""

import argparse
import importlib
import itertools
import json
import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from nas_recalib.space import SearchSpace

FOLDER = Path(__file__).parents[2] / "benchmarks"
SPACE = """
name: small
backbone: resnet20
granularity: stage
convolution: [vanilla, psconv]
recalibration: [none, ab]
"""


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))  # as running the script does
    names = ("search_summary", "search_chart", "search")
    yield argparse.Namespace(**{name: importlib.import_module(name) for name in names})
    sys.path.remove(str(FOLDER))
    for name in [name for name in sys.modules if name in names or name.startswith("tabular")]:
        del sys.modules[name]


@pytest.fixture
def here(tmp_path, monkeypatch, modules):
    """A folder with a packed table of 64 networks, each of which trains for two seconds."""
    monkeypatch.chdir(tmp_path)
    space, random = SearchSpace.parse(SPACE, "small"), np.random.default_rng(0)
    tables = importlib.import_module("tabular.table")
    runs = {
        indices: (tables.Run(0, (end / 2, end), (2.0, 1.0), (1.0, 1.0)),)
        for indices, end in zip(
            itertools.product(range(4), repeat=3), random.random(64).tolist(), strict=True
        )
    }
    header = {"space": space.describe(), "fidelity": {"epochs": 2}}
    tables.Table(space, header, (), runs).pack(tmp_path / "table.json.gz")
    return tmp_path


def run(modules, monkeypatch, *options):
    quick = ["--benchmarks", "tabular", "--table", "table.json.gz", "--trials", "12", "--output", "out.json"]
    names = ["--strategies", "random", "--pruners", "none", "halving"]
    monkeypatch.setattr("sys.argv", ["search.py", *quick, *names, "--journal", "j/j.jsonl", *options])
    modules.search.main()
    return json.loads(Path("out.json").read_text())


def run_in_this_process(do, tasks, keep, **_):
    for task in tasks:
        keep(do(*task))


@pytest.mark.parametrize("in_processes", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_it_runs_and_resumes_and_its_summary_is_right(modules, here, monkeypatch, capsys, in_processes):
    if not in_processes:
        monkeypatch.setattr(modules.search, "run_in_processes", run_in_this_process)
    first = run(modules, monkeypatch, "--seeds", "2")
    written = Path("j/j.jsonl").read_text()
    assert first["command"].startswith("python benchmarks/search.py --benchmarks tabular --table")
    assert (first["seeds"], first["trials"], first["workers"]) == (2, 12, 1)

    monkeypatch.setattr(modules.search, "run_in_processes", run_in_this_process)
    content = run(modules, monkeypatch, "--seeds", "5")
    journal = Path("j/j.jsonl").read_text()
    assert journal.startswith(written), "finished searches are not run again"
    rows = [json.loads(line) for line in journal.splitlines()[1:]]
    assert len(rows) == len({(row["pruner"], row["seed"]) for row in rows}) == 2 * 5
    table = modules.search.Table.load(Path("table.json.gz"))
    for row in rows:
        regrets = [regret for _, _, regret in row["steps"]]
        assert regrets == sorted(regrets, reverse=True), "observed values are true here"
        reached = [step[:2] for step in row["steps"] if step[2] <= table.best - table.top]
        assert row["top"] == (reached[0] if reached else None)
        assert row["given"] == 24.0
    plain, halving = content["results"]
    assert (plain["strategy"], plain["pruner"], plain["trials"], plain["searches"]) == (
        "random",
        "none",
        12,
        5,
    )
    assert halving["trials"] > 12, "pruned trials leave time for others"
    ends = [row["steps"][-1][2] for row in rows if row["pruner"] == "none"]
    assert plain["hours"][-1] * 3600 == pytest.approx(24.0)
    assert plain["regret"]["median"][-1] == pytest.approx(np.median(ends))
    assert plain["regret"]["low"][-1] in ends
    assert plain["faster_than"]["mutation"] is None
    shown = capsys.readouterr().out
    assert "tabular    random    halving" in shown
    root = ElementTree.parse("out.svg").getroot()
    titles = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "t"]
    assert titles == ["tabular, pruner none", "tabular, pruner halving"]

    with pytest.raises(SystemExit) as left:
        run(modules, monkeypatch, "--seeds", "2", "--workers", "2")
    assert left.value.code == 2
    assert "was started with another workers: 1, not 2" in capsys.readouterr().err


def made_up(strategy, seed, top, steps, pruner="none"):
    key = {"benchmark": "b", "strategy": strategy, "pruner": pruner, "seed": seed}
    return {**key, "given": 40 * 3600.0, "trials": 10, "steps": steps, "top": top}


def test_regret_is_that_of_the_best_so_far(modules):
    steps = [[2 * 3600.0, 1, 0.5], [10.5 * 3600, 4, 0.25]]
    (course,) = modules.search_summary.regrets([made_up("random", 0, None, steps)])
    assert course.tolist() == [math.inf] + [0.5] * 9 + [0.25] * 30, "at every full hour"


def test_medians_and_relative_speeds(modules):
    hours = {"random": [8.0, 4.0, 12.0, None, 16.0], "mutation": [4.0, 2.0, 6.0, 7.0, 8.0]}
    rows = [
        made_up(name, seed, one and [one * 3600, int(one)], [[3600.0, 1, 0.1 * seed]])
        for name, some in hours.items()
        for seed, one in enumerate(some)
    ]
    rows += [made_up("lost", seed, None, []) for seed in range(5)]
    random, mutation, lost = modules.search_summary.summarise(rows, ("random", "mutation"))
    assert (random["reached"], mutation["reached"], lost["reached"]) == (4, 5, 0)
    assert random["hours_to_top"]["median"] == 12.0
    assert mutation["trials_to_top"]["median"] == 6.0
    assert random["regret"]["median"] == pytest.approx([0.2] * 40)
    assert (random["regret"]["low"][0], random["regret"]["high"][0]) == pytest.approx((0.0, 0.4))
    assert mutation["faster_than"]["random"]["ratio"] == 2.0
    assert mutation["faster_than"]["random"]["low"] == 2.0, "seed by seed it is at least twice as fast"
    assert mutation["faster_than"]["mutation"] == {"ratio": 1.0, "low": 1.0, "high": 1.0}
    assert lost["faster_than"]["mutation"] == {"ratio": 0.0, "low": 0.0, "high": 0.0}
    assert lost["hours_to_top"] == {"median": None, "low": None, "high": None}
    assert lost["regret"]["median"] == [None] * 40
    json.dumps([random, mutation, lost], allow_nan=False)


def test_an_interval_covers_the_median_as_often_as_it_should(modules):
    random, held = np.random.default_rng(0), 0
    draws = np.random.default_rng(1).integers(30, size=(500, 30))
    for _ in range(200):
        interval = modules.search_summary.median(random.normal(size=30), draws)
        held += interval["low"] <= 0 <= interval["high"]
    assert 0.88 <= held / 200 <= 0.995


def test_a_chart_has_a_panel_for_each_pruner_and_a_curve_for_each_strategy(modules):
    rows = [
        made_up(name, seed, None, [[3600.0, 1, 0.1 + 0.01 * seed]], pruner)
        for name, pruner, seed in itertools.product(("a", "b<c"), ("none", "median"), range(4))
    ]
    drawn = modules.search_chart.chart(modules.search_summary.summarise(rows, ()))
    curves = list(ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}path"))
    names = [path[0].text for path in curves if len(path)]
    assert names == ["a", "b<c"] * 2
    heights = {path.get("d").split(",")[1].split("L")[0] for path in curves if len(path)}
    assert len(heights) == 1, "equal regrets stand equally high"
