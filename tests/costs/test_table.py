"""The additive table equals a count of the network itself, whatever is chosen."""

from itertools import product

import numpy as np
import pytest
from examples import FEW_BACKBONES, examples, soaked
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.costs import Cost, CostTable
from nas_recalib.networks import get_backbone
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import space_names

TABLE = CostTable(
    ("macs", "params"),
    np.array([100, 7]),
    (np.array([[1, 9], [4, 2]]), np.array([[30, 5], [10, 6], [20, 0]])),
)
FULL = TABLE.with_column("latency", 50, ([3, 1], [0, 9, 2])).with_column(
    "memory", 40, ([10, 60], [50, 20, 30])
)


def whole_network(architecture, count):
    backbone, size = get_backbone(architecture.backbone), architecture.input_size
    return Cost(
        *count(lambda: backbone.build(architecture.blocks, architecture.num_classes, 3), 3, size, size)
    )


@pytest.mark.parametrize("name", soaked(space_names(), (*FEW_BACKBONES, "ablation-booster")))
def test_table_equals_a_direct_count(count, name):
    space = SearchSpace.load(name)

    @examples(20 if len(space.positions) > 20 else 50)
    @given(st.tuples(*(st.integers(0, len(position.choices) - 1) for position in space.positions)))
    def check(indices):
        architecture = space.from_indices(indices)
        assert (
            space.table.cost(indices) == vars(architecture.cost()) == vars(whole_network(architecture, count))
        )

    check()


@pytest.mark.parametrize("granularity", soaked(["stage", "network"], ["stage"]))
def test_table_of_shared_choices_equals_a_direct_count(count, tmp_path, granularity):
    path = tmp_path / "space.yaml"
    path.write_text(
        f"{{name: s, backbone: resnet50, granularity: {granularity}, num_classes: 7, input_size: 96,"
        " convolution: [vanilla, scconv], recalibration: [none, ab-plus, msar(scales=1-2)]}"
    )
    space = SearchSpace.load(path)
    random = np.random.default_rng(0)
    for _ in range(3):
        indices = tuple(int(random.integers(len(position.choices))) for position in space.positions)
        assert space.table.cost(indices) == vars(whole_network(space.from_indices(indices), count))


def test_cost_takes_one_row_a_position():
    assert TABLE.cost((0, 0)) == {"macs": 131, "params": 21}
    assert TABLE.cost((1, 2)) == {"macs": 124, "params": 9}


def test_latency_is_a_sum_and_memory_the_peak():
    assert FULL.names == ("macs", "params", "latency", "memory")
    assert FULL.cost((0, 0)) == {"macs": 131, "params": 21, "latency": 53, "memory": 50}
    assert FULL.cost((1, 1)) == {"macs": 114, "params": 15, "latency": 60, "memory": 60}
    assert FULL.cost((0, 2)) == {"macs": 121, "params": 16, "latency": 55, "memory": 40}


def test_least_and_greatest_are_those_of_each_column():
    assert FULL.least() == {"macs": 111, "params": 9, "latency": 51, "memory": 40}
    assert FULL.greatest() == {"macs": 134, "params": 22, "latency": 62, "memory": 60}


def test_costs_of_many_are_those_of_each():
    every = list(product(range(2), range(3)))
    costs = FULL.costs(np.array(every))
    assert costs.dtype == np.int64
    assert [dict(zip(FULL.names, row, strict=True)) for row in costs.tolist()] == [
        FULL.cost(p) for p in every
    ]
    assert FULL.costs(np.empty((0, 2), dtype=int)).shape == (0, 4)


@pytest.mark.parametrize("indices", [(0,), (0, 0, 0)])
def test_refuses_indices_of_another_length(indices):
    with pytest.raises(ValueError, match=r"indices: expected \(n, 2\), got"):
        TABLE.cost(indices)


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("params", ([0, 0], [0, 0, 0]), "name: 'params' is not a new column"),
        ("energy", ([0, 0], [0, 0, 0]), "name: 'energy' is not a new column; allowed: macs"),
        (
            "memory",
            ([0, 0], [0, 0]),
            r"entries: memory has the shapes \[\(2,\), \(2,\)\], expected \[\(2,\), \(3,\)\]",
        ),
        ("memory", ([0, 0],), r"entries: memory has the shapes \[\(2,\)\]"),
    ],
)
def test_refuses_a_column_that_does_not_fit(name, entries, message):
    with pytest.raises(ValueError, match=message):
        TABLE.with_column(name, 0, entries)


def test_costs_are_plain_integers():
    """They can then be written to JSON."""
    assert {type(value) for value in FULL.cost((0, 0)).values()} == {int}
