"""Somebody else's study: whatever its attributes and trials say, it is refused or shown, and runs nothing."""

import copy
import json
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest
from broken import TEXTS, mangled, mutated, scalars, sound_or_refused, told
from examples import examples, soaked
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.trial import TrialState

from nas_recalib.errors import InputError
from nas_recalib.export import export_architecture
from nas_recalib.report.study import study_tables
from nas_recalib.report.terminal import print_table
from nas_recalib.study.config import SearchConfig, refuse_difference
from nas_recalib.study.stored import read_stored
from nas_recalib.study.summary import summarise

SPACE = """
name: tiny
backbone: resnet20
granularity: stage
convolution: [vanilla, psconv]
recalibration: [none, ab]
proxy: {width: 0.25, resolution: 8}
"""
SEARCH = (
    "search --space tiny.yaml --data digits --images 40 --validation 20 --resolution 8 --epochs 1 --trials 4"
)
RESUME = ["search", "--study", "tiny", "--trials", "4", "--device", "cpu"]
OPEN = (
    ["show", "tiny"],
    ["status", "tiny"],
    ["show", "tiny", "--json"],
    ["status", "tiny", "--trial", "1"],
    ["export", "tiny", "-o", "out"],
)
DATABASE = Path("runs/tiny/study.db")


@pytest.fixture(autouse=True, scope="module")
def here(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("studies"))
        Path("tiny.yaml").write_text(SPACE)
        assert told([*SEARCH.split(), "--device", "cpu"])[0] == 0
        shutil.copy(DATABASE, "whole.db")
        yield


@pytest.fixture(scope="module")
def kept(here):
    """What the study keeps of its search, and of its trials."""
    study = optuna.load_study(study_name="tiny", storage="sqlite:///whole.db")
    return study.user_attrs["config"], [trial.user_attrs for trial in study.trials]


@pytest.fixture(scope="module")
def whole(here):
    return optuna.load_study(study_name="tiny", storage="sqlite:///whole.db").trials


def write(content):
    for path in DATABASE.parent.glob("study.db*"):
        path.unlink()
    DATABASE.write_bytes(content)


def rewrite(*statements):
    """The study's database after some SQL."""
    write(Path("whole.db").read_bytes())
    with sqlite3.connect(DATABASE) as database:
        for statement, *values in statements:
            database.execute(statement, values)
    database.close()


def opened(commands=OPEN):
    for command in commands:
        sound_or_refused(command, changes=["out"])


def as_json(content):
    return json.dumps(content)


@examples(25)
@given(data=st.data())
def test_what_a_search_is_about(kept, data):
    config = data.draw(mutated(kept[0]))
    statement = "UPDATE study_user_attributes SET value_json = ? WHERE key = 'config'"
    rewrite((statement, as_json(config)))
    opened(OPEN[: data.draw(st.integers(1, len(OPEN)))])


@examples(400)
@given(data=st.data())
def test_what_a_search_is_about_can_be_compared(kept, data):
    whole = read_stored(SearchConfig, kept[0], "tiny")
    try:
        stored = read_stored(SearchConfig, data.draw(mutated(kept[0])), "tiny")
        refuse_difference("tiny", stored, whole)
    except InputError as error:
        assert "tiny" in str(error) or str(error)


@examples(15)
@given(data=st.data())
def test_a_search_goes_on_or_is_refused(kept, data):
    config = data.draw(mutated(kept[0]))
    rewrite(("UPDATE study_user_attributes SET value_json = ? WHERE key = 'config'", as_json(config)))
    status, _, err = told(RESUME)
    assert status in (0, 2), err
    assert "Traceback" not in err


@examples(25)
@given(data=st.data())
def test_what_a_trial_carries(kept, data):
    attributes = data.draw(mutated(kept[1][1], at_most=1))
    number = data.draw(st.sampled_from((2, 3)))
    rewrite(
        ("DELETE FROM trial_user_attributes WHERE trial_id = ?", number),
        *(
            (
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
                number,
                key,
                value,
            )
            for key, value in ((key[:500], as_json(value)) for key, value in attributes.items())
            if key.isascii() and "\0" not in key
        ),
    )
    opened(OPEN[: data.draw(st.integers(1, len(OPEN)))])


