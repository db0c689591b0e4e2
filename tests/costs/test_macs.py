"""Costs against counts made by hand, by another counter, and on the whole network at once."""

import copy

import pytest
import thop
import torch
from examples import soaked
from torch import nn

from nas_recalib.architecture import Architecture, build
from nas_recalib.costs import Cost, count_cost
from nas_recalib.costs.macs import network_cost
from nas_recalib.networks import get_backbone
from nas_recalib.operators import AccuracyBooster, BlockChoice, PSConv2d, SCConv2d


def on_meta(constructor, *arguments, **options):
    with torch.device("meta"):
        return constructor(*arguments, **options)


@pytest.mark.parametrize(
    ("module", "macs", "params"),
    [
        (lambda: nn.Conv2d(8, 16, 3, 1, 1, bias=False), 10 * 10 * 16 * 8 * 9, 16 * 8 * 9),
        (lambda: nn.Conv2d(8, 16, 3, 2, 1, groups=4), 5 * 5 * 16 * 2 * 9, 16 * 2 * 9 + 16),
        (lambda: nn.Sequential(nn.AvgPool2d(10), nn.Flatten(), nn.Linear(8, 5)), 8 * 5, 8 * 5 + 5),
        (lambda: nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()), 0, 16),
        (lambda: PSConv2d(8, 16), 10 * 10 * 16 * 8 * 9, 16 * 8 * 9),
        (lambda: SCConv2d(8, 8, r=5), (3 * 10 * 10 + 2 * 2) * 4 * 4 * 9, 4 * 4 * 4 * 9 + 4 * 4),
        (lambda: AccuracyBooster(8, groups=2), 8 * 4, 8 * 4 + 16),
    ],
)
def test_counts_convolutions_and_linear_layers_alone(module, macs, params):
    assert count_cost(on_meta(module), (1, 8, 10, 10)) == Cost(macs, params)


@pytest.mark.parametrize("training", [False, True])
def test_counting_leaves_the_module_as_it_was(training):
    module = on_meta(AccuracyBooster, 8).train(training)
    keys = list(module.state_dict())
    count_cost(module, (1, 8, 4, 4))  # one image, which in training would be refused
    assert module.training is training
    assert list(module.state_dict()) == keys


class InPlaceAfterANorm(nn.Module):
    """The norm's output changes its shape, while its input is used on."""

    def __init__(self):
        super().__init__()
        self.pool, self.norm = nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8)
        self.linear, self.convolution = nn.Linear(8, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        pooled = self.pool(x)
        weights = self.linear(self.norm(pooled).squeeze_(-1).squeeze_(-1))
        half = self.norm(x[:, :, ::2, ::2]).view(1, 8, -1, 1)
        return self.convolution(pooled * x) * weights[..., None, None], self.convolution(half)


def test_norms_leave_their_input_alone(count):
    whole = Cost(*count(InPlaceAfterANorm, 8, 4, 4))
    assert count_cost(on_meta(InPlaceAfterANorm), (1, 8, 4, 4)) == whole
    assert whole.macs == 64 + (16 + 4) * 8 * 8 * 9


def test_what_a_norm_refuses_is_refused():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        count_cost(on_meta(nn.BatchNorm2d, 8, track_running_stats=False), (1, 8, 1, 1))


@pytest.mark.parametrize("channels", [1, 7, 16])
@pytest.mark.parametrize("tracks", [False, True])
def test_norms_of_other_channels_are_refused(channels, tracks):
    with pytest.raises((RuntimeError, ValueError)):
        count_cost(on_meta(nn.BatchNorm2d, channels, track_running_stats=tracks), (1, 8, 4, 4))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
@pytest.mark.parametrize(("size", "classes", "in_channels"), soaked([(33, 7, 1), (64, 100, 4)], [(33, 7, 1)]))
def test_costs_follow_images_and_classes(count, name, size, classes, in_channels):
    backbone = get_backbone(name)
    texts = ["scconv+ab-plus", "psconv+msar(scales=1)", "se"]
    blocks = {block: BlockChoice.parse(texts[i % 3]) for i, block in enumerate(backbone.blocks())}
    sizes = {"input_size": size, "num_classes": classes, "in_channels": in_channels}
    whole = count(lambda: backbone.build(blocks, classes, in_channels), in_channels, size, size)
    assert network_cost(backbone, blocks, **sizes) == Cost(*whole)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_thop_agrees_on_a_vanilla_network(name):
    """On a copy, for thop leaves buffers behind, and without the norms and poolings that it adds in."""
    network = build(Architecture.of(name, "vanilla"))
    silent = (nn.BatchNorm2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d)
    ignored = dict.fromkeys(silent, lambda *_: None)
    macs, params = thop.profile(
        copy.deepcopy(network), (torch.zeros(1, 3, 224, 224),), custom_ops=ignored, verbose=False
    )
    assert Architecture.of(name, "vanilla").cost() == Cost(int(macs), int(params))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("ge(size=9)", r"layer1\.0: ge: size = 9 is not the side of a 56x56 map"),
        ("psconv(pattern=1-2-3)+ab(groups=3)", r"layer1\.0: ab: groups = 3 is not a divisor of the channels"),
        ("msar(scales=1-8)", r"layer4\.0: msar: scales = \(1, 8\) is not within a 7x7 map"),
        ("ab(groups=80)", r"layer1\.0: ab: groups = 80 is not a divisor of the channels \(256\)"),
    ],
)
def test_names_the_block_that_an_operator_does_not_fit(choice, message):
    with pytest.raises(ValueError, match=message):
        Architecture.of("resnet50", choice).cost()


def test_costs_add_and_subtract():
    assert Cost(5, 7) + Cost(1, 2) - Cost(2, 3) == Cost(4, 6)
