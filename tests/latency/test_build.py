"""Tables made round by round: what is done stays, and what was made otherwise is refused."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_machine import FakeMachine, space

from nas_recalib.errors import InputError
from nas_recalib.latency.table import LatencyTable, build_table, default_path, resolve_rounds
from nas_recalib.timing.cases import Settings

CPU = torch.device("cpu")
QUICK = Settings(CPU, threads=1, seconds=0.01)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.json"


def made(path, *, chosen=None, settings=QUICK, batch=1, machine=None, **more):
    given = {"rounds": 7, **more}
    return build_table(path, chosen or space(), settings, batch, timer=machine or FakeMachine(), **given)


class Interrupted(FakeMachine):
    """Is interrupted when asked for the fourth time."""

    def __call__(self, architecture):
        if len(self.asked) == 3:
            raise KeyboardInterrupt
        return super().__call__(architecture)


def test_an_interrupted_table_goes_on_and_ends_as_if_nothing_had_been(path, tmp_path):
    tables = []
    with pytest.raises(KeyboardInterrupt):
        made(path, machine=Interrupted(noise=0.1), progress=tables.append)
    assert [len(table.rounds) for table in tables] == [1, 2, 3]
    assert len(LatencyTable.load_unfinished(path).rounds) == 3
    with pytest.raises(InputError, match=r"table\.json: not finished, 3 of 7 rounds; run the same "):
        LatencyTable.load(path)

    machine = FakeMachine()
    table = made(path, machine=machine)
    assert len(machine.asked) == 4
    whole = made(tmp_path / "other.json")
    assert [done.indices for done in table.rounds] == [done.indices for done in whole.rounds]
    assert table.rounds[3:] == whole.rounds[3:]
    assert table.rounds[:3] != whole.rounds[:3], "those had noise, and were kept"
    assert LatencyTable.load(path).rounds == table.rounds


KILLED = """
import os, signal, sys
from pathlib import Path
from fake_machine import FakeMachine, space
from test_build import QUICK, build_table

class Killed(FakeMachine):
    def __call__(self, architecture):
        if len(self.asked) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(architecture)

