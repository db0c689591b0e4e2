"""Plan of a correlation study: stored, extended by a later command, and divided into tasks."""

from dataclasses import replace

import pytest

from nas_recalib.correlation.study import REFERENCE, Plan, Task, tasks
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.study.stored import read_stored

CHEAP = Fidelity(images=40, validation=20, resolution=8, width=0.25, epochs=1)
PLAN = Plan(
    space="name: small\n",
    upper=Budget(macs=100, params=10),
    within=0.05,
    data="digits",
    data_hash="abc",
    reference=replace(CHEAP, epochs=3),
    fidelities={"quick": CHEAP},
    dtype="float32",
    threads=1,
    seed=5,
)


def test_a_plan_is_read_as_it_was_written():
    assert read_stored(Plan, PLAN.as_dict(), "s") == PLAN


def test_a_plan_of_an_earlier_version_is_read_with_the_defaults():
    added = ("architectures", "seeds", "scores", "corrupt")
    content = {key: value for key, value in PLAN.as_dict().items() if key not in added}
    plan = read_stored(Plan, content, "s")
    assert plan == PLAN
    assert (plan.architectures, plan.seeds, plan.scores, plan.corrupt) == (40, 2, ["all"], "refuse")


def test_an_architecture_is_done_before_the_next_is_begun():
    planned = list(tasks(replace(PLAN, architectures=2, seeds=2), ["synflow"]))
    assert [task.index for task in planned] == [0] * 4 + [1] * 4
    assert planned[0] == Task(0, "", 5, ("synflow",))
    assert len(set(planned)) == len(planned)


def test_no_cheap_training_shares_a_seed_with_a_longer_one():
    planned = list(tasks(replace(PLAN, architectures=3, seeds=4), []))
    longer = {task.seed for task in planned if task.fidelity == REFERENCE}
    assert len(longer) == 4
    assert longer.isdisjoint(task.seed for task in planned if task.fidelity != REFERENCE)


def test_plugins_may_lie_elsewhere():
    known = replace(PLAN, plugins=["here/my_ops.py"])
    assert known.extended("s", replace(PLAN, plugins=["there/my_ops.py"])).plugins == ["there/my_ops.py"]
    assert known.extended("s", PLAN).plugins == ["here/my_ops.py"]


def test_fidelities_may_be_added_and_images_lie_elsewhere():
    given = replace(PLAN, fidelities={"long": replace(CHEAP, epochs=9)}, data="folder:/there")
    extended = PLAN.extended("s", given)
    assert extended.fidelities == {**PLAN.fidelities, **given.fidelities}
    assert extended.data == "folder:/there"
    assert PLAN.extended("s", PLAN) == PLAN


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("within", 0.1),
        ("data_hash", "xyz"),
        ("seed", 6),
        ("threads", 2),
        ("dtype", "bfloat16"),
        ("upper", Budget(macs=99, params=10)),
        ("reference", CHEAP),
        ("space", "name: other\n"),
        ("fidelities", {"quick": replace(CHEAP, epochs=2)}),
    ],
)
def test_what_decides_the_outcome_may_not_change(key, value):
    named = "fidelity quick" if key == "fidelities" else key
    with pytest.raises(InputError, match=f"study 's' was made with another {named}: stored .*, given .*; "):
        PLAN.extended("s", replace(PLAN, **{key: value}))
