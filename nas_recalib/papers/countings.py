"""Ways of counting that papers' figures follow where they differ from ours, by name."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from nas_recalib.architecture import Architecture
from nas_recalib.costs.macs import run_on_meta
from nas_recalib.operators import GatherExcite

Counting = Callable[[Architecture], int]
Module = TypeVar("Module", bound=nn.Module)


def norms_and_relus(architecture: Architecture) -> int:
    """MACs, two more for every value of a batch norm and one for every value of a ReLU."""
    norms = sum(values for _, _, values in _outputs(architecture, nn.BatchNorm2d))
    relus = sum(values for _, _, values in _outputs(architecture, nn.ReLU))
    return architecture.cost().macs + 2 * norms + relus


def convolution_outputs(architecture: Architecture) -> int:
    """MACs, one more for every value that a convolution gives."""
    return architecture.cost().macs + sum(values for _, _, values in _outputs(architecture, nn.Conv2d))


def biased_outputs(architecture: Architecture) -> int:
    """MACs, one more for every value that a convolution adds a bias to."""
    outputs = _outputs(architecture, nn.Conv2d)
    return architecture.cost().macs + sum(values for _, conv, values in outputs if conv.bias is not None)


def no_transitions(architecture: Architecture) -> int:
    """MACs, less those of the 1x1 convolutions between dense blocks."""
    sizes = {"input_size": architecture.input_size, "num_classes": architecture.num_classes}
    plain = Architecture.of(architecture.backbone, "vanilla", **sizes)  # no choice reaches a transition
    outputs = _outputs(plain, nn.Conv2d)
    between = sum(conv.in_channels * values for name, conv, values in outputs if "transition" in name)
    return architecture.cost().macs - between


def hundred_classes(architecture: Architecture) -> int:
    """Parameters with a classifier of 100 classes."""
    return replace(architecture, num_classes=100).cost().params


def no_gate_norms(architecture: Architecture) -> int:
    """Parameters, less those of the batch norms in recalibrations."""
    modules = _network(architecture).named_modules()
    norms = [m for name, m in modules if ".recalibration." in name and isinstance(m, nn.BatchNorm2d)]
    return architecture.cost().params - sum(p.numel() for norm in norms for p in norm.parameters())


def gather_bias(architecture: Architecture) -> int:
    """Parameters, a bias following gather-excite's depthwise convolution instead of a batch norm."""
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


def _image(architecture: Architecture) -> tuple[int, int, int, int]:
    return (1, 3, architecture.input_size, architecture.input_size)


def _outputs(architecture: Architecture, kind: type[Module]) -> list[tuple[str, Module, int]]:
    """For every call of a module of a kind: its name, the module, and how many values one image gives."""
    return [
        (name, module, values) for name, module, values in _calls(architecture) if isinstance(module, kind)
    ]


@lru_cache(maxsize=1)
def _calls(architecture: Architecture) -> Sequence[tuple[str, nn.Module, int]]:
    return _record_calls(_network(architecture), _image(architecture))


def _record_calls(
    network: nn.Module, input_shape: tuple[int, int, int, int]
) -> Sequence[tuple[str, nn.Module, int]]:
    calls: list[tuple[str, nn.Module, int]] = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append((name, module, math.prod(output.shape)))

        module.register_forward_hook(hook)

    for name, module in network.named_modules():
        if not list(module.children()):
            watch(name, module)
    run_on_meta(network, input_shape)
    return calls
