"""Gather-excite (Hu et al., NeurIPS 2018)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from nas_recalib.operators._checks import require, require_channels, require_statistics
from nas_recalib.operators._functional import Pointwise, fit_whole_map
from nas_recalib.operators._gate import multiply


class GatherExcite(nn.Module):
    """Product of each point with a weight computed from a learned summary of its surroundings (GE-theta+).

    The gather is depthwise: 3x3 convolutions of stride 2 that reduce `extent` x `extent` points to one (the
    paper's E2, E4 and E8), or, where `size` is given, one kernel over the whole map (its global extent). A
    batch norm and a ReLU follow each convolution, as in the authors' released network. The excitation turns
    the gathered map into weights; nearest upsampling brings them back to the size of the map.

    The papers' tables compare the global extent, but its kernels fit maps of one size only. The default is
    therefore the chain of extent 8: it takes any map, covers a 7x7 map as a whole, and is second in the
    paper's accuracies (ResNet-50, GE-theta: 77.87% after 78.00%).

    Args:
        channels: Channels of the input.
        r: Reduction ratio of the "mlp".
        excitation: "mlp" is the two 1x1 convolutions of squeeze-and-excitation with max(1, channels // r)
            channels between them; "ab" is the depthwise 1x1 convolution and batch norm of Accuracy Booster
            (section 6.1.3 of its paper); "none" is GE-theta, where the sigmoid follows the last norm of the
            gather.
        extent: Side of the region that becomes one point: 2, 4 or 8 (default, where no size is given).
        size: Side of the map, for the global extent.
        clamp: Whether maps of another size than `size` are averaged or repeated to it instead of refused, as
            a low-resolution proxy of a network needs.

    Shape:
        (N, channels, H, W) to (N, channels, H, W).

    Raises:
        ValueError: If an argument is out of range; at the first call on a map that is not of the given size;
            or in training on a batch of one image of which one point is gathered, where a batch norm has no
            variance.
    """

    def __init__(
        self,
        channels: int,
        r: int = 16,
        excitation: Literal["mlp", "ab", "none"] = "mlp",
        *,
        extent: int | None = None,
        size: int | None = None,
        clamp: bool = False,
    ) -> None:
        super().__init__()
        require(channels >= 1, "ge", "channels", channels, "at least 1")
        require(r >= 1, "ge", "r", r, "at least 1")
        require(excitation in ("mlp", "ab", "none"), "ge", "excitation", excitation, "mlp, ab or none")
        require(extent in (None, 2, 4, 8), "ge", "extent", extent, "2, 4 or 8")
        require(size is None or size >= 1, "ge", "size", size, "at least 1")
        require(extent is None or size is None, "ge", "extent", extent, f"for a gather of size = {size}")
        self.channels = channels
        self.excitation = excitation
        self.extent = extent or size or 8
        self.size = size
        self.clamp = clamp
        self.gather = self._gather()
        self.excite = self._excite(max(1, channels // r))

    def _gather(self) -> nn.Sequential:
        channels = self.channels
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(self.extent)) if self.size is None else 1):
            kernel = (3, 2, 1) if self.size is None else (self.size, 1, 0)
            layers.append(nn.Conv2d(channels, channels, *kernel, groups=channels, bias=False))
            layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        return nn.Sequential(*(layers[:-1] if self.excitation == "none" else layers))

    def _excite(self, hidden: int) -> nn.Module:
        channels = self.channels
        if self.excitation == "mlp":
            squeeze, expand = Pointwise(channels, hidden, bias=True), Pointwise(hidden, channels, bias=True)
            return nn.Sequential(squeeze, nn.ReLU(inplace=True), expand)
        if self.excitation == "ab":
            scale = Pointwise(channels, channels, channels)
            return nn.Sequential(scale, nn.BatchNorm2d(channels))
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        require_channels("ge", x, self.channels)
        source = x if self.size is None else fit_whole_map("ge", x, self.size, self.clamp)
        if self.training:
            require_statistics("ge", source[..., :: self.extent, :: self.extent], self)
        weights = torch.sigmoid(self.excite(self.gather(source)))
        return multiply(x, weights)

    def extra_repr(self) -> str:
        gathered = f"extent={self.extent}" if self.size is None else f"size={self.size}"
        return f"{self.channels}, excitation={self.excitation}, {gathered}"
