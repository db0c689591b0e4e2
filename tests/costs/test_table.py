"""The additive table equals a count of the network itself, whatever is chosen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_recalib.costs import Cost, CostTable
from nas_recalib.networks import get_backbone
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import space_names

TABLE = CostTable(np.array([100, 7]), (np.array([[1, 9], [4, 2]]), np.array([[30, 5], [10, 6], [20, 0]])))


def whole_network(architecture, count):
    backbone, size = get_backbone(architecture.backbone), architecture.input_size
    return Cost(
        *count(lambda: backbone.build(architecture.blocks, architecture.num_classes, 3), 3, size, size)
    )


@pytest.mark.parametrize("name", space_names())
def test_table_equals_a_direct_count(count, name):
    space = SearchSpace.load(name)

    @settings(max_examples=2 if len(space.positions) > 20 else 5)
    @given(st.tuples(*(st.integers(0, len(position.choices) - 1) for position in space.positions)))
    def check(picks):
        architecture = space.at(picks)
        assert space.table.cost(picks) == architecture.cost() == whole_network(architecture, count)

    check()


@pytest.mark.parametrize("granularity", ["stage", "network"])
def test_table_of_shared_choices_equals_a_direct_count(count, tmp_path, granularity):
    path = tmp_path / "space.yaml"
    path.write_text(
        f"{{name: s, backbone: resnet50, granularity: {granularity}, num_classes: 7, input_size: 96,"
        " convolution: [vanilla, scconv], recalibration: [none, ab-plus, msar(scales=1-2)]}"
    )
    space = SearchSpace.load(path)
    random = np.random.default_rng(0)
    for _ in range(3):
        picks = tuple(int(random.integers(len(position.choices))) for position in space.positions)
        assert space.table.cost(picks) == whole_network(space.at(picks), count)


def test_cost_takes_one_row_a_position():
    assert TABLE.cost((0, 0)) == Cost(131, 21)
    assert TABLE.cost((1, 2)) == Cost(124, 9)


def test_least_and_greatest_are_those_of_each_column():
    assert TABLE.least() == Cost(111, 9)
    assert TABLE.greatest() == Cost(134, 22)


@pytest.mark.parametrize("picks", [(0,), (0, 0, 0)])
def test_refuses_picks_of_another_length(picks):
    with pytest.raises(ValueError, match="argument 2 is"):
        TABLE.cost(picks)


def test_costs_are_plain_integers():
    """So that they can be written to a file as they are."""
    assert {type(value) for value in vars(TABLE.cost((0, 0))).values()} == {int}
