"""Initialisation: convolutions by fan-out, the gates of recalibrations by fan-in."""

import math

import pytest
import torch
from examples import soaked
from torch import nn

from nas_recalib.architecture import Architecture, build, build_seeded
from nas_recalib.data import load_resident, open_source
from nas_recalib.operators import AccuracyBooster
from nas_recalib.proxy.evaluation import normalise

GATED = ["ab", "ab-plus", "se", "msar", "ge", "cbam", "ab-design(design=O)"]


def fans(weight):
    return nn.init._calculate_fan_in_and_fan_out(weight)


@pytest.mark.parametrize("name", soaked(["resnet18", "resnet164", "densenet100", "shufflenet-g3"]))
@pytest.mark.parametrize("choice", GATED)
def test_gates_are_drawn_by_fan_in_and_all_else_by_fan_out(name, choice):
    network = build(Architecture.of(name, choice, num_classes=10))
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() >= 2000:
            fan_in, fan_out = fans(module.weight)
            fan = fan_in if ".recalibration" in path else fan_out
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.15)


@pytest.mark.parametrize(
    "name", soaked(["resnet18", "resnext29-8x64d", "resnet164", "densenet100", "shufflenet-g3"])
)
def test_the_fan_of_the_gates_changes_the_gates_alone(name):
    architecture = Architecture.of(name, "psconv+ab")
    given = (architecture.shape, architecture.blocks, 10, 3)
    by_in, by_out = (build_seeded(*given, seed=3, gate_fan=fan).state_dict() for fan in ("fan_in", "fan_out"))
    for key, tensor in by_in.items():
        gate = ".recalibration.conv" in key
        assert torch.equal(tensor, by_out[key]) is not gate
        if gate:  # the same draws, scaled
            torch.testing.assert_close(by_out[key] * math.sqrt(len(tensor)), tensor)


def damped(network, images):
    """Share of the boosters' channels whose norm has less than half of its gain without epsilon."""
    found = []

    def watch(module, inputs, _):
        variance = inputs[0].var((0, 2, 3), correction=0)
        found.append((variance / (variance + module.eps)).sqrt() < 0.5)

    for module in network.modules():
        if isinstance(module, AccuracyBooster):
            module.norm.register_forward_hook(watch)
    with torch.no_grad():
        network.train()(images)
    return torch.cat(found).float().mean().item()


def test_few_gates_are_damped_by_the_epsilon_of_their_norm(tmp_path):
    """A ResNet-164 on the digits: 15% of the channels with gates by fan-out."""
    data = load_resident(open_source("digits", tmp_path), 16, 128, 20, 0, cache=tmp_path, corrupt="refuse")
    images = normalise(data.train_images, data)
    architecture = Architecture.of("resnet164", "ab")
    given = (architecture.shape, architecture.blocks, 10, 3, 0)
    assert damped(build_seeded(*given, gate_fan="fan_in"), images) < 0.03
    assert damped(build_seeded(*given, gate_fan="fan_out"), images) > 0.08
