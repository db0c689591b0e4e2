"""Tables of latencies, what studies keep of them, and studies of correlation."""

import json
from pathlib import Path

import optuna
import pytest
import torch
from broken import WORDS_OF_JSON, mangled, mutated, sound_or_refused
from examples import examples
from fake_machine import FakeMachine, space
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.correlation.study import Plan, read_plan, scored, trained, validate_study
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.latency.table import LatencyTable, build_table
from nas_recalib.pricing import Latencies, cost_table
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.timing.cases import Settings

CPU = torch.device("cpu")
CHEAP = Fidelity(images=40, validation=20, resolution=8, width=0.25, epochs=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A space, the text of its table, and what a study keeps of that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tables"))
        settings = Settings(CPU, threads=1)
        path = Path("table.json")
        table = build_table(path, space("stage"), settings, 4, rounds=8, timer=FakeMachine(noise=0.03))
        yield space("stage"), path.read_text(), vars(Latencies.of(table, space("stage")))


def load():
    """An InputError about the file, or a table that can be used."""
    try:
        table = LatencyTable.load("t.json")
        constant, entries = table.column(table.space)
        assert type(constant) is int
        assert len(entries) == 3
        table.as_dict()
        cost_table(
            table.space, Budget(memory=10**9), Latencies.of(table, table.space), table.conditions.batch
        )
    except InputError as error:
        assert str(error).startswith(("t.json", "latency table"))


@examples(250)
@given(data=st.data())
def test_a_table_with_something_else_in_it(made, data):
    with open("t.json", "w") as file:
        json.dump(data.draw(mutated(json.loads(made[1]))), file)
    load()


@examples(300)
@given(data=st.data())
def test_a_table_that_is_torn(made, data):
    with open("t.json", "wb") as file:
        file.write(data.draw(mangled(made[1].encode(), words=WORDS_OF_JSON)))
    load()


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "9" * 10**6, '"' + "x" * 10**7, "-" * 10**6])
def test_bombs_do_not_go_off(made, text):
    with open("t.json", "w") as file:
        file.write(text)
    assert not sound_or_refused(["cost", "vanilla", "--space", "resnet20", "--latency-table", "t.json"])


@examples(300)
@given(data=st.data())
def test_what_a_study_keeps_of_a_table(made, data):
    content = data.draw(mutated(made[2]))
    try:
        latencies = Latencies.from_dict(content, made[0])
        cost_table(made[0], Budget(latency=10**9), latencies, 1)
    except InputError as error:
        assert "latencies" in str(error)


PLAN = Plan(
    space=space("stage").describe(),
    upper=Budget(macs=10**9, params=10**9),
    within=0.05,
    data="digits",
    data_hash="abc",
    reference=CHEAP,
    fidelities={"quick": CHEAP},
    dtype="float32",
    threads=1,
    seed=5,
)
HELD = {"index": 0, "fidelity": "quick", "seed": 5, "seconds": 1.5, "losses": [2.0, 1.5], "device": "cpu"}


@examples(400)
@given(data=st.data())
def test_a_study_of_correlation(data):
    study = optuna.create_study(study_name="s", direction="maximize")
    study.set_user_attr("correlation", data.draw(mutated(PLAN.as_dict())))
    for key, value in data.draw(mutated({"scores of 0": {"zen": [1.5, 0.1], "naswot": [2.5, 0.1]}})).items():
        study.set_user_attr(key, value)
    held = data.draw(st.just(HELD) | mutated(HELD))
    study.add_trial(
        optuna.trial.create_trial(value=0.5, user_attrs=held, intermediate_values={1: 0.25, 2: 0.5})
    )
    try:
        plan = read_plan(study)
        if plan is not None:
            plan.extended("s", PLAN)
        validate_study(study)
        (trial,) = trained(study).values()
        sum(trial.user_attrs["losses"])
        assert all(len(told) == 2 for told in scored(study, 0).values())
    except InputError as error:
        assert "study" in str(error) or str(error).partition(":")[0] in CHEAP.as_dict()
