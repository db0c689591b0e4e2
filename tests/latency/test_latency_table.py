"""Tables: their files, what they are refused for, and predictions that add up."""

import json

import numpy as np
import pytest
import torch
from fake_machine import FakeMachine, space

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.latency.fit import INDICES_KEY
from nas_recalib.latency.table import LatencyTable, build_table
from nas_recalib.timing.cases import Settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "table.json"
    settings = Settings(CPU, threads=1)
    return build_table(path, space(), settings, 4, rounds=12, timer=FakeMachine(noise=0.03)), path


@pytest.fixture
def table(made):
    return made[0]


@pytest.fixture
def edited(made, tmp_path):
    """A copy of the file, with something else in it."""

    def edit(change):
        content = json.loads(made[1].read_text())
        change(content)
        (tmp_path / "edited.json").write_text(json.dumps(content))
        return tmp_path / "edited.json"

    return edit


def test_a_file_holds_all_of_a_table(made):
    table, path = made
    read = LatencyTable.load(path)
    assert read == table
    assert (read.entries, read.fit, read.reference_ms) == (table.entries, table.fit, table.reference_ms)
    content = json.loads(path.read_text())
    assert content["format"] == "nas-recalib/latency/1"
    assert content["conditions"]["batch"] == 4
    stored = content["table"]["entries"]["layer2.0"]["psconv+ab"]
    entry = table.entries[3][5]
    assert stored["median_us"] == pytest.approx(entry.median * 1e6, abs=1e-3)
    assert stored["quartiles_us"] == pytest.approx([entry.lower * 1e6, entry.upper * 1e6], abs=1e-3)
    assert stored["samples"] == entry.samples
    assert len(path.read_text().splitlines()) < 12 + 9 * 8 + 40, "a line for a round, a line for an entry"


def test_predictions_add_up_to_the_nanosecond(table):
    constant, entries = table.column(table.space)
    assert isinstance(constant, int)
    assert all(entry.dtype == np.int64 and entry.shape == (6,) for entry in entries)
    random = np.random.default_rng(0)
    for _ in range(20):
        indices = tuple(int(index) for index in random.integers(6, size=9))
        total = constant + sum(int(entry[index]) for entry, index in zip(entries, indices, strict=True))
        assert table.predict(table.space.from_indices(indices)) == total / 1e6
    unit = table.fit.slope * 1e9
    for row, column in zip(table.entries, entries, strict=True):
        assert column.tolist() == [round(entry.median * unit) for entry in row]


def test_a_table_is_for_its_space_alone(table):
    table.require(space(), CPU)
    for other in (space("stage"), space(recalibration="[none, se]"), space(name="other")):
        for use in (lambda other=other: table.require(other, CPU), lambda other=other: table.column(other)):
            with pytest.raises(InputError, match="latency table: made for the space tiny") as caught:
                use()
            assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is not an architecture of the space tiny"):
        table.predict(Architecture.of("resnet18", "vanilla"))
    with pytest.raises(InputError, match=r"layer1\.0: vanilla\+se is not one of"):
        table.predict(Architecture.of("resnet20", "se", input_size=16))


def test_a_table_is_for_its_machine_alone(table, edited, monkeypatch):
    def other_torch(content):
        content["conditions"]["torch"] = "1.0"

    with pytest.raises(InputError, match=r"latency table: made with torch 1\.0, not "):
        LatencyTable.load(edited(other_torch)).require(space(), CPU)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    with pytest.raises(InputError, match=r"made with device .* \(1 of .* not .*\(1 of 64 threads\)"):
        table.require(space(), CPU)
    monkeypatch.undo()
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a GPU")
    with pytest.raises(InputError, match=r"not a GPU; run .nas-recalib latency. here"):
        table.require(space(), torch.device("cuda"))


def test_threads_matter_where_a_number_is_given(table):
    table.require(space(), CPU, threads=1)
    with pytest.raises(InputError, match="latency table: made with device"):
        table.require(space(), CPU, threads=2)


def test_the_threads_that_torch_happens_to_have_do_not_matter(table, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 17)
    table.require(space(), CPU)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(format="nas-recalib/latency/2"), "format: input should be"),
        (lambda c: c.update(extra=1), "unknown key 'extra'; allowed: format, space"),
        (lambda c: c.pop("rounds"), "missing key 'rounds'"),
        (lambda c: c.update(space="name: x"), "space: missing key 'backbone'"),
        (lambda c: c["conditions"].update(batch=0), "conditions.batch: "),
        (lambda c: c["rounds"][2].update(network_ns=0), "rounds.2.network_ns: "),
        (lambda c: c["rounds"][2].update(network_ns=1.5), "rounds.2.network_ns: "),
        (lambda c: c["rounds"][2][INDICES_KEY].__setitem__(0, 77), "rounds.2 is not of this space and seed"),
        (lambda c: c["rounds"][2][INDICES_KEY].pop(), "rounds.2 is not of this space and seed"),
        (lambda c: c["rounds"][2]["blocks_ns"].pop(), "rounds.2 is not of this space and seed"),
        (lambda c: c["rounds"][2].update(blocks_ns=[-1] * 9), "rounds.2.blocks_ns.0: input should be"),
        (lambda c: c["rounds"].pop(0), "rounds.0 is not of this space and seed"),
        (lambda c: c["rounds"].pop(), "not finished, 11 of 12 rounds"),
        (lambda c: (c.update(wanted=1), c.update(rounds=c["rounds"][:3])), "not finished, 3 of 6 rounds"),
    ],
)
def test_files_that_are_no_whole_table_are_refused_in_one_line(edited, change, named):
    path = edited(change)
    with pytest.raises(InputError) as caught:
        LatencyTable.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read: No such file"):
        LatencyTable.load(tmp_path / "none.json")
