"""Other ways to count MACs and parameters that some of the papers' figures follow, by name."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from nas_recalib.architecture import Architecture
from nas_recalib.costs.macs import run_on_meta
from nas_recalib.operators import GatherExcite

Counting = Callable[[Architecture], int]
Module = TypeVar("Module", bound=nn.Module)


def norms_and_relus(architecture: Architecture) -> int:
    """MACs plus two for every value of a batch norm and one for every value of a ReLU."""
    norms = sum(values for _, _, values in _outputs(architecture, nn.BatchNorm2d))
    relus = sum(values for _, _, values in _outputs(architecture, nn.ReLU))
    return architecture.cost().macs + 2 * norms + relus


def convolution_outputs(architecture: Architecture) -> int:
    """MACs plus one for every output value of a convolution."""
    return architecture.cost().macs + sum(values for _, _, values in _outputs(architecture, nn.Conv2d))


def biased_outputs(architecture: Architecture) -> int:
    """MACs plus one for every output value of a convolution with a bias."""
    outputs = _outputs(architecture, nn.Conv2d)
    return architecture.cost().macs + sum(values for _, conv, values in outputs if conv.bias is not None)


def no_transitions(architecture: Architecture) -> int:
    """MACs without the 1x1 convolutions between dense blocks."""
    sizes = {"input_size": architecture.input_size, "num_classes": architecture.num_classes}
    vanilla = Architecture.of(architecture.backbone, "vanilla", **sizes)  # no choice changes a transition
    outputs = _outputs(vanilla, nn.Conv2d)
    transitions = sum(conv.in_channels * values for name, conv, values in outputs if "transition" in name)
    return architecture.cost().macs - transitions


def hundred_classes(architecture: Architecture) -> int:
    """Parameters with a classifier of 100 classes."""
    return replace(architecture, num_classes=100).cost().params


def no_gate_norms(architecture: Architecture) -> int:
    """Parameters without the batch norms in recalibrations."""
    modules = _network(architecture).named_modules()
    norms = [m for name, m in modules if ".recalibration." in name and isinstance(m, nn.BatchNorm2d)]
    return architecture.cost().params - sum(p.numel() for norm in norms for p in norm.parameters())


def gather_bias(architecture: Architecture) -> int:
    """Parameters with a bias instead of a batch norm after gather-excite's depthwise convolution."""
    gates = [m for m in _network(architecture).modules() if isinstance(m, GatherExcite)]
    return architecture.cost().params - sum(gate.channels for gate in gates)


COUNTINGS: Mapping[str, Counting] = {
    counting.__name__.replace("_", "-"): counting
    for counting in (
        *(norms_and_relus, convolution_outputs, biased_outputs, no_transitions),
        *(hundred_classes, no_gate_norms, gather_bias),
    )
}


def _network(architecture: Architecture) -> nn.Module:
    with torch.device("meta"):
        return architecture.shape.build(architecture.blocks, architecture.num_classes, 3).eval()


def _outputs(architecture: Architecture, kind: type[Module]) -> list[tuple[str, Module, int]]:
    """Return name, module and number of output values for one image of every call of a module of a type."""
    calls: list[tuple[str, Module, int]] = []

    def record(name: str, module: Module, _inputs: object, output: Tensor) -> None:
        calls.append((name, module, output.numel()))

    network = _network(architecture)
    for name, module in network.named_modules():
        if isinstance(module, kind):
            module.register_forward_hook(partial(record, name))
    run_on_meta(network, (1, 3, architecture.input_size, architecture.input_size))
    return calls
