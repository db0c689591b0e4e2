"""Convolutional block attention module (Woo et al., ECCV 2018), a baseline of the papers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.operators._checks import require, require_channels
from nas_recalib.operators._functional import Pointwise
from nas_recalib.operators._gate import multiply


class CBAM(nn.Module):
    """Product of a map with a weight for each channel, then with a weight for each position.

    The weight of a channel is sigmoid(MLP(average) + MLP(maximum)), one MLP for both, over the map's average
    and maximum (eq. 2); that of a position is sigmoid(conv([mean, maximum])), a convolution of the mean and
    the maximum over channels (eq. 3).

    Args:
        channels: Channels of the input.
        r: Reduction ratio of the MLP: it has max(1, channels // r) hidden channels.
        kernel_size: Side of the spatial convolution's kernel, odd.

    Shape:
        (N, channels, H, W) to (N, channels, H, W).

    Raises:
        ValueError: If an argument is out of range; it is named.
    """

    def __init__(self, channels: int, r: int = 16, *, kernel_size: int = 7) -> None:
        super().__init__()
        require(channels >= 1, "cbam", "channels", channels, "at least 1")
        require(r >= 1, "cbam", "r", r, "at least 1")
        odd = kernel_size >= 1 and kernel_size % 2 == 1
        require(odd, "cbam", "kernel_size", kernel_size, "an odd number")
        self.channels = channels
        hidden = max(1, channels // r)
        self.squeeze = Pointwise(channels, hidden, bias=True)
        self.excite = Pointwise(hidden, channels, bias=True)
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        require_channels("cbam", x, self.channels)
        pooled = (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
        x = multiply(x, torch.sigmoid(self._weigh(pooled[0]) + self._weigh(pooled[1])))
        views = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return multiply(x, torch.sigmoid(self.spatial(views)))

    def _weigh(self, pooled: Tensor) -> Tensor:
        weights: Tensor = self.excite(F.relu(self.squeeze(pooled)))
        return weights

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel_size={self.spatial.kernel_size[0]}"
