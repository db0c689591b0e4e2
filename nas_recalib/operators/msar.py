"""Multi-scale spatially-asymmetric recalibration (Wang et al., ECCV 2018)."""

import math
from functools import reduce
from itertools import cycle
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.operators._checks import require, require_channels, require_statistics, whole_numbers
from nas_recalib.operators._functional import Pointwise, named_attributes
from nas_recalib.operators._gate import average_by, averages, multiply, recalibrate, repeat
from nas_recalib.operators._tracing import shape_at_hand, sizes_vary


class MSSAR(nn.Module):
    """Product of every response with a weight computed from regions around it, at several scales.

    For each scale K the map is averaged over K x K regions, passed through two 1x1 convolutions (to a few
    channels, batch norm, ReLU; back, batch norm, sigmoid) and repeated to full size (eq. 1). The mean of the
    scales' weights multiplies the input (eq. 2).

    The sliding strategy is defined by an l1 distance, |dh| + |dw| <= sqrt(H W) / K, which is a diamond, while
    the paper's footnotes 1 and 3 describe squares and sum over rectangles. "sliding" is the square,
    "sliding-l1" the formula.

    Args:
        channels: Channels of the tensor to recalibrate.
        scales: Number of regions along each axis, K, for each scale; (1,) is squeeze-and-excitation.
        strategy: "regional" pools K x K regions; "sliding" pools a square window of half-width sqrt(H W) / K
            around every position, cut off at the borders; "sliding-l1" pools the positions within that l1
            distance.
        hidden: Absolute number of channels between the two convolutions; leave it out for a relative one.
        reduction: Divisor of the relative number, channels / (reduction x len(scales)), rounded to the
            nearest and at least 1. 1 is the text's D' = D / L (section 3.5); the
            multiply-accumulates that the paper prints imply 3 in its ResNets (tables 2, 3 and 5; in table 2
            the parameters as well) and 16 in its ResNeXt-50 (table 5, parameters as well).
        norm: "both" puts a batch norm after each convolution, as section 3.2 defines sigma_1 and sigma_2.
            "hidden" omits the second one and rounds relative widths down: the operator of versions before
            0.2, for networks made with them.
        share: Whether all scales share one pair of convolutions instead of having one each.
        source_channels: Channels of the tensor that weights are computed from, where it is not the input
            itself (multi-stage recalibration).
        clamp: Whether every position of a map of fewer than K rows or columns is a region of its own, instead
            of refusing the map, as a low-resolution proxy of a network needs.

    Shape:
        (N, channels, H, W), and optionally the source (N, source_channels, H, W) and a residual to add,
        (N, channels, H, W), to (N, channels, H, W).

    Raises:
        ValueError: If an argument is out of range, or at the first call if a scale is larger than the map.
    """

    takes_residual = True

    def __init__(
        self,
        channels: int,
        scales: tuple[int, ...] = (1, 2, 4),
        *,
        strategy: Literal["regional", "sliding", "sliding-l1"] = "regional",
        hidden: int | None = None,
        reduction: int = 1,
        norm: Literal["both", "hidden"] = "both",
        share: bool = False,
        source_channels: int | None = None,
        clamp: bool = False,
    ) -> None:
        super().__init__()
        require(channels >= 1, "msar", "channels", channels, "at least 1")
        scales = whole_numbers("msar", "scales", scales, "a list of scales of at least 1")
        allowed = "regional, sliding or sliding-l1"
        require(strategy in ("regional", "sliding", "sliding-l1"), "msar", "strategy", strategy, allowed)
        for name, value in (("hidden", hidden), ("reduction", reduction)):
            require(value is None or (type(value) is int and value >= 1), "msar", name, value, "at least 1")
        absolute = f"1, its default, where hidden = {hidden} is given"
        require(hidden is None or reduction == 1, "msar", "reduction", reduction, absolute)
        require(norm in ("both", "hidden"), "msar", "norm", norm, "both or hidden")
        sourced = source_channels is None or source_channels >= 1
        require(sourced, "msar", "source_channels", source_channels, "at least 1")
        self.channels = channels
        self.source_channels = source_channels or channels
        self.scales = scales
        self.strategy = strategy
        self.norm = norm
        self.clamp = clamp
        divisor = reduction * len(scales)
        nearest = (2 * channels + divisor) // (2 * divisor)
        width = hidden or max(1, nearest if norm == "both" else channels // divisor)
        self.weights = nn.ModuleList(self._pair(width) for _ in range(1 if share else len(scales)))

    def _pair(self, width: int) -> nn.Sequential:
        second = [nn.BatchNorm2d(self.channels)] if self.norm == "both" else []
        return nn.Sequential(
            Pointwise(self.source_channels, width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            Pointwise(width, self.channels),
            *second,
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, source: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
        require_channels("msar", x, self.channels, residual)
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
        fits = self.clamp or self.strategy != "regional" or (least <= height and least <= width)
        if not fits:  # else the message would fix the sizes of an export
            require(False, "msar", "scales", self.scales, f"within a {height}x{width} map")

    def _windows(self, source: Tensor) -> list[Tensor]:
        """Return averages over the positions within sqrt(H W) / K of every position, for each scale K."""
        height, width = source.shape[-2:]
        if sizes_vary(height, width):
            average = _average_square if self.strategy == "sliding" else _average_diamond
            return [average(source, scale) for scale in self.scales]
        reaches = [int(math.sqrt(height * width) / scale) for scale in self.scales]
        if self.strategy == "sliding":
            return [F.avg_pool2d(source, 2 * r + 1, 1, r, count_include_pad=False) for r in reaches]
        ones = torch.ones_like(source[:1, :1], dtype=torch.float32)
        sums = ((_diamond_sums(source, reach), _diamond_sums(ones, reach)) for reach in reaches)
        return [(total / count).to(source.dtype) for total, count in sums]

    def _weigh(self, averaged: list[Tensor]) -> Tensor:
        """Return the mean of the scales' weights, on a common refinement of their grids (eq. 2)."""
        pairs = list(zip(cycle(self.weights), averaged, strict=False))
        for weigh, pooled in pairs:
            require_statistics("msar", pooled, weigh)
        maps = [weigh(pooled) for weigh, pooled in pairs]
        if self.strategy != "regional":
            return torch.stack(maps).mean(0)
        grids = [shape_at_hand(m)[-2:] for m in maps]
        common = (reduce(_lcm, (rows for rows, _ in grids)), reduce(_lcm, (columns for _, columns in grids)))
        return torch.stack([repeat(m, common) for m in maps]).mean(0)

    def extra_repr(self) -> str:
        attributes = named_attributes(self, "scales", "strategy", "norm")
        return f"{self.channels}, {attributes}, shared={len(self.weights) == 1}"


def _lcm(a: int, b: int) -> int:
    """Return the least common multiple; unlike math.lcm it takes symbolic sizes of torch.compile."""
    x, y = a, b
    while y:
        x, y = y, x % y
    return a // x * b


def _diamond_sums(x: Tensor, reach: int) -> Tensor:
    """Return sums of (N, C, H, W) over |dh| + |dw| <= reach around every position, row by row."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # which cannot hold sums of many
    height = x.shape[-2]
    total = torch.zeros_like(x)
    for shift in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        half = reach - abs(shift)
        rows = F.avg_pool2d(x, (1, 2 * half + 1), 1, (0, half), divisor_override=1)
        moved = rows[..., max(0, shift) : height + min(0, shift), :]
        total = total + F.pad(moved, (0, 0, max(0, -shift), max(0, shift)))
    return total


def _average_square(x: Tensor, scale: int) -> Tensor:
    """Return averages over the sliding square, for any sizes at run time."""
    height, width = x.shape[-2:]
    rows, columns = (_distances(side, x) for side in (height, width))
    near = height * width
    return average_by(x, (rows * scale) ** 2 <= near, (columns * scale) ** 2 <= near)


def _average_diamond(x: Tensor, scale: int) -> Tensor:
    """Return averages over the sliding l1 ball, for any sizes at run time."""
    height, width = x.shape[-2:]
    rows, columns = (_distances(side, x) for side in (height, width))
    distance = rows[:, None, :, None] + columns[None, :, None, :]
    near = ((distance * scale) ** 2 <= height * width).to(x.dtype)
    return torch.einsum("hwij,ncij->nchw", near, x) / near.sum((2, 3))


def _distances(side: int, like: Tensor) -> Tensor:
    """Return the distance between every two rows, (side, side)."""
    row = torch.arange(side, device=like.device)
    return (row[:, None] - row[None, :]).abs()