@examples(400)
@given(data=st.data())
def test_a_study_that_is_summed_up(kept, whole, data):
    """As the commands do it, without a database."""
    study = optuna.create_study(study_name="tiny", direction="maximize")
    study.set_user_attr("config", data.draw(st.just(kept[0]) | mutated(kept[0])))
    extra = {"latency_ms": {"1": 2.5}, "confirmed 1/1": {"accuracy": 0.5, "seconds": 2.0}}
    for key, value in data.draw(mutated(extra)).items():
        study.set_user_attr(key, value)
    for trial in whole:
        attributes = data.draw(st.just(trial.user_attrs) | mutated(trial.user_attrs, at_most=1))
        values = data.draw(
            st.just(trial.values) | st.lists(scalars.filter(is_a_value), min_size=1, max_size=1)
        )
        told = {"params": trial.params, "distributions": trial.distributions, "user_attrs": attributes}
        study.add_trial(optuna.trial.create_trial(state=trial.state, values=values, **told))
    try:
        summary = summarise(study)
        print_table(study_tables(summary, 20))
        json.dumps(summary.as_dict())
        export_architecture(summary, Path("out"))
    except InputError as error:
        assert "study" in str(error)


def is_a_value(value):
    return isinstance(value, float | int) and value == value


TABLES = {
    "studies": ("study_name",),
    "study_directions": ("objective",),
    "study_user_attributes": ("key", "value_json"),
    "trials": ("number", "state", "study_id", "datetime_start"),
    "trial_values": ("value", "value_type", "objective"),
    "trial_params": ("param_name", "param_value", "distribution_json"),
    "trial_user_attributes": ("key", "value_json", "trial_id"),
    "trial_system_attributes": ("key", "value_json"),
    "trial_intermediate_values": ("step", "intermediate_value", "intermediate_value_type"),
    "version_info": ("schema_version", "library_version"),
    "alembic_version": ("version_num",),
}
columns = st.sampled_from([(table, column) for table, names in TABLES.items() for column in names])


@examples(40)
@given(columns, scalars | st.sampled_from(TEXTS).map(as_json))
def test_a_cell_with_something_else_in_it(place, value):
    table, column = place
    assume(not isinstance(value, int) or -(2**63) <= value < 2**63)
    value = (
        value.encode("utf-8", "surrogatepass").decode(errors="replace") if isinstance(value, str) else value
    )
    try:
        rewrite((f"UPDATE {table} SET {column} = ?", value))
    except sqlite3.IntegrityError:
        assume(False)
    opened(OPEN[:1])


def test_a_study_with_another_direction():
    rewrite(("UPDATE study_directions SET direction = 'SIDEWAYS'",))
    assert not sound_or_refused(OPEN[0])


WAYS = ["DROP TABLE {}", "DELETE FROM {}", "ALTER TABLE {} RENAME TO lost"]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("way", soaked(WAYS, WAYS[:1]))
def test_a_table_that_is_gone(table, way):
    rewrite((way.format(table),))
    opened(OPEN[:1])


@examples(40)
@given(data=st.data())
def test_a_database_that_is_torn(data):
    write(data.draw(mangled(Path("whole.db").read_bytes(), span=4096)))
    opened(OPEN[:1])


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_database_that_ends_early(share):
    whole = Path("whole.db").read_bytes()
    write(whole[: int(share * len(whole))])
    opened()


HOSTILE = "</script><script>alert(1)</script>[link=file:///etc/passwd]x[/link][/red]\x1b[31m\ud800"


def test_text_of_a_study_is_text(kept):
    config = {**copy.deepcopy(kept[0]), "data": f"folder:{HOSTILE}", "data_note": HOSTILE}
    rewrite(("UPDATE study_user_attributes SET value_json = ? WHERE key = 'config'", as_json(config)))
    status, out, err = told(["show", "tiny", "--html", "page.html"])
    assert (status, err) == (0, "wrote page.html\n")
    assert r"[link=file:///etc/passwd]x[/link][/red]\x1b[31m\ud800" in out
    page = Path("page.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_damaged_page_s_study_leaves_the_old_page(kept):
    Path("page.html").write_text("old")
    rewrite(("UPDATE trial_user_attributes SET value_json = '[1]' WHERE key = 'macs'",))
    assert not sound_or_refused(["show", "tiny", "--html", "page.html"])
    assert Path("page.html").read_text() == "old"


@pytest.mark.parametrize("state", list(TrialState))
def test_trials_that_another_program_added(state):
    rewrite()
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{DATABASE}")
    value = 0.5 if state == TrialState.COMPLETE else None
    study.add_trial(optuna.trial.create_trial(state=state, value=value))
    assert sound_or_refused(OPEN[0]) == (state not in (TrialState.COMPLETE, TrialState.PRUNED))


@pytest.mark.parametrize("sign", [[1, "long ago"], [1, None], [1], "alive", {}])
def test_a_sign_of_life_of_another_form(sign):
    rewrite()
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{DATABASE}")
    attributes = {"nas_recalib:beat": sign}
    study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, system_attrs=attributes))
    assert sound_or_refused(["status", "tiny"])
