"""Operator under test: its configurations, built as the blocks of a network build it, and assertions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_recalib.operators import Part, build_convolution, build_recalibration, takes_source
from nas_recalib.operators.catalog import Kind

_LOW = {"running_mean": -0.5, "bias": -0.5, "running_var": 0.5, "weight": 0.5}  # of norms; high is 1 above


class NotRun(Exception):
    """Reason why a check cannot be run on an operator."""


@dataclass(frozen=True)
class Form:
    """Shape arguments with which a block builds an operator; a recalibration has only one such form."""

    out_channels: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        return f"{self.out_channels} output channels, stride {self.stride}, groups {self.groups}"


@dataclass(frozen=True)
class Subject:
    """An operator under test.

    Attributes:
        part: Name and arguments of the operator.
        kind: "convolution" or "recalibration".
        channels: Number of input channels.
        size: Side of the input maps in pixels.
    """

    part: Part
    kind: Kind
    channels: int
    size: int

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """Simplest form; for a convolution also depthwise, and with stride and groups, as far as possible."""
        plain = Form(self.channels)
        if self.kind == "recalibration":
            return (plain,)
        depthwise = Form(self.channels, groups=self.channels)
        grouped = Form(2 * self.channels, stride=2, groups=2)
        richest = grouped if self.accepts(grouped) else replace(grouped, groups=1)
        return (plain, depthwise, richest) if self.accepts(depthwise) else (plain, richest)

    @property
    def richest(self) -> Form:
        return self.forms[-1]

    def accepts(self, form: Form) -> bool:
        """Return whether the operator can be built in a form: it may raise ValueError."""
        try:
            self.build(form)
        except ValueError:
            return False
        return True

    def build(self, form: Form, *, clamp: bool = False, seed: int = 0) -> nn.Module:
        """Return the operator in evaluation mode and double precision, with random weights and statistics."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.kind == "convolution":
                shape = (self.channels, form.out_channels, form.stride, form.groups)
                module = build_convolution(self.part, *shape)
            else:
                source = self.channels if takes_source(self.part) else None
                module = build_recalibration(self.part, self.channels, clamp=clamp, source_channels=source)
                module = _WithSource(module) if source else module
            for norm in (m for m in module.modules() if isinstance(m, _BatchNorm)):
                for name, low in _LOW.items():
                    if getattr(norm, name) is not None:
                        nn.init.uniform_(getattr(norm, name), low, low + 1)
        return module.double().eval()

    def draw(self, images: int = 2, height: int | None = None, width: int | None = None) -> Tensor:
        """Return normally distributed images (images, channels, height, width); sides default to `size`."""
        shape = (images, self.channels, height or self.size, width or self.size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def shape_after(self, form: Form, x: Tensor) -> tuple[int, ...]:
        """Return the output shape that is required for an input."""
        sides = (-(-side // form.stride) for side in x.shape[2:])
        return (x.shape[0], form.out_channels, *sides)


class _WithSource(nn.Module):
    """A recalibration computed from another tensor, here the input with its channels reversed."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.operator(x, x.flip(-3))
        return y


def call(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Call a module with a fixed seed of the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return module(x)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def require_same(actual: Tensor, expected: Tensor, name: str, tolerance: float | None = None) -> None:
    """Assert that two tensors are close; the default tolerances are those of torch.testing.assert_close."""

    def message(details: str) -> str:
        return f"{name}: {' '.join(details.split())}"

    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, msg=message)


def mode(training: bool) -> str:
    return "in training" if training else "in evaluation"
