"""The count of a network held against two other counters, and what explains where they differ.

thop 0.1.1 calls a rule for each type of module that it knows: it adds norms and average poolings to the
multiply-accumulates, and takes what has no rule for nothing, the parameters included. A subclass of a type
that it knows has none, so the rules of this package's operators are given to it.
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

from nas_recalib.architecture import Architecture
from nas_recalib.costs.macs import Cost, run_on_meta
from nas_recalib.errors import InputError, in_one_line
from nas_recalib.operators import LearnedPSConv2d, PSConv2d
from nas_recalib.operators._functional import Pointwise

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """One reason why thop counts otherwise.

    Attributes:
        why: In words.
        times: How many calls or modules it is about.
        cost: What thop has more; negative is less.
    """

    why: str
    times: int
    cost: Cost


@dataclass(frozen=True)
class Check:
    """Three counts of one network.

    Attributes:
        ours: The constant and the blocks' entries.
        whole: Of the whole network at once, by torch's FlopCounterMode, and its parameters.
        thop: thop's, with rules for this package's operators.
        differences: What thop has more or less, by reason.
    """

    ours: Cost
    whole: Cost
    thop: Cost
    differences: tuple[Difference, ...]

    @property
    def unexplained(self) -> Cost:
        """What thop has more than ours and the reasons' sum: nothing, unless a user's operator brings it."""
        return self.thop - self.ours - sum((d.cost for d in self.differences), Cost(0, 0))


def check_cost(architecture: Architecture) -> Check:
    """Counts an architecture's network thrice; nothing is computed.

    Raises:
        InputError: If thop cannot be imported.
        ValueError: If an operator does not fit its block; the block is named.
    """
    ours = architecture.cost()
    with torch.device("meta"):
        network = architecture.shape.build(architecture.blocks, architecture.num_classes, 3).eval()
    shape = (1, 3, architecture.input_size, architecture.input_size)
    whole, unknown = _count(network, shape)
    differences = (*_additions(network, shape), *unknown)
    return Check(ours, whole, thop_cost(network, shape), differences)


def thop_cost(network: nn.Module, input_shape: Shape) -> Cost:
    """The count of thop, on a copy: what it leaves behind in modules stays there.

    Args:
        network: On the meta device.
        input_shape: (1, C, H, W).

    Raises:
        InputError: If thop cannot be imported.
    """
    profile, _ = _thop()
    images = torch.empty(input_shape, device="meta")
    macs, params = profile(copy.deepcopy(network), (images,), custom_ops=dict(_RULES), verbose=False)
    return Cost(int(macs), int(params))


def _thop() -> tuple[Callable[..., tuple[float, float]], dict[type[nn.Module], Any]]:
    """What counts, and the rules that it has by itself."""
    try:
        from thop.profile import profile, register_hooks
    except ImportError as error:
        raise InputError(
            f"check: thop cannot be imported ({in_one_line(error)}); "
            "from Python 3.12 on it needs setuptools: pip install setuptools"
        ) from error
    return profile, register_hooks


def _rule(times: int) -> Callable[..., None]:
    """A convolution's multiply-accumulates, its kernels applied so many times."""

    def count(module: Any, _: tuple[Tensor, ...], output: Tensor) -> None:
        module.total_ops += times * output.numel() * module.weight[0].numel()

    return count


_RULES: Mapping[type[nn.Module], Callable[..., None]] = {
    Pointwise: _rule(1),
    PSConv2d: _rule(1),
    LearnedPSConv2d: _rule(2),
}


def _count(network: nn.Module, shape: Shape) -> tuple[Cost, list[Difference]]:
    """The whole network's cost, and what of it stands in modules that thop has no rule for."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.empty(shape, device="meta"))
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    params = sum(p.numel() for p in network.parameters())
    whole = Cost(counter.get_total_flops() // 2, params)
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
    return whole, [
        Difference(f"{kind}: thop does not know it", len(costs), sum(costs, Cost(0, 0)))
        for kind, costs in lacking.items()
    ]


def _without_rule(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that thop looks into for others, not at."""
    if type(module) in {**_thop()[1], **_RULES} and not isinstance(module, nn.Sequential | nn.ModuleList):
        return
    yield name, module
    for child, inner in module.named_children():
        yield from _without_rule(f"{name}.{child}" if name else child, inner)


def _additions(network: nn.Module, shape: Shape) -> list[Difference]:
    """What thop counts beside convolutions and linear layers."""
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
