"""Lower bounds of the operators' time: modules that only make an operator's library calls.

They replace an operator in a block or network and make the same convolutions, or passes over the feature map,
on prepared inputs, without copies, sums, gates or norms. Their outputs are useless; their time is a lower
bound of every implementation by these calls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from nas_recalib.operators import MSSAR, AccuracyBooster, BlockChoice, PSConv2d, SCConv2d, SqueezeExcite
from nas_recalib.operators._functional import memory_format
from nas_recalib.operators._gate import recalibrate, repeat
from nas_recalib.timing.cases import Case


@dataclass(frozen=True, eq=False)
class Call:
    """A convolution on prepared inputs."""

    source: Tensor
    kernels: Tensor
    gradient: Tensor
    stride: int
    padding: int
    dilation: int
    groups: int

    def forward(self) -> None:
        shape = (None, self.stride, self.padding, self.dilation, self.groups)
        torch.nn.functional.conv2d(self.source, self.kernels, *shape)

    def backward(self) -> None:
        geometry = ([self.stride] * 2, [self.padding] * 2, [self.dilation] * 2, False, [0, 0], self.groups)
        inputs = (self.gradient, self.source, self.kernels)
        torch.ops.aten.convolution_backward(*inputs, None, *geometry, [True, True, False])


def bare_case(case: Case) -> Case:
    """Return the case with the operators of its choice replaced; vanilla stays as it is."""
    return replace(case, place=replace(case.place, build=partial(_build_bare, case.place.build)))


def _build_bare(build: Callable[[BlockChoice], nn.Module], choice: BlockChoice) -> nn.Module:
    module = build(choice)
    for name, operator in [found for found in module.named_modules() if type(found[1]) in REPLACEMENTS]:
        replacement = REPLACEMENTS[type(operator)](operator)
        if not name:
            return replacement
        module.set_submodule(name, replacement)
    return module


class Convolutions(nn.Module):
    """Replacement of an operator that consists of several convolutions."""

    def __init__(self, operator: nn.Module, list_calls: Callable[[Any, Tensor], list[Call]]) -> None:
        super().__init__()
        self.operator = operator
        self.list_calls = list_calls
        self.calls: list[Call] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.calls:
            with torch.no_grad():
                self.calls = self.list_calls(self.operator, x)
                self.y, self.gradient = torch.zeros_like(self.operator(x)), torch.zeros_like(x)
        if not torch.is_grad_enabled():
            for call in self.calls:
                call.forward()
            return self.y
        return _Calls.apply(x, self)


class _Calls(Function):
    @staticmethod
    def forward(ctx: Any, _: Tensor, convolutions: Convolutions) -> Tensor:
        ctx.convolutions = convolutions
        for call in convolutions.calls:
            call.forward()
        return convolutions.y.view_as(convolutions.y)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        for call in ctx.convolutions.calls:
            call.backward()
        return ctx.convolutions.gradient, None


class Passes(nn.Module):
    """Replacement of a recalibration: its passes over the feature map, and its 1x1 layers if it has any."""

    takes_residual = True

    def __init__(self, grids: tuple[int, ...], products: Sequence[nn.Module]) -> None:
        super().__init__()
        self.grids = grids
        self.products = nn.ModuleList(products)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return recalibrate(x, self.grids, self._weigh, residual)

    def _weigh(self, averages: list[Tensor]) -> Tensor:
        maps = [product(mean) for product, mean in zip(self.products, averages, strict=True)]
        side = max(m.shape[-1] for m in maps)
        return reduce(torch.add, (repeat(m, (side, side)) for m in maps))


def _call_of(convolution: nn.Conv2d, x: Tensor) -> Call:
    return _call(x, convolution.weight, convolution.stride[0], convolution.padding[0], 1, convolution.groups)


def _call(x: Tensor, kernels: Tensor, stride: int, padding: int, dilation: int, groups: int) -> Call:
    source = x.clone(memory_format=memory_format(x))
    y = torch.nn.functional.conv2d(source, kernels, None, stride, padding, dilation, groups)
    return Call(source, kernels.detach().clone(), torch.zeros_like(y), stride, padding, dilation, groups)


def _of_scconv(operator: SCConv2d, x: Tensor) -> list[Call]:
    half = x[:, ::2]
    pooled = torch.nn.functional.avg_pool2d(half, min(operator.r, x.shape[-1]))
    inputs = {operator.k1: half, operator.k2[0]: pooled, operator.k3[0]: half, operator.k4: half}
    return [_call_of(convolution, source) for convolution, source in inputs.items()]


def _of_psconv(operator: PSConv2d, x: Tensor) -> list[Call]:
    lattice = operator._lattice._fastest(x, operator.weight)
    calls = []
    for term in lattice.terms:
        kernels = lattice.kernels(operator.weight, term)
        padding, dilation, groups = lattice.geometry(term, kernels)
        source = x[:, : kernels.shape[1] * groups]
        calls.append(_call(source, kernels, lattice.stride, padding, dilation, groups))
    return calls


def _of_msar(operator: MSSAR) -> Passes:
    pairs = [nn.Sequential(layers[0], layers[3]) for layers in operator.weights]
    return Passes(operator.scales, pairs)


def _product_of_booster(operator: AccuracyBooster) -> nn.Module:
    return nn.Identity() if operator.conv.groups == operator.channels else operator.conv


REPLACEMENTS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    SCConv2d: partial(Convolutions, list_calls=_of_scconv),
    PSConv2d: partial(Convolutions, list_calls=_of_psconv),
    MSSAR: _of_msar,
    AccuracyBooster: lambda booster: Passes((1,), [_product_of_booster(booster)]),
    SqueezeExcite: lambda squeeze: Passes((1,), [nn.Sequential(squeeze.squeeze, squeeze.excite)]),
}
