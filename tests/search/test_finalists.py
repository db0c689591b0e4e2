"""Finalists are measured until the leading ones are within the limit."""

from dataclasses import asdict, replace

import optuna
import pytest
import torch
from fake_machine import FakeMachine, space
from small_study import CONFIG
from stand_in import Silent, StandIn, make_search

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.latency.measure import Measurement
from nas_recalib.latency.table import build_table
from nas_recalib.pricing import Latencies, cost_table
from nas_recalib.search.confirm import FINALISTS, measure_finalists
from nas_recalib.search.local import run_here
from nas_recalib.study.summary import summarise
from nas_recalib.timing.cases import Settings

LIMIT = 24_000_000


@pytest.fixture
def latencies(tmp_path):
    settings = Settings(torch.device("cpu"), threads=1)
    table = build_table(tmp_path / "table.json", space(), settings, 1, rounds=12, timer=FakeMachine())
    return Latencies.of(table, space())


@pytest.fixture
def study(tmp_path, latencies):
    """A search of twenty trials on the tiny space, none predicted to take more than 24 ms."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", study_name="s")
    budget = Budget(latency=LIMIT)
    config = replace(CONFIG, budget=budget, latencies=asdict(latencies))
    study.set_user_attr("config", config.as_dict())
    table = cost_table(space(), budget, latencies, 1)
    search = make_search(study, tmp_path, StandIn(), space=space(), budget=budget, table=table)
    assert run_here(search, 20, Silent())
    return study


def measuring(factor_of, counts):
    def measure(architectures):
        counts.append(len(architectures))
        seconds = [
            FakeMachine().seconds(architecture) * factor_of(architecture) for architecture in architectures
        ]
        return [Measurement(value * 1e3, value * 1e3, value * 1e3) for value in seconds]

    return measure


def test_no_trial_is_predicted_above_the_limit(study):
    for row in summarise(study).rows:
        assert row.latency_ms * 1e6 <= LIMIT
        assert row.latency_ms == pytest.approx(
            FakeMachine().seconds(Architecture.parse(row.architecture)) * 1e3, rel=1e-4
        )


def test_the_leaders_are_measured_once(study):
    counts, lines = [], []
    before = summarise(study).best
    for _ in range(2):
        measure_finalists(study, lines.append, measuring(lambda _: 1.0, counts))
    assert counts == [FINALISTS]
    summary = summarise(study)
    assert [row.measured_ms is not None for row in summary.rows[:4]] == [True] * FINALISTS + [False]
    assert summary.best.number == before.number
    assert lines[1].startswith(f"trial {before.number}: ")
    assert lines[1].endswith("ms predicted")


def test_one_that_turns_out_too_slow_is_not_the_best(study):
    slow = summarise(study).best
    lines = []
    measure = measuring(lambda a: 3.0 if str(a) == slow.architecture else 1.0, [])
    measure_finalists(study, lines.append, measure)
    summary = summarise(study)
    assert any(
        line.startswith(f"trial {slow.number}: ") and line.endswith("over the limit") for line in lines
    )
    assert summary.best.number != slow.number
    assert slow.number not in summary.front
    assert next(row for row in summary.rows if row.number == slow.number).over_limit
    assert all(row.measured_ms is not None for row in summary.rows[:FINALISTS])


def test_measuring_ends_if_all_are_too_slow(study):
    counts = []
    measure_finalists(study, lambda _: None, measuring(lambda _: 9.0, counts))
    assert counts == [3, 3, 3]
    assert summarise(study).rows[0].measured_ms is None, "the next one is not measured"


def test_another_machine_says_that_it_cannot_measure(study):
    config = dict(study.user_attrs["config"])
    conditions = {**config["latencies"]["conditions"], "device": "abacus"}
    study.set_user_attr("config", {**config, "latencies": {**config["latencies"], "conditions": conditions}})
    lines = []
    measure_finalists(study, lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("finalists not measured: latency table: measured on abacus")


def test_a_machine_too_small_for_a_finalist_says_so(study):
    def measure(_):
        raise InputError("batch-size: tiny, batch 1: does not fit into the memory there is")

    lines = []
    measure_finalists(study, lines.append, measure)
    assert lines[1:] == [
        "finalists not measured: batch-size: tiny, batch 1: does not fit into the memory there is"
    ]


def test_without_a_limit_nothing_is_measured(study):
    study.set_user_attr("config", CONFIG.as_dict())
    measure_finalists(study, pytest.fail, measuring(lambda _: 1.0, []))