build_table(Path(sys.argv[1]), space(), QUICK, 1, rounds=7, timer=Killed())
"""


@pytest.mark.soak
def test_a_killed_table_goes_on(path):
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent), *sys.path]
    program = [sys.executable, "-c", f"import sys; sys.path[:0] = {folders}\n{KILLED}", str(path)]
    assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    path.with_name(f".{path.name}.partial").write_text(
        '{"format": "nas-rec'
    )  # what a kill while writing leaves
    machine = FakeMachine()
    table = made(path, machine=machine)
    assert (len(table.rounds), len(machine.asked)) == (7, 4)


def test_a_finished_table_is_not_made_again_but_made_more_exact_by_more_rounds(path):
    made(path)
    before = path.read_bytes()
    machine = FakeMachine()
    assert len(made(path, machine=machine).rounds) == 7
    assert len(made(path, machine=machine, rounds=6).rounds) == 7
    assert machine.asked == []
    assert path.read_bytes() == before
    assert len(made(path, machine=machine, rounds=9).rounds) == len(LatencyTable.load(path).rounds) == 9
    assert len(machine.asked) == 2


def test_the_rounds_that_a_table_was_begun_with_stay_where_none_are_asked_for(path):
    with pytest.raises(KeyboardInterrupt):
        made(path, machine=Interrupted(), rounds=20)
    assert len(made(path, rounds=None).rounds) == 20
    assert len(made(path, rounds=None).rounds) == 20
    assert len(made(path, rounds=21).rounds) == 21


def test_an_unfinished_table_may_be_left_with_the_rounds_it_has(path):
    machine = FakeMachine()
    made(path, rounds=6)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "wanted": 9}))
    with pytest.raises(InputError, match="6 of 9 rounds"):
        LatencyTable.load(path)
    made(path, rounds=6, machine=machine)
    assert len(LatencyTable.load(path).rounds) == 6
    assert machine.asked == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch": 2}, "made with batch 1, not 2"),
        ({"settings": Settings(CPU, threads=1, seed=4)}, "made with seed 0, not 4"),
        ({"settings": Settings(CPU, threads=1, dtype="bfloat16")}, "dtype float32, not bfloat16"),
        ({"settings": Settings(CPU, threads=1, compile=True)}, "compile False, not True"),
        ({"chosen": space("stage")}, "made for another space, tiny"),
        ({"chosen": space(recalibration="[none, se]")}, "made for another space, tiny"),
    ],
)
def test_a_table_goes_on_as_it_was_begun_or_not_at_all(path, change, named):
    made(path)
    before = path.read_bytes()
    machine = FakeMachine()
    with pytest.raises(InputError) as caught:
        made(path, rounds=9, machine=machine, **change)
    assert str(caught.value).startswith(f"{path}: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert machine.asked == []


def test_another_processor_version_or_number_of_threads_is_another_table(path, monkeypatch):
    made(path)
    with monkeypatch.context() as changed:
        changed.setattr("nas_recalib.device._processor", lambda: "abacus")
        with pytest.raises(InputError, match=r"device .*, not abacus \(1 of "):
            made(path)
    with monkeypatch.context() as changed:
        changed.setattr("os.cpu_count", lambda: 64)
        with pytest.raises(InputError, match="made with device"):
            made(path, settings=Settings(CPU, threads=2))
    with monkeypatch.context() as changed:
        changed.setattr("nas_recalib.device.version", lambda _: "9.9")
        with pytest.raises(InputError, match=r"nas-recalib .*, not 9\.9"):
            made(path)


@pytest.mark.parametrize(
    "content", ["", "{", '{"format": "nas-recalib/latency/1"', "[]", "null", '{"cases": []}']
)
def test_torn_and_foreign_files_are_refused_and_left_alone(path, content):
    path.write_text(content)
    machine = FakeMachine()
    with pytest.raises(InputError) as caught:
        made(path, machine=machine)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert path.read_text() == content
    assert machine.asked == []


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_table_torn_anywhere_is_refused(path, keep):
    made(path)
    whole = path.read_text()
    path.write_text(whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match="not JSON"):
        made(path)


def test_too_few_rounds_and_places_that_cannot_be_written_are_refused(path, tmp_path):
    with pytest.raises(
        InputError, match=r"rounds: 5 is not from 6 \(so that every choice is timed\) to 100,000"
    ):
        made(path, rounds=5)
    with pytest.raises(InputError, match="batch: 0 is not from 1 to 65,536"):
        made(path, batch=0)
    with pytest.raises(InputError, match="cannot be written"):
        made(tmp_path / "no" / "such.json")
    with pytest.raises(InputError, match="cannot be written: not a regular file"):
        made(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_defaults(tmp_path):
    assert resolve_rounds(space()) == 18
    assert resolve_rounds(space("network", recalibration="[none]")) == 9
    folder = tmp_path / "runs" / "latency"
    assert default_path(folder, space(), QUICK, 8) == folder / "tiny-cpu-b8-float32.json"
    gpu = Settings(torch.device("cuda:1"), threads=1, dtype="bfloat16", compile=True)
    assert default_path(folder, space(), gpu, 1).name == "tiny-cuda1-b1-bfloat16-compile.json"


def test_it_times_real_networks(path):
    chosen = space("network", convolution="[vanilla, psconv]", recalibration="[none]")
    table = build_table(path, chosen, QUICK, 2, rounds=2)
    vanilla, psconv = table.entries[0]
    assert vanilla.median > 0
    assert psconv.median > 0
    assert all(sum(done.blocks_ns) < 3 * done.network_ns for done in table.rounds)
    table.require(chosen, CPU)
