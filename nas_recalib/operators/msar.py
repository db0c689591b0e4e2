"""Multi-scale spatially-asymmetric recalibration (Wang et al., ECCV 2018)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.operators._checks import require, require_channels, require_statistics


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
        share: One pair of convolutions for all scales, instead of one each. The only reading under which the
            paper's CIFAR ResNets have the parameters it prints (table 2).
        source_channels: Channels of the tensor that weights are computed from, where it is not the input
            itself (multi-stage recalibration).
        clamp: On a map of fewer than K rows or columns, let every position be a region of its own instead of
            refusing; what a low-resolution proxy of a network needs.

    Shape:
        (N, channels, H, W), and the source (N, source_channels, H, W) where given, to (N, channels, H, W).

    Raises:
        ValueError: If an argument is out of range, or at the first call a scale is larger than the map.
    """

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
        scales = tuple(scales)
        require(channels >= 1, "msar", "channels", channels, "at least 1")
        positive = all(isinstance(k, int) and k >= 1 for k in scales)
        require(len(scales) >= 1 and positive, "msar", "scales", scales, "a list of scales of at least 1")
        require(strategy in ("regional", "sliding"), "msar", "strategy", strategy, "regional or sliding")
        require(hidden is None or hidden >= 1, "msar", "hidden", hidden, "at least 1")
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
            nn.Conv2d(self.source_channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, self.channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        require_channels("msar", x, self.channels)
        source = x if source is None else source
        require_channels("msar", source, self.source_channels)
        maps = []
        for index, scale in enumerate(self.scales):
            pooled = self._pool(source, scale)
            if self.training:
                require_statistics("msar", pooled)
            maps.append(self.weights[index % len(self.weights)](pooled))
        return x * (self._sum(maps, x) / len(maps))

    def _pool(self, source: Tensor, scale: int) -> Tensor:
        height, width = source.shape[-2:]
        if self.strategy == "sliding":
            reach = int(math.sqrt(height * width) / scale)
            return F.avg_pool2d(source, 2 * reach + 1, 1, reach, count_include_pad=False)
        if not self.clamp:
            require(
                scale <= min(height, width), "msar", "scales", self.scales, f"within a {height}x{width} map"
            )
        return F.adaptive_avg_pool2d(source, (min(scale, height), min(scale, width)))

    def _sum(self, maps: list[Tensor], x: Tensor) -> Tensor:
        """Sums the scales at the finest of their sizes, where the others divide it, then repeats."""
        sizes = [m.shape[-2:] for m in maps]
        finest = (max(h for h, _ in sizes), max(w for _, w in sizes))
        if any(finest[0] % h or finest[1] % w for h, w in sizes):
            finest = (x.shape[-2], x.shape[-1])
        total = torch.stack([_repeat(m, finest) for m in maps]).sum(0) if len(maps) > 1 else maps[0]
        return _repeat(total, (x.shape[-2], x.shape[-1]))

    def extra_repr(self) -> str:
        scales = "-".join(map(str, self.scales))
        return f"{self.channels}, scales={scales}, strategy={self.strategy}, shared={len(self.weights) == 1}"


def _repeat(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[-2:]) == size else F.interpolate(x, size=size, mode="nearest")
