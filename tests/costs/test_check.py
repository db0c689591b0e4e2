"""Comparison of thop's count with ours, and the reasons for differences."""

import sys

import pytest
import torch
from examples import soaked

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Cost
from nas_recalib.costs import check as cost_check
from nas_recalib.costs.check import thop_cost
from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.plugins import load_plugins

CHOICES = (
    "vanilla",
    "vanilla+ab",
    "scconv+msar(scales=1-2)",
    "psconv+ab-plus",
    "psconv(pattern=1-2)+se",
    "scconv",
    "psconv-learned+ge",
    "psconv+msar(scales=1-2, share=yes)",
    "vanilla+ab-design(design=O)",
)
ONE_OF_EACH_KIND = (
    "resnet18",
    "resnet50",
    "resnet20",
    "resnet164",
    "resnext50-32x4d",
    "wrn22-10",
    "densenet100",
    "shufflenet-g3",
)


def mixed(name, choices=CHOICES):
    backbone = get_backbone(name)
    blocks = {block: choices[i % len(choices)] for i, block in enumerate(backbone.blocks())}
    return Architecture.of(name, blocks, input_size=min(64, backbone.input_size))


def check_cost(architecture):
    sizes = {"input_size": architecture.input_size, "num_classes": architecture.num_classes}
    return cost_check.check_cost(architecture.shape, architecture.blocks, **sizes)


def explained(check):
    return sum((difference.cost for difference in check.differences), check.ours)


@pytest.mark.parametrize("name", soaked(ONE_OF_EACH_KIND))
def test_the_difference_is_explained_to_the_last_digit(name):
    fitting = [c for c in CHOICES if name != "shufflenet-g3" or "psconv-learned" not in c]
    check = check_cost(mixed(name, fitting))
    assert check.ours == check.flop_counter
    assert explained(check) == check.thop
    assert check.unexplained == Cost(0, 0)
    assert check.thop.macs > check.ours.macs
    assert check.thop.params == check.ours.params, "thop knows every operator of ours"


def test_what_thop_adds_to_resnet50():
    """Its 53 norms see 11,113,984 values, its one pooling 49 of each of 2,048 channels."""
    check = check_cost(Architecture.of("resnet50", "vanilla"))
    assert check.ours == Cost(4_089_184_256, 25_557_032)
    assert [d.times for d in check.differences] == [53, 1]
    assert [d.cost.macs for d in check.differences] == [4 * 11_113_984, 2048 * (49 + 1)]


def test_a_user_s_operator_is_said_to_be_unknown_to_thop(tmp_path, forget):
    (tmp_path / "mine.py").write_text(
        """
from torch import nn
from nas_recalib.operators import register

@register("mine", "convolution")
class Mine(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, groups=1):
        super().__init__(in_channels, out_channels, kernel_size, stride, 1, groups=groups, bias=False)
"""
    )
    load_plugins([str(tmp_path / "mine.py")])
    blocks = dict.fromkeys(get_backbone("resnet20").blocks(), "vanilla")
    check = check_cost(Architecture.of("resnet20", {**blocks, "layer1.0": "mine"}))
    unknown = check.differences[-1]
    assert unknown.why == "Mine: thop does not know it"
    assert unknown.times == 2
    assert unknown.cost == Cost(-2 * 16 * 16 * 9 * 32 * 32, -2 * 16 * 16 * 9)
    assert check.unexplained == Cost(0, 0)


def test_counting_leaves_the_network_as_it_was():
    with torch.device("meta"):
        network = get_backbone("resnet20").build(mixed("resnet20").blocks, 10, 3).train()
    keys, hooks = list(network.state_dict()), [len(m._forward_hooks) for m in network.modules()]
    thop_cost(network, (1, 3, 32, 32))
    assert list(network.state_dict()) == keys
    assert [len(m._forward_hooks) for m in network.modules()] == hooks
    assert network.training


def test_says_how_to_get_what_thop_imports(monkeypatch):
    monkeypatch.setitem(sys.modules, "thop.profile", None)
    with pytest.raises(InputError, match=r"^check: thop cannot be imported \(.*; .*pip install setuptools$"):
        check_cost(Architecture.of("resnet20", "vanilla"))
