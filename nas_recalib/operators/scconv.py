"""Self-calibrated convolution (Liu et al., CVPR 2020)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.operators._checks import require, require_channels, require_convolution, require_statistics
from nas_recalib.operators._functional import in_layout_of, named_attributes
from nas_recalib.operators._tracing import clamped


class SCConv2d(nn.Module):
    """Self-calibrated convolution: half of the channels is gated by a pooled view of itself.

    The input splits into halves X1 and X2. With K1 to K4 convolutions of the given kernel size::

        T1 = pool_r(X1)                                (eq. 2)
        X1' = Up(K2(T1))                               (eq. 3)
        Y1 = K4(K3(X1) * sigmoid(X1 + X1'))            (eq. 4, 5)
        Y2 = K1(X2)
        Y = [Y1, Y2]

    K2 and K3 keep the channels of X1 and are each followed by a batch norm; K1 and K4 have the stride and the
    change of channels, and leave normalisation to the block around them. With in_channels == out_channels it
    has as many weights as the convolution that it replaces, and the two norms.

    Args:
        in_channels: Channels of the input, even.
        out_channels: Channels of the output, even.
        kernel_size: Side of the square kernels, odd.
        stride: Stride of K1 and K4.
        groups: Groups of each of the four convolutions (SCNeXt). A depthwise convolution, with
            groups = in_channels, is replaced by four depthwise ones.
        r: Side and stride of the pooling window, at most the sides of the map.
        ceil: Whether a window that crosses the edge of the map is pooled from the positions inside. If not,
            as in the released network, the remaining rows and columns are dropped: at 7x7 and r = 4, 16 of
            49 positions are pooled.
        pooling: Average ("avg") or maximum ("max") of a window.
        identity: Whether X1 itself is added under the sigmoid (off in the paper's table 2 ablation).
        upsample: Interpolation of X1' to the size of X1. The paper says bilinear, the released network uses
            nearest.

    Shape:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: If an argument is out of range; it is named.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        *,
        r: int = 4,
        ceil: bool = False,
        pooling: Literal["avg", "max"] = "avg",
        identity: bool = True,
        upsample: Literal["nearest", "bilinear"] = "nearest",
    ) -> None:
        super().__init__()
        require(type(r) is int and r >= 1, "scconv", "r", r, "a whole number of at least 1")
        require(pooling in ("avg", "max"), "scconv", "pooling", pooling, "avg or max")
        require(upsample in ("nearest", "bilinear"), "scconv", "upsample", upsample, "nearest or bilinear")
        groups = groups // 2 if groups == in_channels > 1 else groups
        shape = (in_channels, out_channels, kernel_size, stride, groups)
        require_convolution("scconv", *shape, parts=2, parts_are="2 halves")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.r = r
        self.ceil = ceil
        self.pooling = pooling
        self.identity = identity
        self.upsample = upsample

        def convolution(outputs: int, stride: int) -> nn.Conv2d:
            padding = kernel_size // 2
            half = in_channels // 2
            return nn.Conv2d(half, outputs, kernel_size, stride, padding, groups=groups, bias=False)

        self.k1 = convolution(out_channels // 2, stride)
        self.k2 = nn.Sequential(convolution(in_channels // 2, 1), nn.BatchNorm2d(in_channels // 2))
        self.k3 = nn.Sequential(convolution(in_channels // 2, 1), nn.BatchNorm2d(in_channels // 2))
        self.k4 = convolution(out_channels // 2, stride)

    def forward(self, x: Tensor) -> Tensor:
        require_channels("scconv", x, self.in_channels)
        x1, x2 = x.chunk(2, dim=1)
        x1 = in_layout_of(x1, x)  # copied once here instead of by every layer that reads it
        context = F.interpolate(self.k2(self._pool(x1)), size=x1.shape[-2:], mode=self.upsample)
        gate = (x1 + context if self.identity else context).sigmoid_()
        y1 = self.k3(x1)
        # The gradient needs both factors, and a trace serves every mode.
        keep = torch.is_grad_enabled() or torch.jit.is_tracing() or gate.dtype != y1.dtype
        y1 = y1 * gate if keep else gate.mul_(y1)
        return torch.cat((self.k4(y1), self.k1(x2)), dim=1)

    def _pool(self, x: Tensor) -> Tensor:
        window = clamped(self.r, x)
        pool = F.avg_pool2d if self.pooling == "avg" else F.max_pool2d
        pooled: Tensor = pool(x, window, ceil_mode=self.ceil)
        require_statistics("scconv", pooled, self.k2)
        return pooled

    def extra_repr(self) -> str:
        return named_attributes(self, "r", "ceil", "pooling", "identity", "upsample")
