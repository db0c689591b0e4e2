"""The benchmark of latencies runs whole on small networks, and does not measure twice what it has."""

import importlib.util
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "latency.py"
SPACE = """
name: tiny
backbone: resnet20
input_size: 8
granularity: stage
convolution: [vanilla, psconv]
recalibration: [none]
"""


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_latency", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path


def run(benchmark, monkeypatch, *options):
    quick = "--spaces tiny.yaml --architectures 3 --rounds 4 --seconds 0.01 --threads 1 --device cpu"
    command = ["latency.py", *quick.split(), "--tables", "tables", "--output", "out.json", *options]
    monkeypatch.setattr("sys.argv", command)
    benchmark.main()


def test_it_runs_whole_and_a_rerun_skips_what_is_done(benchmark, here, monkeypatch, capsys):
    run(benchmark, monkeypatch, "--batches", "1")
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 4 + 2 * 3
    assert "case 1/1, tiny, batch 1: 10/10, about 0.0 min left" in told.err
    (first,) = json.loads((here / "out.json").read_text())["cases"]
    assert first["prediction"].keys() == first["ceiling"].keys()
    assert len({network["architecture"] for network in first["networks"]}) == 3
    assert {"tables/tiny-cpu-b1-float32.json", "out-tiny-b1.svg"} <= {
        str(path.relative_to(here)) for path in here.rglob("*")
    }
    picture = ElementTree.parse(here / "out-tiny-b1.svg")
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}circle")) == 3

    run(benchmark, monkeypatch, "--batches", "1", "2")
    told = capsys.readouterr()
    assert "case 1/1, tiny, batch 2: 1/10" in told.err
    again, second = json.loads((here / "out.json").read_text())["cases"]
    assert again == first
    assert (second["batch"], second["space"]) == (2, "tiny")
    assert len(told.out.splitlines()) == 2 + 2

    monkeypatch.setattr(benchmark, "measure", None)
    run(benchmark, monkeypatch, "--batches", "2", "1")
    assert capsys.readouterr().err == ""


def test_architectures_are_none_of_the_rounds(benchmark, here):
    settings = benchmark.Settings(benchmark.pick_device("cpu"), threads=1, seconds=0.01)
    space = benchmark.SearchSpace.load("tiny.yaml")
    table = benchmark.build_table(here / "t.json", space, settings, 1, rounds=2)
    seen = {space.from_indices(tuple(done.indices)) for done in table.rounds}
    drawn = benchmark.unseen(table, 6, 0)
    assert len(set(drawn)) == 6
    assert not seen & set(drawn)
    assert benchmark.unseen(table, 6, 1) != drawn
    with pytest.raises(benchmark.InputError, match="architectures: 7 are more than the space has"):
        benchmark.unseen(table, 7, 0)


def test_figures(benchmark):
    told = benchmark.figures([10.0, 21.0, 36.0, 40.0], [10.0, 20.0, 30.0, 50.0])
    assert told["median_absolute_error"] == pytest.approx((0.05 + 0.2) / 2)
    assert told["within_10_percent"] == 0.5
    assert told["kendall_tau"] == 1.0
    assert benchmark.figures([1.0, 3.0, 2.0], [1.0, 2.0, 3.0])["kendall_tau"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--device", "tpu"], "device: 'tpu' does not exist here"),
        (["--spaces", "resnet51"], "unknown space 'resnet51'"),
        (["--dtype", "int8"], "dtype: 'int8' is not one of"),
        (["--architectures", "1"], "architectures: 1 is less than 2"),
        (["--rounds", "1"], "rounds: 1 is not from 2"),
        (["--batches", "0"], "batch: 0 is not from 1"),
        (["--output", "no/such/folder.json"], "no/such/folder.json: cannot be written"),
        (["--output", "tiny.yaml"], "tiny.yaml: not a result of this benchmark"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(benchmark, here, monkeypatch, options, named):
    with pytest.raises(SystemExit, match=f"^error: {named}"):
        run(benchmark, monkeypatch, *options)
    assert not (here / "out.json").exists()
