"""Cost tables of limited searches: latency tables are found, refused and stored."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from fake_machine import FakeMachine, space

from nas_recalib.costs import Budget
from nas_recalib.device import with_threads
from nas_recalib.errors import InputError
from nas_recalib.latency.table import LatencyTable, build_table
from nas_recalib.pricing import Latencies, cost_table, feasible, find_latencies, resolve_batch
from nas_recalib.space import SearchSpace
from nas_recalib.timing.cases import Settings


@pytest.fixture
def folder(tmp_path):
    settings = Settings(torch.device("cpu"), threads=1)
    build_table(tmp_path / "tiny-cpu-b4.json", space(), settings, 4, rounds=12, timer=FakeMachine())
    return tmp_path


@pytest.fixture
def latencies(folder):
    return find_latencies(space(), None, folder)


def test_the_only_table_of_a_space_and_machine_is_found(folder, latencies):
    assert latencies == find_latencies(space(), folder / "tiny-cpu-b4.json")
    assert latencies.conditions["batch"] == 4
    assert Latencies(**json.loads(json.dumps(asdict(latencies)))) == latencies, (
        "it is kept in a study as JSON"
    )


@pytest.mark.parametrize("ambient", [1, 2])
def test_memory_is_that_of_the_threads_that_are_meant(ambient):
    """On one thread torch computes a 1x1 convolution of one image itself, on two by oneDNN."""
    text = "name: s\nbackbone: resnet50\ngranularity: block\nconvolution: [scconv]\nrecalibration: [none]\n"
    bottlenecks, budget = SearchSpace.parse(text, "s"), Budget(memory=10**9)
    with with_threads(ambient):
        one, two = (cost_table(bottlenecks, budget, None, 1, threads) for threads in (1, 2))
        assert torch.get_num_threads() == ambient
    column = one.names.index("memory")
    last = [int(table.entries[-1][0, column]) for table in (one, two)]
    assert last[0] < last[1] / 2


def test_no_table_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match=r"no table of tiny for this machine .* with 'nas-recalib latency'"):
        find_latencies(space(), None, tmp_path)


def test_of_two_tables_one_must_be_named(folder):
    (folder / "tiny-other.json").write_text((folder / "tiny-cpu-b4.json").read_text())
    with pytest.raises(InputError, match=r"--latency-table: \S+tiny-cpu-b4\.json, \S+tiny-other\.json"):
        find_latencies(space(), None, folder)


def test_a_table_that_predicts_no_latency_at_all_is_refused(folder, monkeypatch):
    (path,) = folder.glob("*.json")
    column = LatencyTable.column
    monkeypatch.setattr(LatencyTable, "column", lambda *args: (-(10**9), column(*args)[1]))
    with pytest.raises(InputError, match=r"predicts -.* ms for the fastest network, as its timings"):
        find_latencies(space(), path)


def test_tables_of_other_machines_and_torn_ones_are_passed_over(folder, latencies):
    content = json.loads((folder / "tiny-cpu-b4.json").read_text())
    content["conditions"]["device"] = "abacus"
    (folder / "tiny-abacus.json").write_text(json.dumps(content))
    (folder / "tiny-torn.json").write_text('{"format": "nas-rec')
    assert find_latencies(space(), None, folder) == latencies
    with pytest.raises(InputError, match="measured on abacus, but this machine has"):
        find_latencies(space(), folder / "tiny-abacus.json")


def test_latencies_are_the_machine_s_to_the_microsecond(latencies):
    tiny, machine = space(), FakeMachine()
    table = cost_table(tiny, Budget(latency=1), latencies, 4)
    random = np.random.default_rng(0)
    for _ in range(20):
        indices = tuple(int(random.integers(len(position.choices))) for position in tiny.positions)
        predicted = table.cost(indices)["latency"] / 1e9
        assert predicted == pytest.approx(machine.seconds(tiny.from_indices(indices)), rel=1e-4)


def test_memory_is_that_of_the_network(latencies):
    tiny = space()
    table = cost_table(tiny, Budget(memory=1), None, 2)
    for indices in [(0,) * 9, (5, 3, 1, 0, 2, 4, 0, 1, 2)]:
        assert table.cost(indices)["memory"] == tiny.from_indices(indices).memory(batch=2)
    assert cost_table(tiny, Budget(), None, 2).names == ("macs", "params")


def test_a_limit_below_the_fastest_names_it(latencies):
    table = cost_table(space(), Budget(latency=1), latencies, 4)
    fastest = FakeMachine().seconds(space().from_indices((0,) * 9)) * 1e3
    with pytest.raises(
        InputError, match=rf"latency: 1.5 ms is below the fastest .* {fastest:.1f}\d+ ms: 9 vanilla"
    ):
        feasible(space(), table, Budget(latency=1_500_000))


def test_the_batch_is_the_table_s(latencies):
    assert [resolve_batch(None, None), resolve_batch(3, None), resolve_batch(None, latencies)] == [1, 3, 4]
    with pytest.raises(InputError, match="batch: 3, but the latency table was measured with a batch of 4"):
        resolve_batch(3, latencies)
