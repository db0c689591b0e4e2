"""Accuracy Booster (Singh, Mazumder, Namboodiri, WACV 2020)."""

import torch
from torch import Tensor, nn

from nas_recalib.operators._checks import require, require_channels, require_statistics
from nas_recalib.operators._functional import Pointwise
from nas_recalib.operators._gate import recalibrate


class AccuracyBooster(nn.Module):
    """Product of each channel with sigmoid(BN(conv1x1(its global average))), section 3.

    Args:
        channels: Channels of the input.
        groups: Groups of the 1x1 convolution: `channels` (default) is AB, 1 is AB-Plus, and table 15 of the
            paper compares numbers between.

    Shape:
        (N, channels, H, W), and optionally a residual of that shape to add, to (N, channels, H, W).

    Raises:
        ValueError: If `groups` does not divide `channels`, or in training on a batch of one image, where the
            batch norm over the averages has no variance (a frozen norm needs none).
    """

    takes_residual = True

    def __init__(self, channels: int, groups: int | None = None) -> None:
        super().__init__()
        require(channels >= 1, "ab", "channels", channels, "at least 1")
        groups = channels if groups is None else groups
        divides = groups >= 1 and channels % groups == 0
        require(divides, "ab", "groups", groups, f"a divisor of the channels ({channels})")
        self.channels = channels
        self.conv = Pointwise(channels, channels, groups)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        require_channels("ab", x, self.channels, residual)
        return recalibrate(x, (1,), self._weigh, residual)

    def _weigh(self, averages: list[Tensor]) -> Tensor:
        require_statistics("ab", averages[0], self.norm)
        return torch.sigmoid(self.norm(self.conv(averages[0])))
