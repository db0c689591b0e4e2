"""Operator under test, built as the blocks of a network build it, and assertions on it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_recalib.operators import Part, build_convolution, build_recalibration, takes_source
from nas_recalib.operators.catalog import Kind


class NotRun(Exception):
    """Why a check says nothing of an operator."""


@dataclass(frozen=True)
class Form:
    """What a block asks of an operator; a recalibration has one form alone."""

    out_channels: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        return f"{self.out_channels} output channels, stride {self.stride}, groups {self.groups}"


@dataclass(frozen=True)
class Subject:
    """An operator and the block that it is tried in.

    Attributes:
        part: Which operator, with its arguments.
        kind: Its place in a block.
        channels: Of its input.
        size: Side of the maps, in pixels.
    """

    part: Part
    kind: Kind
    channels: int
    size: int

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """The plainest form, and of a convolution also a depthwise and the richest, with groups if it can."""
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
        """Whether the operator can be built so; a ValueError is a refusal."""
        try:
            self.build(form)
        except ValueError:
            return False
        return True

    def build(self, form: Form, *, clamp: bool = False, seed: int = 0) -> nn.Module:
        """In evaluation mode and double precision; weights follow from the seed and norms do something."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.kind == "convolution":
                shape = (self.channels, form.out_channels, form.stride, form.groups)
                module = build_convolution(self.part, *shape)
            elif takes_source(self.part):
                channels = self.channels
                module = _Sourced(
                    build_recalibration(self.part, channels, clamp=clamp, source_channels=channels)
                )
            else:
                module = build_recalibration(self.part, self.channels, clamp=clamp)
            for norm in (m for m in module.modules() if isinstance(m, _BatchNorm)):
                for tensor in (norm.running_mean, norm.bias):
                    _spread(tensor, -0.5, 0.5)
                for tensor in (norm.running_var, norm.weight):
                    _spread(tensor, 0.5, 1.5)
        return module.double().eval()

    def draw(self, images: int = 2, height: int | None = None, width: int | None = None) -> Tensor:
        """Normal images (images, channels, height, width), `size` where no side is given."""
        shape = (images, self.channels, height or self.size, width or self.size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def shape_after(self, form: Form, x: Tensor) -> tuple[int, ...]:
        """What the operator must make of an input's shape."""
        sides = (-(-side // form.stride) for side in x.shape[2:])
        return (x.shape[0], form.out_channels, *sides)


class _Sourced(nn.Module):
    """An operator whose weights come from another tensor: here the input's own channels, turned round."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.operator(x, x.flip(-3))
        return y


def call(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs a module; what it may draw in training is the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return module(x)


def _spread(tensor: Tensor | None, low: float, high: float) -> None:
    if tensor is not None:
        nn.init.uniform_(tensor, low, high)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def require_shape(subject: Subject, form: Form, module: nn.Module, x: Tensor) -> None:
    y, expected = module(x), subject.shape_after(form, x)
    told = f" ({form})" if subject.kind == "convolution" else ""
    same = isinstance(y, Tensor) and tuple(y.shape) == expected
    require(same, f"{tuple(x.shape)} became {_shape(y)} instead of {expected}{told}")
    require(bool(y.isfinite().all()), f"{tuple(x.shape)} became NaN or infinity{told}")


def require_same(got: Tensor, expected: Tensor, what: str, tolerance: float | None = None) -> None:
    """As torch.testing.assert_close, with its tolerances for the type of the numbers unless one is given."""
    torch.testing.assert_close(
        got,
        expected,
        rtol=tolerance,
        atol=tolerance,
        msg=lambda details: f"{what}: {' '.join(details.split())}",
    )


def mode(training: bool) -> str:
    return "in training" if training else "in evaluation"


def _shape(y: object) -> str:
    return str(tuple(y.shape)) if isinstance(y, Tensor) else type(y).__name__
