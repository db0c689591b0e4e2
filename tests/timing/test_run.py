"""Runs: what is reported, how it is averaged, and what is said when memory is too small."""

import json
import math
from importlib.metadata import version

import pytest
import torch

from nas_recalib.device import device_name
from nas_recalib.errors import InputError
from nas_recalib.operators import BlockChoice
from nas_recalib.timing.cases import Case, Place, Settings, list_cases
from nas_recalib.timing.paired import MIN_ROUNDS, Times
from nas_recalib.timing.run import Mean, Result, geometric_means, report, run

CPU = torch.device("cpu")


def result(ratio, *, kind="layers", sizes="cifar", name="64@8", batch=2, choice="psconv"):
    place = Place(kind, sizes, name, (64, 8, 8), lambda _: torch.nn.Identity())
    times = Times(((0.002, 0.002 * ratio),) * 4 + ((0.004, 0.004 * ratio * 2),), iterations=3)
    return Result(Case(place, BlockChoice.parse(choice), batch), times)


def test_a_result_tells_everything():
    content = result(1.5).as_dict()
    assert content == {
        "set": "layers",
        "sizes": "cifar",
        "place": "64@8",
        "input_shape": [2, 64, 8, 8],
        "choice": "psconv",
        "vanilla_ms": 2.0,
        "choice_ms": 3.0,
        "ratio": 1.5,
        "ratio_quartiles": [1.5, 1.5],
        "samples": 5,
        "calls_per_sample": 3,
    }


def test_means_are_geometric_over_the_places_of_a_set():
    results = [
        result(1.0, name="16@32"),
        result(4.0, name="32@16"),
        result(2.0, name="16@32", choice="scconv"),
        result(3.0, batch=8),
        result(5.0, kind="blocks"),
        result(6.0, sizes="imagenet"),
        result(2.0, name="64@8"),
    ]
    means = geometric_means(results)
    assert means[0] == Mean("layers", "cifar", 2, "psconv", 3, pytest.approx(2.0), pytest.approx(4.0))
    assert [(mean.choice, mean.places, mean.ratio) for mean in means[1:]] == [
        ("scconv", 1, pytest.approx(2.0)),
        ("psconv", 1, pytest.approx(3.0)),
        ("psconv", 1, pytest.approx(5.0)),
        ("psconv", 1, pytest.approx(6.0)),
    ]


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_every_set_runs_and_its_report_is_whole(mode):
    settings = Settings(CPU, mode=mode, memory_format="contiguous", threads=1, seconds=0.001, seed=3)
    cases = list_cases("all", "cifar", ["psconv", "ab"], mode=mode, batch_size=2)
    results = list(run(cases, settings))
    assert [result.case for result in results] == cases
    assert torch.get_num_threads() == 1
    content = json.loads(json.dumps(report(results, settings), allow_nan=False))
    assert content["device"] == device_name(CPU)
    assert content["versions"] == {"nas-recalib": version("nas-recalib"), "torch": torch.__version__}
    assert (content["mode"], content["dtype"], content["memory_format"]) == (mode, "float32", "contiguous")
    assert (content["threads"], content["seconds"], content["compile"], content["seed"]) == (
        1,
        0.001,
        False,
        3,
    )
    assert [case["input_shape"] for case in content["cases"]] == [list(case.input_shape) for case in cases]
    for case in content["cases"]:
        assert case["samples"] >= MIN_ROUNDS
        assert case["ratio_quartiles"][0] <= case["ratio"] <= case["ratio_quartiles"][1]
        assert all(math.isfinite(case[key]) and case[key] > 0 for key in ("vanilla_ms", "choice_ms", "ratio"))
    groups = [(mean["set"], mean["choice"], mean["places"]) for mean in content["geometric_means"]]
    assert groups == [
        ("layers", "psconv", 3),
        ("blocks", "psconv", 3),
        ("blocks", "vanilla+ab", 3),
        ("networks", "psconv", 1),
        ("networks", "vanilla+ab", 1),
    ]


def raising(error):
    def build(_):
        raise error

    return Case(Place("layers", "cifar", "64@8", (4, 2, 2), build), BlockChoice(), 2)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"),
    ],
)
def test_too_little_memory_is_reported_in_one_line(error):
    with pytest.raises(InputError, match="batch-size: layers, 64@8, batch 2, vanilla: does not fit"):
        list(run([raising(error)], Settings(CPU, threads=1)))


def test_any_other_trouble_is_not_hidden():
    with pytest.raises(RuntimeError, match="something else"):
        list(run([raising(RuntimeError("something else"))], Settings(CPU, threads=1)))
