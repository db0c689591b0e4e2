"""The supernet: which weights are shared, fair paths, subnets equal to networks of their own, resuming."""

from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import nas_recalib as nr
from nas_recalib.architecture import build_seeded
from nas_recalib.data import load_resident, open_source
from nas_recalib.networks import get_backbone
from nas_recalib.operators import BlockChoice
from nas_recalib.proxy.objective import Proxy
from nas_recalib.proxy.supernet import (
    BlockOptions,
    OneShot,
    ScaledRecalibration,
    build_supernet,
    expand,
    fair_path,
    select,
)
from nas_recalib.proxy.train import Recipe
from nas_recalib.space import SearchSpace

CHOICES = [
    "vanilla",
    "psconv",
    "psconv(pattern=1-2)+ab",
    "scconv",
    "scconv(r=2)+msar(reduction=3)",
    "vanilla+ab",
]
SPACE = """
format: nas-recalib/space/2
name: small
backbone: {backbone}
input_size: 32
num_classes: 10
granularity: {granularity}
convolution: [vanilla, scconv, psconv]
recalibration: [none, ab]
"""


def supernet(backbone="resnet20", width=0.5, choices=CHOICES):
    shape = get_backbone(backbone).scaled(width)
    options = [BlockChoice.parse(choice) for choice in choices]
    return shape, build_supernet(shape, dict.fromkeys(shape.blocks(), options), 10, seed=0)


def small_space(backbone="resnet20", granularity="block"):
    return SearchSpace.parse(SPACE.format(backbone=backbone, granularity=granularity), "small.yaml")


@pytest.fixture(scope="module")
def few():
    return load_resident(open_source("digits", Path()), 16, 96, 40, seed=0)


@pytest.fixture(scope="module")
def one_shot(few):
    proxy = Proxy(few, 0.5, 2, Recipe(batch_size=16), torch.float32, seed=0)
    return OneShot(small_space(), proxy)


@pytest.mark.parametrize(
    ("backbone", "width"),
    [("resnet20", 0.5), ("resnet18", 0.125), ("wrn22-10", 0.05), ("shufflenet-g3", 0.25)],
)
def test_a_subnet_is_the_network_with_its_weights(backbone, width):
    depthwise = get_backbone(backbone).depthwise
    choices = ["vanilla", "psconv+ab", "vanilla+msar"] if depthwise else CHOICES
    shape, net = supernet(backbone, width, choices)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for offset in range(2):
        path = [(index + offset) % len(choices) for index in range(len(shape.blocks()))]
        select(net, path)
        blocks = {
            name: BlockChoice.parse(choices[index]) for name, index in zip(shape.blocks(), path, strict=True)
        }
        own = build_seeded(shape, blocks, 10, 3, seed=5)
        scales = {}
        state = own.state_dict()
        for name, index in zip(shape.blocks(), path, strict=True):
            option = net.get_submodule(name).options[index]
            for key, value in option.state_dict().items():
                if key == "recalibration.scale":
                    scales[name] = float(value)
                else:
                    state[f"{name}.{key.replace('recalibration.recalibration.', 'recalibration.')}"] = value
        state |= {
            key: value for key, value in net.state_dict().items() if key in state and ".options." not in key
        }
        own.load_state_dict(state)
        for name, scale in scales.items():
            block = own.get_submodule(name)
            scaled = ScaledRecalibration(block.recalibration)
            nn.init.constant_(scaled.scale, scale)
            block.recalibration = scaled
        for mode in (True, False):
            torch.testing.assert_close(net.train(mode)(images), own.train(mode)(images))


def test_choices_share_what_has_the_same_role():
    _, net = supernet()
    vanilla, psconv, dilated, scconv, pooled, gated = net.get_submodule("layer1.0").options
    assert vanilla.conv1.weight is psconv.conv1.weight is dilated.conv1.weight
    assert scconv.conv1.k1.weight is pooled.conv1.k1.weight
    assert vanilla.bn1 is gated.bn1
    assert len({vanilla.bn1, psconv.bn1, dilated.bn1, scconv.bn1, pooled.bn1}) == 5
    assert dilated.recalibration is gated.recalibration
    shortcuts = {option.downsample[0].weight for option in net.get_submodule("layer2.0").options}
    assert len(shortcuts) == 1
    assert net.get_submodule("layer1.1").options[0].conv1.weight is not vanilla.conv1.weight


def test_an_operator_of_ones_own_has_weights_of_its_own(forget, tmp_path):
    @nr.register("own-conv", "convolution")
    class OwnConv(nn.Conv2d):
        def __init__(self, in_channels, out_channels, kernel_size, stride, groups):
            super().__init__(in_channels, out_channels, kernel_size, stride, 1, groups=groups, bias=False)

    _, net = supernet(choices=["vanilla", "own-conv", "own-conv+ab"])
    vanilla, own, gated = net.get_submodule("layer1.0").options
    assert own.conv1.weight is gated.conv1.weight
    assert own.conv1.weight is not vanilla.conv1.weight


def test_gates_start_at_the_magnitude_of_their_input():
    _, net = supernet()
    scales = [float(m.scale.detach()) for m in net.modules() if isinstance(m, ScaledRecalibration)]
    assert len(scales) == 9 * 2
    assert all(1.5 < scale < 2.5 for scale in scales)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 2**31), st.integers(0, 50))
def test_every_choice_is_taken_once_before_any_is_again(sizes, seed, cycle):
    for position, size in enumerate(sizes):
        steps = range(cycle * size, (cycle + 1) * size)
        taken = Counter(fair_path(sizes, seed, step)[position] for step in steps)
        assert taken == dict.fromkeys(range(size), 1)


def test_positions_are_drawn_independently():
    pairs = Counter(fair_path([3, 3], 0, step) for step in range(900))
    assert pairs.keys() == set(product(range(3), repeat=2))
    assert min(pairs.values()) > 60


def test_blocks_of_a_stage_take_the_choice_of_their_position():
    space = small_space(granularity="stage")
    assert expand(space, (4, 0, 2)) == (4, 4, 4, 0, 0, 0, 2, 2, 2)


def test_a_supernet_trains_resumes_bit_for_bit_and_scores(one_shot):
    whole = one_shot.training()
    assert [epoch.number for epoch in whole] == [1, 2]
    left, resumed = one_shot.training(), one_shot.training()
    next(iter(left))
    resumed.load_state_dict(left.state_dict())
    assert [epoch.number for epoch in resumed] == [2]
    assert resumed.curve == whole.curve
    other = resumed.state_dict()["network"]
    for key, value in whole.state_dict()["network"].items():
        assert torch.equal(value, other[key]), key
    paths = [(0,) * 9, (5,) * 9, (0, 1, 2, 3, 4, 5, 0, 1, 2)]
    scores = [one_shot.score(whole.evaluated_network, path) for path in paths]
    again = [one_shot.score(resumed.evaluated_network, path) for path in reversed(paths)]
    assert scores == again[::-1]
    assert len(set(scores)) == 3
    assert all(0 <= accuracy <= 1 and loss > 0 for accuracy, loss in scores)


def test_other_seeds_give_other_supernets(one_shot):
    networks = [
        replace(one_shot, proxy=replace(one_shot.proxy, seed=seed)).training().evaluated_network
        for seed in (0, 1)
    ]
    assert not torch.equal(networks[0].conv1.weight, networks[1].conv1.weight)
    assert isinstance(networks[0].get_submodule("layer1.0"), BlockOptions)
