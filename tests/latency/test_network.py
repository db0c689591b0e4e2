"""Networks made quickly compute like ordinary ones, and the timer sees each block."""

import time

import pytest
import torch
from torch import nn

from nas_recalib.architecture import Architecture, build
from nas_recalib.latency.measure import BlockTimer, build_quickly
from nas_recalib.timing.cases import Settings

CPU = torch.device("cpu")
PLAIN = Settings(CPU, threads=1)
MIXED = ("psconv+msar", "scconv+ab-plus", "psconv-learned+se", "scconv(r=2)", "vanilla+ab")
SMALL = {
    "resnet18": 64,
    "resnet50": 128,
    "resnet20": 32,
    "resnet164": 16,
    "resnext50-32x4d": 128,
    "densenet100": 16,
}


def mixed(backbone, side):
    names = list(Architecture.of(backbone, "vanilla").blocks)
    blocks = {name: MIXED[index % len(MIXED)] for index, name in enumerate(names)}
    if backbone == "resnext50-32x4d":
        blocks = {name: blocks[name].replace("psconv-learned", "vanilla") for name in names}
    return Architecture.of(backbone, blocks, input_size=side)


@pytest.mark.parametrize("backbone", SMALL)
def test_every_activation_is_an_ordinary_number(backbone):
    architecture = mixed(backbone, SMALL[backbone])
    network = build_quickly(architecture, PLAIN)
    least = torch.finfo(torch.float32).tiny
    seen = []

    def look(_, inputs, y):
        seen.append(y.abs().max().item())
        assert y.isfinite().all()
        assert not ((y != 0) & (y.abs() < least)).any(), "denormal numbers are slow"

    for module in network.modules():
        module.register_forward_hook(look)
    with torch.inference_mode():
        network(torch.randn(1, 3, architecture.input_size, architecture.input_size))
    assert len(seen) > 3 * len(architecture.choices)
    assert max(seen) < 1e6


@pytest.mark.parametrize("backbone", ["resnet20", "densenet100"])
def test_it_is_the_network_that_is_built_otherwise_but_for_its_weights(backbone):
    architecture = mixed(backbone, 32)
    quick, usual = build_quickly(architecture, PLAIN), build(architecture)
    shapes = [{name: t.shape for name, t in network.state_dict().items()} for network in (quick, usual)]
    assert shapes[0] == shapes[1]
    for (name, drawn), other in zip(quick.named_parameters(), usual.parameters(), strict=True):
        constant = other.numel() > 1 and other.std(correction=0) == 0
        assert torch.equal(drawn, other) if constant else 0 < drawn.abs().max() < 10, name
    for (name, buffer), other in zip(quick.named_buffers(), usual.buffers(), strict=True):
        assert torch.equal(buffer, other), name
    assert not any(module.training for module in quick.modules())
    for module in quick.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_seed_decides_and_the_global_generator_is_left_alone():
    architecture = Architecture.of("resnet20", "psconv+ab")
    state = torch.random.get_rng_state()
    first, same, other = (
        build_quickly(architecture, Settings(CPU, threads=1, seed=seed)).conv1.weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert nn.Conv2d(4, 4, 3).weight.std() > 0, "ordinary draws are as they were"


def test_compiled_regions_are_the_blocks_and_what_is_between_them(monkeypatch):
    compiled = []
    original = nn.Module.compile

    def eagerly(self):
        compiled.append(self)
        original(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", eagerly)
    architecture = Architecture.of("densenet100", "vanilla", input_size=8)
    network = build_quickly(architecture, Settings(CPU, threads=1, compile=True))
    blocks = [network.get_submodule(name)[0] for name in architecture.blocks]
    assert all(type(block).__name__ == "DenseLayer" for block in blocks)
    features = network.features
    between = ["conv0", "transition1", "transition2", "norm5", "relu5"]
    rest = [*(getattr(features, name) for name in between), network.classifier]
    assert {id(module) for module in compiled} == {id(module) for module in [*blocks, *rest]}
    assert len(compiled) == len(blocks) + len(rest)


@pytest.mark.soak
def test_a_compiled_network_computes_the_same(monkeypatch):
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: original(self, backend="eager"))
    architecture = Architecture.of("resnet20", "vanilla+ab", input_size=8)
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        plain, compiled = (
            build_quickly(architecture, Settings(CPU, threads=1, compile=compiled))(x)
            for compiled in (False, True)
        )
    torch.testing.assert_close(compiled, plain)


class Slow(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x


def test_the_timer_sees_each_block_for_itself_and_leaves_no_hooks():
    network = nn.Sequential(Slow(0.05), nn.Sequential(Slow(0.01), Slow(0.02)))
    timer = BlockTimer(network, ["1.1", "1.0"], CPU)
    call = timer.with_hooks(lambda: network(0))
    for _ in range(3):
        call()
    network(0)
    assert len(timer.calls) == 3
    for last, first in timer.seconds(last=2):
        assert 0.02 <= last < 0.045
        assert 0.01 <= first < 0.035
    assert len(timer.seconds(last=2)) == 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_hooks_are_gone_after_an_interruption_too():
    network = nn.Sequential(Slow(0))

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        BlockTimer(network, ["0"], CPU).with_hooks(interrupted)()
    assert not network[0]._forward_hooks
