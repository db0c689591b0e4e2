"""Multi-scale spatially-asymmetric recalibration (Wang et al., ECCV 2018)."""

import math
from itertools import cycle
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.operators._checks import (
    require,
    require_channels,
    require_residual,
    require_statistics,
    whole_numbers,
)
from nas_recalib.operators._gate import average_by, averages, multiply, recalibrate, repeat
from nas_recalib.operators._pointwise import Pointwise
from nas_recalib.operators._tracing import shape_at_hand, sizes_vary


class MSSAR(nn.Module):
    """Multiplies every response by a weight computed from regions around it, at several scales.

    For each scale K the map is averaged over K x K regions, passed through two 1x1 convolutions (to `hidden`
    channels, batch norm, ReLU; back, sigmoid) and brought back to full size by repetition (eq. 1). The
    scales' weights are averaged and multiply the input (eq. 2).

    Args:
        channels: Channels of the tensor to be recalibrated.
        scales: The K of each scale; (1,) is squeeze-and-excitation.
        strategy: "regional" pools K x K regions; "sliding" pools a window of half-width sqrt(H W) / K around
            every position.
        hidden: Width between the two convolutions (default channels // len(scales), at least 1).
        share: One pair of convolutions for all scales, instead of one each. The paper's CIFAR ResNets then
            have the parameters it prints, but more multiply-accumulates (table 2); with a pair for each
            scale and a hidden width of a ninth of the channels they have both.
        source_channels: Channels of the tensor that weights are computed from, where it is not the input
            itself (multi-stage recalibration).
        clamp: On a map of fewer than K rows or columns, let every position be a region of its own instead of
            refusing; what a low-resolution proxy of a network needs.

    Shape:
        (N, channels, H, W), and where given the source (N, source_channels, H, W) and the residual that is to
        be added, (N, channels, H, W), to (N, channels, H, W).

    Raises:
        ValueError: If an argument is out of range, or at the first call a scale is larger than the map.
    """

    takes_residual = True

    def __init__(
        self,
        channels: int,
        scales: tuple[int, ...] = (1, 2, 4),
        *,
        strategy: Literal["regional", "sliding"] = "regional",
        hidden: int | None = None,
        share: bool = False,
        source_channels: int | None = None,
        clamp: bool = False,
    ) -> None:
        super().__init__()
        require(channels >= 1, "msar", "channels", channels, "at least 1")
        scales = whole_numbers("msar", "scales", scales, "a list of scales of at least 1")
        require(strategy in ("regional", "sliding"), "msar", "strategy", strategy, "regional or sliding")
        require(
            hidden is None or (type(hidden) is int and hidden >= 1), "msar", "hidden", hidden, "at least 1"
        )
        sourced = source_channels is None or source_channels >= 1
        require(sourced, "msar", "source_channels", source_channels, "at least 1")
        self.channels = channels
        self.source_channels = source_channels or channels
        self.scales = scales
        self.strategy = strategy
        self.clamp = clamp
        width = hidden or max(1, channels // len(scales))
        self.weights = nn.ModuleList(self._pair(width) for _ in range(1 if share else len(scales)))

    def _pair(self, width: int) -> nn.Sequential:
        return nn.Sequential(
            Pointwise(self.source_channels, width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            Pointwise(width, self.channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, source: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        require_channels("msar", x, self.channels)
        require_residual("msar", x, residual)
        self._require_source(x, x if source is None else source)
        if source is None and self.strategy == "regional":
            return recalibrate(x, self.scales, self._weigh, residual)
        source = x if source is None else source
        averaged = averages(source, self.scales) if self.strategy == "regional" else self._windows(source)
        return multiply(x, self._weigh(averaged), residual)

    def _require_source(self, x: Tensor, source: Tensor) -> None:
        require_channels("msar", source, self.source_channels)
        images, (got, _, height, width) = shape_at_hand(x)[0], shape_at_hand(source)
        if got != images:
            raise ValueError(f"msar: expected a source of {images} images, got {got}")
        least = max(self.scales)
        fits = self.clamp or self.strategy == "sliding" or (least <= height and least <= width)
        if not fits:  # writing sizes into a message would fix them in an export
            require(False, "msar", "scales", self.scales, f"within a {height}x{width} map")

    def _windows(self, source: Tensor) -> list[Tensor]:
        """Averages over a window of half-width sqrt(H W) / K around every position, for each scale K."""
        height, width = source.shape[-2:]
        if sizes_vary(height, width):
            masks = [
                [_near(n, height * width, scale, source) for n in (height, width)] for scale in self.scales
            ]
            return [average_by(source, rows, columns) for rows, columns in masks]
        reaches = [int(math.sqrt(height * width) / scale) for scale in self.scales]
        return [F.avg_pool2d(source, 2 * r + 1, 1, r, count_include_pad=False) for r in reaches]

    def _weigh(self, averaged: list[Tensor]) -> Tensor:
        """The scales' weights on a grid that all of theirs divide, averaged (eq. 2)."""
        pairs = list(zip(cycle(self.weights), averaged, strict=False))
        for weigh, pooled in pairs:
            require_statistics("msar", pooled, weigh)
        maps = [weigh(pooled) for weigh, pooled in pairs]
        if self.strategy == "sliding":
            return torch.stack(maps).mean(0)
        grids = [shape_at_hand(m)[-2:] for m in maps]
        common = (math.lcm(*(rows for rows, _ in grids)), math.lcm(*(columns for _, columns in grids)))
        return torch.stack([repeat(m, common) for m in maps]).mean(0)

    def extra_repr(self) -> str:
        scales = "-".join(map(str, self.scales))
        return f"{self.channels}, scales={scales}, strategy={self.strategy}, shared={len(self.weights) == 1}"


def _near(side: int, positions: int, scale: int, like: Tensor) -> Tensor:
    """Which rows lie within sqrt(positions) / scale of each, (side, side), for sizes known when it runs."""
    row = torch.arange(side, device=like.device)
    distance = row[:, None] - row[None, :]
    return distance * distance * (scale * scale) <= positions
