"""Squeeze-and-excitation (Hu et al., CVPR 2018), the papers' baseline."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.operators._checks import require, require_channels, require_residual
from nas_recalib.operators._functional import Pointwise
from nas_recalib.operators._gate import recalibrate


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a weight computed from all channels' global averages.

    Args:
        channels: Channels of the input.
        r: Reduction: the two 1x1 convolutions meet at max(1, channels // r) channels.

    Shape:
        (N, channels, H, W), and the residual that is to be added where given, to (N, channels, H, W).

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
        require_channels("se", x, self.channels)
        require_residual("se", x, residual)
        return recalibrate(x, (1,), self._weigh, residual)

    def _weigh(self, averages: list[Tensor]) -> Tensor:
        return torch.sigmoid(self.excite(F.relu(self.squeeze(averages[0]))))
