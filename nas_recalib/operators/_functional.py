"""Helpers shared by operators: memory layout, 1x1 convolutions as matrix products, fixed map sizes."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from nas_recalib.operators._checks import require
from nas_recalib.operators._tracing import shape_at_hand


def differentiates_eagerly() -> bool:
    """Return whether plain reverse-mode autograd runs: no compilation, tracing or function transform."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def memory_format(x: Tensor) -> torch.memory_format:
    """Return channels_last if a map has that layout, else contiguous_format."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def in_layout_of(x: Tensor, like: Tensor) -> Tensor:
    """Return a map in the memory layout of another, without a copy where it has it already."""
    return x.contiguous(memory_format=memory_format(like))


class Pointwise(nn.Conv2d):
    """A 1x1 convolution computed as a matrix product.

    On maps of one or a few positions this is several times as fast as torch's convolutions. Weights, results
    and multiply-accumulates are those of nn.Conv2d.

    Shape:
        (N, in_channels, H, W) to (N, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1, *, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 1, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        weight = self.weight.flatten(1)
        if self.groups == 1:
            y = F.linear(rows, weight, self.bias)
        else:
            kernels = weight.unflatten(0, (self.groups, -1)).transpose(1, 2)
            y = torch.bmm(rows.unflatten(1, (self.groups, -1)).transpose(0, 1), kernels)
            y = y.transpose(0, 1).flatten(1)
            y = y if self.bias is None else y + self.bias
        return y.view(x.shape[0], x.shape[2], x.shape[3], self.out_channels).permute(0, 3, 1, 2)


def named_attributes(module: nn.Module, *names: str) -> str:
    """Return attributes of a module as text, such as `stride=1, pattern=1-2`."""
    values = {name: getattr(module, name) for name in names}
    return ", ".join(f"{k}={'-'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in values.items())


def fit_whole_map(operator: str, x: Tensor, size: int, clamp: bool) -> Tensor:
    """Return a map (N, C, H, W) at the size of a kernel that covers it, (N, C, size, size).

    Args:
        operator: Name of the operator, for the message.
        x: Map, (N, C, H, W).
        size: Side of the kernel.
        clamp: Whether to average or repeat points of a map of another size instead of refusing it, as a
            low-resolution proxy of a network needs.

    Raises:
        ValueError: If the map has another size and `clamp` is off.
    """
    if clamp:
        return F.adaptive_avg_pool2d(x, size)
    height, width = shape_at_hand(x)[-2:]
    require(height == width == size, operator, "size", size, f"the side of a {height}x{width} map")
    return x
