"""Comparison of the counted cost of a network with FlopCounterMode and thop, and reasons for differences.

thop 0.1.1 calls a rule for each type of module that it knows: it adds norms and average poolings to the
multiply-accumulates, and counts modules without a rule as nothing, their parameters included. A subclass of a
type that it knows has no rule, so it is given rules for this package's operators.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.costs.macs import Cost, network_cost, run_on_meta
from nas_recalib.errors import InputError, in_one_line
from nas_recalib.networks import Backbone
from nas_recalib.operators import BlockChoice, LearnedPSConv2d, PSConv2d
from nas_recalib.operators._functional import Pointwise

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """Reason why thop's count differs.

    Attributes:
        why: Reason in words.
        times: Number of calls or modules that it concerns.
        cost: Cost that thop counts in addition; negative if it counts less.
    """

    why: str
    times: int
    cost: Cost


@dataclass(frozen=True)
class Check:
    """Three counts of one network.

    Attributes:
        ours: Cost as this package counts it, block by block.
        flop_counter: Cost of the whole network at once, by torch's FlopCounterMode.
        thop: Cost by thop, with rules for this package's operators.
        differences: Differences of thop's count from ours, by reason.
    """

    ours: Cost
    flop_counter: Cost
    thop: Cost
    differences: tuple[Difference, ...]

    @property
    def unexplained(self) -> Cost:
        """Rest of thop's difference that no reason explains: zero, except for operators of users."""
        return self.thop - self.ours - sum((d.cost for d in self.differences), Cost(0, 0))


def check_cost(
    backbone: Backbone, choices: Mapping[str, BlockChoice], *, input_size: int, num_classes: int
) -> Check:
    """Count the cost of a network in three ways, without computing anything.

    Args:
        backbone: Network without its operators.
        choices: Choice at each of its blocks.
        input_size: Side of the images, in pixels.
        num_classes: Number of classes.

    Raises:
        InputError: If thop cannot be imported.
        ValueError: If an operator does not fit its block; the block is named.
    """
    ours = network_cost(backbone, choices, input_size=input_size, num_classes=num_classes)
    with torch.device("meta"):
        network = backbone.build(choices, num_classes, 3).eval()
    shape = (1, 3, input_size, input_size)
    flop_counter, unknown = _count(network, shape)
    differences = (*_additions(network, shape), *unknown)
    return Check(ours, flop_counter, thop_cost(network, shape), differences)


def thop_cost(network: nn.Module, input_shape: Shape) -> Cost:
    """Return thop's count of a copy of a network, since thop leaves attributes behind in modules.

    Args:
        network: Network on the meta device.
        input_shape: Shape of its input, (1, C, H, W).

    Raises:
        InputError: If thop cannot be imported.
    """
    profile, _ = _thop()
    images = torch.empty(input_shape, device="meta")
    macs, params = profile(copy.deepcopy(network), (images,), custom_ops=dict(_RULES), verbose=False)
    return Cost(int(macs), int(params))


def _thop() -> tuple[Callable[..., tuple[float, float]], dict[type[nn.Module], Any]]:
    """Return thop's function that counts, and its own rules."""
    try:
        from thop.profile import profile, register_hooks
    except ImportError as error:
        raise InputError(
            f"check: thop cannot be imported ({in_one_line(error)}); "
            "from Python 3.12 on it needs setuptools: pip install setuptools"
        ) from error
    return profile, register_hooks


def _rule(times: int) -> Callable[..., None]:
    """Return thop's rule for a convolution whose kernels are applied a number of times."""

    def count(module: Any, _: tuple[Tensor, ...], output: Tensor) -> None:
        module.total_ops += times * output.numel() * module.weight[0].numel()

    return count


_RULES: Mapping[type[nn.Module], Callable[..., None]] = {
    Pointwise: _rule(1),
    PSConv2d: _rule(1),
    LearnedPSConv2d: _rule(2),
}


def _count(network: nn.Module, shape: Shape) -> tuple[Cost, list[Difference]]:
    """Return the cost of a network, and the part of it in modules that thop has no rule for."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.empty(shape, device="meta"))
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    params = sum(p.numel() for p in network.parameters())
    root = type(network).__name__

    def inside(name: str) -> int:
        return flops.get(f"{root}.{name}" if name else root, 0) // 2

    lacking: dict[str, list[Cost]] = {}
    for name, module in _without_rule("", network):
        prefix = f"{name}." if name else ""
        children = sum(inside(prefix + child) for child, _ in module.named_children())
        own = sum(p.numel() for p in module.parameters(recurse=False))
        cost = Cost(children - inside(name), -own)
        if cost != Cost(0, 0):
            lacking.setdefault(type(module).__name__, []).append(cost)
    return Cost(counter.get_total_flops() // 2, params), [
        Difference(f"{kind}: thop does not know it", len(costs), sum(costs, Cost(0, 0)))
        for kind, costs in lacking.items()
    ]


def _without_rule(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that thop has no rule for, by name."""
    if type(module) in {**_thop()[1], **_RULES} and not isinstance(module, nn.Sequential | nn.ModuleList):
        return
    yield name, module
    for child, inner in module.named_children():
        yield from _without_rule(f"{name}.{child}" if name else child, inner)


def _additions(network: nn.Module, shape: Shape) -> list[Difference]:
    """Return thop's additions to convolutions and linear layers."""
    calls: Counter[str] = Counter()
    macs: Counter[str] = Counter()

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        why, added = _ADDED[type(module)](module, inputs[0], output)
        calls[why] += 1
        macs[why] += added

    hooks = [m.register_forward_hook(watch) for m in network.modules() if type(m) in _ADDED]
    run_on_meta(network, shape)
    for hook in hooks:
        hook.remove()
    return [Difference(why, calls[why], Cost(macs[why], 0)) for why in calls]


def _norm(norm: nn.Module, x: Tensor, _: Tensor) -> tuple[str, int]:
    if norm.affine:
        return "batch norms: 4 for each value", 4 * x.numel()
    return "batch norms without scale and shift: 2 for each value", 2 * x.numel()


def _pooling(_: nn.Module, __: Tensor, y: Tensor) -> tuple[str, int]:
    return "average poolings: 1 for each value of the result", y.numel()


def _adaptive_pooling(_: nn.Module, x: Tensor, y: Tensor) -> tuple[str, int]:
    window = math.prod(a / b for a, b in zip(x.shape[2:], y.shape[2:], strict=True))
    why = "adaptive average poolings: their window and 1 for each value of the result"
    return why, int((window + 1) * y.numel())


_ADDED: Mapping[type[nn.Module], Callable[[nn.Module, Tensor, Tensor], tuple[str, int]]] = {
    nn.BatchNorm2d: _norm,
    nn.AvgPool2d: _pooling,
    nn.AdaptiveAvgPool2d: _adaptive_pooling,
}
