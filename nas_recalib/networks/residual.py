"""Shapes of residual networks and their blocks, and how they scale to a proxy's width."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from nas_recalib.networks.backbone import Backbone
from nas_recalib.operators import BlockChoice


@dataclass(frozen=True)
class ResidualBlock:
    """Residual block without its operators.

    Attributes:
        module: Constructor of the block from this shape and a choice.
        in_channels: Channels of its input.
        channels: Channels of its 3x3 convolutions.
        out_channels: Channels of its output.
        stride: Factor by which its output is smaller than its input.
        groups: Groups of its 3x3 convolutions.
        clamp: Whether its maps may become smaller than an operator's regions.
        early_stride: Whether a bottleneck carries its stride in the first 1x1 convolution.
    """

    module: Callable[["ResidualBlock", BlockChoice], nn.Module]
    in_channels: int
    channels: int
    out_channels: int
    stride: int
    groups: int
    clamp: bool
    early_stride: bool = False

    def build(self, choice: BlockChoice) -> nn.Module:
        return self.module(self, choice)

    def projection(self) -> nn.Conv2d | None:
        """Return a 1x1 convolution for the shortcut where the shape changes, else None."""
        if self.stride == 1 and self.in_channels == self.out_channels:
            return None
        return nn.Conv2d(self.in_channels, self.out_channels, 1, self.stride, bias=False)


@dataclass(frozen=True)
class ResidualBackbone(Backbone):
    """Residual network without its operators.

    Attributes:
        network: Constructor from this shape, the blocks' choices, and the numbers of classes and channels.
        block: Constructor of a block.
        depths: Number of blocks of each stage.
        channels: Channels of each stage's 3x3 convolutions.
        outputs: Channels of each stage's output.
        stem_channels: Channels of the stem's output.
        stem: "imagenet" is a 7x7 convolution and a pooling with a stride of 4 in all; "small" is one 3x3
            convolution of stride 1.
        groups: Groups of every block's 3x3 convolutions (the cardinality of a ResNeXt).
        clamp: Whether its maps may become smaller than an operator's regions.
        early_stride: Whether bottlenecks carry their stride in the first 1x1 convolution, as in the first
            ResNets (He et al., 2016), instead of in the 3x3 one.
    """

    network: Callable[["ResidualBackbone", Mapping[str, BlockChoice], int, int], nn.Module]
    block: Callable[[ResidualBlock, BlockChoice], nn.Module]
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    outputs: tuple[int, ...]
    stem_channels: int
    stem: Literal["imagenet", "small"]
    groups: int = 1
    clamp: bool = False
    early_stride: bool = False

    def blocks(self) -> dict[str, ResidualBlock]:
        specs = {}
        width = self.stem_channels
        stages = zip(self.depths, self.channels, self.outputs, strict=True)
        for stage, (depth, channels, outputs) in enumerate(stages, start=1):
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                specs[f"layer{stage}.{index}"] = ResidualBlock(
                    self.block, width, channels, outputs, stride, self.groups, self.clamp, self.early_stride
                )
                width = outputs
        return specs

    def _network(self, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int) -> nn.Module:
        return self.network(self, choices, num_classes, in_channels)

    def scaled(self, width: float) -> "ResidualBackbone":
        """Scale the channels; groups stay as wide and become fewer, so that operators still fit them."""
        groups = self.groups
        if groups == 1:
            channels = tuple(_scaled(c, width, 8) for c in self.channels)
        else:
            widths = [c // groups for c in self.channels]
            groups = _scaled(groups, width, 8 // math.gcd(8, *widths))
            channels = tuple(c * groups for c in widths)
        unit = 8 if self.outputs == self.channels else 32  # bottlenecks have four times as many outputs
        return replace(
            self,
            channels=channels,
            outputs=tuple(_scaled(c, width, unit) for c in self.outputs),
            stem_channels=_scaled(self.stem_channels, width, 8),
            stem="small",
            groups=groups,
            clamp=True,
        )


def _scaled(channels: int, width: float, unit: int) -> int:
    return max(unit, round(channels * width / unit) * unit)
