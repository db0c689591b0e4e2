"""Pre-activation networks: the parameters that papers print, and blocks against the formula."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas_recalib.architecture import Architecture, build
from nas_recalib.networks import get_backbone
from nas_recalib.operators import MSSAR, AccuracyBooster, BlockChoice, PSConv2d, SCConv2d

NAMES = ["resnet164", "wrn22-10"]
TABLE_15 = {
    "vanilla": (1.734, 246.58),
    "ab": (1.758, 246.59),
    "ab(groups=16)": (1.847, 246.68),
    "ab(groups=8)": (1.944, 246.78),
    "ab(groups=4)": (2.137, 246.97),
    "ab(groups=2)": (2.524, 247.36),
    "ab-plus": (3.298, 248.14),
}


def shallow(name):
    """One block a stage, an eighth as wide."""
    return replace(get_backbone(name).scaled(0.125), depths=(1, 1, 1))


@pytest.mark.parametrize(("choice", "printed"), TABLE_15.items())
def test_resnet_164_has_what_accuracy_booster_prints(choice, printed):
    """Table 15, CIFAR-100, digits cut off and not rounded.

    Its multiply-accumulates hold one for each value that a bias is added to, which ours leave out; they
    agree within a unit of the last digit.
    """
    cost = Architecture.of("resnet164", choice, num_classes=100).cost()
    biased = 18 * (64 * 32**2 + 128 * 16**2 + 256 * 8**2)
    params, macs = printed
    assert math.floor(cost.params / 1e3) / 1e3 == params
    assert abs((cost.macs + biased) / 1e6 - macs) < 0.01


# Zagoruyko & Komodakis (BMVC 2016), tables 4 and 5, CIFAR-10.
@pytest.mark.parametrize(("name", "millions"), [("resnet164", 1.7), ("wrn22-10", 26.8)])
def test_parameters_are_those_printed(name, millions):
    assert round(Architecture.of(name, "vanilla").cost().params / 1e6, 1) == millions


@pytest.mark.parametrize(("name", "layers", "counted"), [("resnet164", 163, 0), ("wrn22-10", 22, 3)])
def test_as_deep_as_the_name_says(name, layers, counted):
    """A thin network's name counts its classifier too, a wide one's its three projections."""
    with torch.device("meta"):
        network = get_backbone(name).build(Architecture.of(name, "vanilla").blocks, 100, 3)
    convolutions = [key for key, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    projections = [key for key in convolutions if "downsample" in key]
    assert projections == [f"layer{stage}.0.downsample" for stage in (1, 2, 3)]
    assert len(convolutions) - 3 + counted == layers


def activated(norm, x):
    mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
    scaled = (x - mean) / (var + norm.eps).sqrt()
    return (scaled * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_compute_the_formula(normal, make, name):
    """x + F(x), each convolution of F after its norm and ReLU; a projection takes the first of them."""
    shape = replace(shallow(name), depths=(2, 2, 2))
    choices = dict.fromkeys(shape.blocks(), BlockChoice.parse("ab"))
    network = make(shape.build, choices, 10, 3)
    x = images = normal(2, 3, 16, 16)
    x = F.conv2d(x, network.conv1.weight, padding=1)
    for key in shape.blocks():
        block = network.get_submodule(key)
        count = 3 if name == "resnet164" else 2
        convs = [block.get_submodule(f"conv{i}") for i in range(1, count + 1)]
        norms = [block.get_submodule(f"bn{i}") for i in range(1, count + 1)]
        first = activated(norms[0], x)
        stride = 2 if key in ("layer2.0", "layer3.0") else 1
        if key.endswith(".0"):
            assert list(block.downsample.state_dict()) == ["weight"]
            x = F.conv2d(first, block.downsample.weight, stride=stride)
        y = first
        for i, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
            y = first if i == 0 else activated(norm, y)
            padding = conv.weight.shape[-1] // 2
            y = F.conv2d(y, conv.weight, conv.bias, stride if i == 0 else 1, padding)
        x = x + block.recalibration(y)
    pooled = activated(network.bn1, x).mean((2, 3))
    torch.testing.assert_close(network(images), F.linear(pooled, network.fc.weight, network.fc.bias))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("index", [0, 1])
def test_recalibration_stands_before_the_sum(normal, make, name, index):
    """With a recalibration of zero, only the shortcut remains."""
    shape = replace(shallow(name), depths=(1, 2, 1))
    network = make(shape.build, dict.fromkeys(shape.blocks(), BlockChoice.parse("ab")), 10, 3)
    block = network.layer2[index]
    block.recalibration = type("Zero", (nn.Module,), {"forward": lambda _, x: 0 * x})()
    x = normal(1, block.bn1.num_features, 8, 8)
    shortcut = x if index else block.downsample(activated(block.bn1, x))
    torch.testing.assert_close(block(x), shortcut)


@pytest.mark.parametrize(("name", "replaced"), [("resnet164", ["conv2"]), ("wrn22-10", ["conv1", "conv2"])])
def test_a_choice_takes_the_3x3_convolutions_of_its_block_alone(name, replaced):
    choices = {**Architecture.of(name, "vanilla").blocks, "layer2.0": BlockChoice.parse("psconv+ab")}
    with torch.device("meta"):
        network = get_backbone(name).build(choices, 10, 3)
    found = [key for key, module in network.named_modules() if isinstance(module, PSConv2d | AccuracyBooster)]
    assert found == [f"layer2.0.{part}" for part in (*replaced, "recalibration")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0.01, 0.1, 0.3, 0.5, 1, 1.5])
def test_a_proxy_network_takes_what_the_full_network_takes(name, width):
    full, scaled = get_backbone(name), get_backbone(name).scaled(width)
    assert list(scaled.blocks()) == list(full.blocks())
    assert scaled.channels == scaled.outputs or full.channels != full.outputs
    for spec in dict.fromkeys(scaled.blocks().values()):
        with torch.device("meta"):
            block = spec.build(BlockChoice.parse("psconv(pattern=1-1-2-2-1-1-4-4)+msar"))
            other = spec.build(BlockChoice.parse("scconv+ab(groups=8)"))
        assert {type(block.conv2), type(other.conv2)} == {PSConv2d, SCConv2d}
        assert isinstance(block.recalibration, MSSAR)


def test_a_proxy_network_of_width_one_is_the_network():
    for name in NAMES:
        assert get_backbone(name).scaled(1) == replace(get_backbone(name), clamp=True)


@pytest.mark.parametrize("choice", ["vanilla", "scconv+msar", "psconv+ab-plus", "se"])
@pytest.mark.parametrize("name", NAMES)
def test_trains_on_small_images(normal, make, name, choice):
    shape = shallow(name)
    blocks = dict.fromkeys(shape.blocks(), BlockChoice.parse(choice))
    network = make(shape.build, blocks, 10, 3, dtype=torch.float32).train()
    for size in (8, 16, 32):
        network.zero_grad()
        network(normal(2, 3, size, size, dtype=torch.float32)).logsumexp(1).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_stem_keeps_the_size_and_stages_halve_it(normal, make, name):
    network = make(build, Architecture.of(name, "vanilla"), in_channels=4, num_classes=7, dtype=torch.float32)
    sizes = []
    for stage in ("layer1", "layer2", "layer3"):
        hook = network.get_submodule(stage).register_forward_hook
        hook(lambda _, inputs, output: sizes.append((inputs[0].shape[-1], output.shape[-1])))
    assert network(normal(1, 4, 16, 16, dtype=torch.float32)).shape == (1, 7)
    assert sizes == [(16, 16), (16, 8), (8, 4)]
