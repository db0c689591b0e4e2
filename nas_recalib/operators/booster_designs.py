"""Ablations of the Accuracy Booster (Singh, Mazumder, Namboodiri, WACV 2020, section 7)."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.operators._checks import require, require_channels, require_statistics
from nas_recalib.operators._functional import fit_whole_map

DesignName = Literal["B", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O", "dw3-bn", "dw9-bn", "no-bn"]
Convolution = Literal["depthwise", "full"]


@dataclass(frozen=True)
class _Design:
    """Layers between the map and the sigmoid, in this order; no convolution has a bias.

    Attributes:
        spatial: Kind of the convolution over the map, if there is one.
        kernel: Side of its kernel; None is a kernel as large as the map, which leaves one point.
        average: Whether the global average is taken.
        pointwise: Kind of the 1x1 convolution, if there is one.
        norm: Whether a batch norm follows.
    """

    spatial: Convolution | None = None
    kernel: int | None = None
    average: bool = False
    pointwise: Convolution | None = None
    norm: bool = False


# G and H have no norm: the paper names one wherever a design has it, and counts W H C^2 parameters for H.
_DESIGNS: dict[DesignName, _Design] = {
    "B": _Design(average=True, pointwise="full"),
    "E": _Design(average=True),
    "F": _Design(average=True, norm=True),
    "G": _Design("depthwise"),
    "H": _Design("full"),
    "I": _Design("full", 3),
    "J": _Design("depthwise", 3),
    "K": _Design("full", 7),
    "L": _Design("depthwise", 7),
    "M": _Design("depthwise", 7, average=True),
    "N": _Design("depthwise", 7, average=True, pointwise="depthwise", norm=True),
    "O": _Design("depthwise", 7, average=True, pointwise="full", norm=True),
    "dw3-bn": _Design("depthwise", 3, norm=True),
    "dw9-bn": _Design("depthwise", 9, norm=True),
    "no-bn": _Design(average=True, pointwise="depthwise"),
}


class BoosterDesign(nn.Module):
    """Product of the input with the sigmoid of a design from the Accuracy Booster paper's ablations.

    Together with `SqueezeExcite` and `AccuracyBooster` they reproduce its tables 10 to 15.

    Args:
        channels: Channels of the input.
        design: Letter of the design. Figure 2: B is the global average, one fully connected layer and the
            sigmoid (section 4, which calls it equivalent to AB-Plus, but that has a norm). Table 11: E is the
            global average alone, F the average and a batch norm, G a learned weight for each point of a
            channel, H one for each point of all channels. Table 12, a weight for each point: I is a 3x3
            convolution, J its depthwise form, K and L the same with 7x7 kernels. Table 14: M is L, then the
            average; N is L, then AB; O is L, then AB-Plus. Table 13: "dw3-bn" and "dw9-bn" are 3x3 and 9x9
            depthwise convolutions and a batch norm. Section 6.1: "no-bn" is AB without its batch norm.
        size: Side of the map, which G and H need and the others do not take.
        clamp: Whether maps of another size than `size` are averaged or repeated to it instead of refused, as
            a low-resolution proxy of a network needs.

    Shape:
        (N, channels, H, W) to (N, channels, H, W).

    Raises:
        ValueError: If an argument is out of range, missing or too many; at the first call on a map that is
            not of the given size; or in training where a batch norm sees one value a channel.
    """

    def __init__(
        self, channels: int, design: DesignName, size: int | None = None, *, clamp: bool = False
    ) -> None:
        super().__init__()
        require(channels >= 1, "ab-design", "channels", channels, "at least 1")
        allowed = f"one of {', '.join(get_args(DesignName))}"
        require(design in _DESIGNS, "ab-design", "design", design, allowed)
        chosen = _DESIGNS[design]
        if chosen.spatial is not None and chosen.kernel is None:
            given = size is not None and size >= 1
            require(given, "ab-design", "size", size, f"the side of the map, which design {design} needs")
        else:
            require(size is None, "ab-design", "size", size, f"an argument of design {design}")

        def convolution(kind: Convolution | None, kernel: int, padding: int) -> nn.Module:
            if kind is None:
                return nn.Identity()
            groups = channels if kind == "depthwise" else 1
            return nn.Conv2d(channels, channels, kernel, 1, padding, groups=groups, bias=False)

        self.channels = channels
        self.design = design
        self.size = size
        self.clamp = clamp
        self.average = chosen.average
        self.spatial = convolution(chosen.spatial, chosen.kernel or size or 1, (chosen.kernel or 0) // 2)
        self.pointwise = convolution(chosen.pointwise, 1, 0)
        self.norm = nn.BatchNorm2d(channels) if chosen.norm else None

    def forward(self, x: Tensor) -> Tensor:
        require_channels("ab-design", x, self.channels)
        source = x if self.size is None else fit_whole_map("ab-design", x, self.size, self.clamp)
        weights = self.spatial(source)
        if self.average:
            weights = F.adaptive_avg_pool2d(weights, 1)
        weights = self.pointwise(weights)
        if self.norm is not None:
            require_statistics("ab-design", weights, self.norm)
            weights = self.norm(weights)
        return x * torch.sigmoid(weights)

    def extra_repr(self) -> str:
        return f"{self.channels}, design={self.design}" + (f", size={self.size}" if self.size else "")
