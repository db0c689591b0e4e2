"""Helpers on feature maps shared by operators: memory layout, 1x1 convolutions, padding, backward passes."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from nas_recalib.operators._checks import require
from nas_recalib.operators._tracing import shape_at_hand


def differentiates_eagerly() -> bool:
    """Whether plain reverse-mode autograd is at work: nothing compiles, traces or transforms functions."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last where a map lies so, else contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """A map laid out as another one is; itself where it is so already."""
    return x.contiguous(memory_format=memory_format(like))


class Pointwise(nn.Conv2d):
    """A 1x1 convolution computed as a matrix product.

    On maps of one or a few positions that is several times as fast as what torch has for convolutions. It has
    the weights, the numbers and the multiply-accumulates of nn.Conv2d.

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


def fit_whole_map(operator: str, x: Tensor, size: int, clamp: bool) -> Tensor:
    """The map (N, C, H, W) at the size (N, C, size, size) of the kernel that weighs its every point.

    Args:
        operator: Named in the message.
        x: The map.
        size: Side of the kernel.
        clamp: Average or repeat points of a map of another size, instead of refusing it; what a
            low-resolution proxy of a network needs.

    Raises:
        ValueError: If the map has another size and is not to be clamped.
    """
    if clamp:
        return F.adaptive_avg_pool2d(x, size)
    height, width = shape_at_hand(x)[-2:]
    require(height == width == size, operator, "size", size, f"the side of a {height}x{width} map")
    return x
