"""ShuffleNet (v1) with a choice of operators for every unit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from nas_recalib.networks.backbone import Backbone, add_recalibrated, add_stages, classifier, halving_maps
from nas_recalib.operators import BlockChoice, build_convolution, build_recalibration


class ShuffleUnit(nn.Module):
    """Grouped 1x1, channel shuffle, depthwise 3x3, grouped 1x1 (Zhang et al., 2018, figure 2).

    The recalibration follows the last norm, before the sum, or before the concatenation with the pooled input
    where the unit halves the map.
    """

    def __init__(self, spec: "ShuffleNetBlock", choice: BlockChoice) -> None:
        super().__init__()
        middle, outputs = spec.out_channels // 4, spec.branch_channels
        self.groups = spec.groups
        self.conv1 = nn.Conv2d(spec.in_channels, middle, 1, groups=spec.first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = build_convolution(choice.convolution, middle, middle, spec.stride, groups=middle)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, groups=spec.groups, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.recalibration = build_recalibration(choice.recalibration, outputs, clamp=spec.clamp)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(3, 2, 1) if spec.stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(self.relu(self.bn1(self.conv1(x))), self.groups)
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        if self.pool is None:
            out: Tensor = self.relu(add_recalibrated(self.recalibration, y, x))
        else:
            out = self.relu(torch.cat((self.pool(x), self.recalibration(y)), dim=1))
        return out


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Shuffle channels between groups: channel g * n + i of groups of n moves to i * groups + g."""
    shuffled: Tensor = x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    return shuffled


@dataclass(frozen=True)
class ShuffleNetBlock:
    """Unit without its operators; with stride 2 the pooled input supplies a part of its output channels."""

    in_channels: int
    out_channels: int
    stride: int
    groups: int
    first_groups: int
    clamp: bool

    @property
    def branch_channels(self) -> int:
        return self.out_channels if self.stride == 1 else self.out_channels - self.in_channels

    def build(self, choice: BlockChoice) -> nn.Module:
        return ShuffleUnit(self, choice)


@dataclass(frozen=True)
class ShuffleNetBackbone(Backbone):
    """ShuffleNet without its operators.

    Attributes:
        groups: Groups of its 1x1 convolutions; the first one is not grouped.
        depths: Number of units of each stage.
        channels: Channels of each stage's output.
        stem_channels: Channels of the stem.
        stem: "imagenet" is a 3x3 convolution and a pooling with a stride of 4 in all; "small" is one 3x3
            convolution of stride 1.
        clamp: Whether its maps may become smaller than an operator's regions.
    """

    depthwise: ClassVar[bool] = True
    groups: int
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    stem_channels: int
    stem: Literal["imagenet", "small"]
    clamp: bool = False

    def blocks(self) -> dict[str, ShuffleNetBlock]:
        specs: dict[str, ShuffleNetBlock] = {}
        width = self.stem_channels
        for stage, (depth, channels) in enumerate(zip(self.depths, self.channels, strict=True), start=2):
            for index in range(depth):
                stride = 2 if index == 0 else 1
                first_groups = self.groups if specs else 1
                spec = ShuffleNetBlock(width, channels, stride, self.groups, first_groups, self.clamp)
                specs[f"stage{stage}.{index}"] = spec
                width = channels
        return specs

    def _network(self, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int) -> nn.Module:
        return ShuffleNet(self, choices, num_classes, in_channels)

    def scaled(self, width: float) -> "ShuffleNetBackbone":
        """Scale the channels to multiples of groups and halves in every branch, as at full size."""
        unit = 16 * self.groups
        first = max(unit, round(self.channels[0] * width / unit) * unit)
        channels = tuple(first * c // self.channels[0] for c in self.channels)
        stem = unit // 2 * max(1, round(self.stem_channels * width / (unit // 2)))
        return replace(self, channels=channels, stem_channels=stem, stem="small", clamp=True)


class ShuffleNet(nn.Module):
    """ShuffleNet with a choice in every unit.

    Shape:
        (N, in_channels, H, W) to (N, num_classes), or to the features (N, C) for no classes.
    """

    def __init__(
        self,
        shape: ShuffleNetBackbone,
        choices: Mapping[str, BlockChoice],
        num_classes: int,
        in_channels: int,
    ) -> None:
        super().__init__()
        large = shape.stem == "imagenet"
        self.conv1 = nn.Conv2d(in_channels, shape.stem_channels, 3, 2 if large else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.stages = add_stages(self, shape.blocks(), choices)
        widths = [shape.stem_channels, *shape.channels]
        self.maps = halving_maps(["maxpool", *self.stages], widths, stride=4 if large else 1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = classifier(shape.channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def imagenet_shufflenet(name: str, groups: int, *channels: int) -> ShuffleNetBackbone:
    """Return a ShuffleNet for 224x224 images and 1,000 classes (Zhang et al., 2018, table 1)."""
    return ShuffleNetBackbone(name, 224, 1000, groups, (4, 8, 4), channels, 24, "imagenet")
