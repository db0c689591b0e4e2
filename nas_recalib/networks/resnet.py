"""Residual networks with torchvision's module names and a choice for every block, and their scaled shapes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from nas_recalib.networks.backbone import Backbone, add_recalibrated, add_stages, classifier, halving_maps
from nas_recalib.operators import BlockChoice, build_convolution, build_recalibration


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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the recalibration after the second norm, the sum (He et al., 2016)."""

    def __init__(self, spec: ResidualBlock, choice: BlockChoice) -> None:
        super().__init__()
        inputs, channels, groups = spec.in_channels, spec.channels, spec.groups
        self.conv1 = build_convolution(choice.convolution, inputs, channels, spec.stride, groups)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = build_convolution(choice.convolution, channels, spec.out_channels, 1, groups)
        self.bn2 = nn.BatchNorm2d(spec.out_channels)
        self.recalibration = build_recalibration(choice.recalibration, spec.out_channels, clamp=spec.clamp)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(spec)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(add_recalibrated(self.recalibration, y, shortcut))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries groups), 1x1, the recalibration after the last norm, the sum.

    The 3x3 convolution carries the stride, or the first 1x1 one where the shape says so.
    """

    def __init__(self, spec: ResidualBlock, choice: BlockChoice) -> None:
        super().__init__()
        channels = spec.channels
        first, second = (spec.stride, 1) if spec.early_stride else (1, spec.stride)
        self.conv1 = nn.Conv2d(spec.in_channels, channels, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = build_convolution(choice.convolution, channels, channels, second, spec.groups)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, spec.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(spec.out_channels)
        self.recalibration = build_recalibration(choice.recalibration, spec.out_channels, clamp=spec.clamp)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(spec)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(add_recalibrated(self.recalibration, y, shortcut))
        return out


class ResNet(nn.Module):
    """ResNet with a choice in every block.

    Shape:
        (N, in_channels, H, W) to (N, num_classes), or to the features (N, C) for no classes.
    """

    def __init__(
        self, shape: ResidualBackbone, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        width = shape.stem_channels
        small = shape.stem == "small"
        kernel_size, stride = (3, 1) if small else (7, 2)
        # Modules are added in the order in which they run, as torchvision's feature extractors require.
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        self.stages = add_stages(self, shape.blocks(), choices)
        self.maps = halving_maps(self.stages, shape.outputs, stride=1 if small else 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = classifier(shape.outputs[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


_imagenet = partial(
    ResidualBackbone, network=ResNet, stem="imagenet", stem_channels=64, input_size=224, num_classes=1000
)
_cifar = partial(ResidualBackbone, network=ResNet, stem="small", input_size=32, num_classes=10)


def basic_resnet(name: str, *depths: int, widen: int = 1) -> ResidualBackbone:
    """Return a ResNet of basic blocks for ImageNet (He et al., 2016, table 1), `widen` times as wide."""
    channels = tuple(64 * widen * 2**stage for stage in range(4))
    return _imagenet(name, block=BasicBlock, depths=depths, channels=channels, outputs=channels)


def bottleneck_resnet(
    name: str, *depths: int, groups: int = 1, group_width: int = 64, early_stride: bool = False
) -> ResidualBackbone:
    """Return a ResNet of bottlenecks for ImageNet; with groups it is a ResNeXt (Xie et al., 2017, table 1).

    Args:
        name: Name in files.
        *depths: Number of blocks of each stage.
        groups: Groups of the 3x3 convolutions, the cardinality.
        group_width: Channels of a group in the first stage; doubled in each following stage.
        early_stride: Whether the first 1x1 convolution of a bottleneck carries its stride.
    """
    channels = tuple(groups * group_width * 2**stage for stage in range(4))
    outputs = (256, 512, 1024, 2048)
    return _imagenet(
        name,
        block=Bottleneck,
        depths=depths,
        channels=channels,
        outputs=outputs,
        groups=groups,
        early_stride=early_stride,
    )


def cifar_resnet(name: str, depth: int) -> ResidualBackbone:
    """Return a ResNet for 32x32 images, three stages of `depth` basic blocks (He et al., 2016, section 4.2).

    Its shortcuts are projections where the shape changes, as the MS-SAR paper's multiply-accumulates imply.
    """
    channels = (16, 32, 64)
    return _cifar(
        name, block=BasicBlock, depths=(depth,) * 3, channels=channels, outputs=channels, stem_channels=16
    )


def cifar_resnext(name: str, groups: int, group_width: int) -> ResidualBackbone:
    """Return ResNeXt-29 for 32x32 images, three stages of three bottlenecks (Xie et al., 2017, 5.3)."""
    return _cifar(
        name,
        block=Bottleneck,
        depths=(3, 3, 3),
        channels=tuple(groups * group_width * 2**stage for stage in range(3)),
        outputs=(256, 512, 1024),
        stem_channels=64,
        groups=groups,
    )


def _shortcut(spec: ResidualBlock) -> nn.Module | None:
    projection = spec.projection()
    if projection is None:
        return None
    return nn.Sequential(projection, nn.BatchNorm2d(spec.out_channels))
