"""Squeeze-and-excitation (Hu et al., CVPR 2018), the papers' baseline."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.operators._checks import require, require_channels
from nas_recalib.operators._functional import Pointwise
from nas_recalib.operators._gate import recalibrate


class SqueezeExcite(nn.Module):
    """Product of each channel with a weight computed from the global averages of all channels.

    Args:
        channels: Channels of the input.
        r: Reduction ratio: there are max(1, channels // r) channels between the two 1x1 convolutions.

    Shape:
        (N, channels, H, W), and optionally a residual of that shape to add, to (N, channels, H, W).

    Raises:
        ValueError: If an argument is below 1.
    """

    takes_residual = True

    def __init__(self, channels: int, r: int = 16) -> None:
        super().__init__()
        require(channels >= 1, "se", "channels", channels, "at least 1")
        require(r >= 1, "se", "r", r, "at least 1")
        self.channels = channels
        hidden = max(1, channels // r)
        self.squeeze = Pointwise(channels, hidden, bias=True)
        self.excite = Pointwise(hidden, channels, bias=True)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        require_channels("se", x, self.channels, residual)
        return recalibrate(x, (1,), self._weigh, residual)

    def _weigh(self, averages: list[Tensor]) -> Tensor:
        return torch.sigmoid(self.excite(F.relu(self.squeeze(averages[0]))))
