"""ResNet under torchvision's module names, with a choice of operators for every block."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from nas_recalib.operators import BlockChoice, build_convolution, build_recalibration


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the recalibration after the second norm, the sum (He et al., 2016)."""

    expansion = 1

    def __init__(self, spec: "ResNetBlock", choice: BlockChoice) -> None:
        super().__init__()
        self.conv1 = build_convolution(choice.convolution, spec.in_channels, spec.channels, spec.stride)
        self.bn1 = nn.BatchNorm2d(spec.channels)
        self.conv2 = build_convolution(choice.convolution, spec.channels, spec.channels, 1)
        self.bn2 = nn.BatchNorm2d(spec.channels)
        self.recalibration = build_recalibration(choice.recalibration, spec.channels, clamp=spec.clamp)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = spec.shortcut()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.recalibration(self.bn2(self.conv2(y)))
        out: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1, the recalibration after the last norm, the sum."""

    expansion = 4

    def __init__(self, spec: "ResNetBlock", choice: BlockChoice) -> None:
        super().__init__()
        outputs = spec.channels * self.expansion
        self.conv1 = nn.Conv2d(spec.in_channels, spec.channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(spec.channels)
        self.conv2 = build_convolution(choice.convolution, spec.channels, spec.channels, spec.stride)
        self.bn2 = nn.BatchNorm2d(spec.channels)
        self.conv3 = nn.Conv2d(spec.channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.recalibration = build_recalibration(choice.recalibration, outputs, clamp=spec.clamp)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = spec.shortcut()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.recalibration(self.bn3(self.conv3(y)))
        out: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return out


_BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


@dataclass(frozen=True)
class ResNetBlock:
    """Shape of one block; `channels` are those of its 3x3 convolution."""

    kind: Literal["basic", "bottleneck"]
    in_channels: int
    channels: int
    stride: int
    clamp: bool

    @property
    def out_channels(self) -> int:
        return self.channels * _BLOCKS[self.kind].expansion

    def build(self, choice: BlockChoice) -> nn.Module:
        return _BLOCKS[self.kind](self, choice)

    def shortcut(self) -> nn.Module | None:
        """A projection where the shape changes, nothing elsewhere."""
        if self.stride == 1 and self.in_channels == self.out_channels:
            return None
        projection = nn.Conv2d(self.in_channels, self.out_channels, 1, self.stride, bias=False)
        return nn.Sequential(projection, nn.BatchNorm2d(self.out_channels))


@dataclass(frozen=True)
class ResNetBackbone:
    """A ResNet without its operators.

    Attributes:
        name: As written in files.
        kind: Of its blocks.
        depths: Blocks of each stage.
        channels: Channels of each stage's 3x3 convolutions.
        stem: "imagenet" is a 7x7 convolution and a pooling, four times smaller in all; "small" is one 3x3
            convolution that keeps the size.
        input_size: Side of the images it is made for.
        num_classes: Classes of the data set it is made for.
        clamp: Whether its maps may become smaller than an operator's regions.
    """

    name: str
    kind: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    stem: Literal["imagenet", "small"]
    input_size: int
    num_classes: int
    clamp: bool = False

    def blocks(self) -> dict[str, ResNetBlock]:
        specs = {}
        width = self.channels[0]
        for stage, (depth, channels) in enumerate(zip(self.depths, self.channels, strict=True), start=1):
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                spec = ResNetBlock(self.kind, width, channels, stride, self.clamp)
                specs[f"layer{stage}.{index}"] = spec
                width = spec.out_channels
        return specs

    def build(self, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int) -> nn.Module:
        return ResNet(self, choices, num_classes, in_channels)

    def twin(self, width: float) -> "ResNetBackbone":
        channels = tuple(max(8, round(c * width / 8) * 8) for c in self.channels)
        return replace(self, channels=channels, stem="small", clamp=True)


class ResNet(nn.Module):
    """A ResNet of the given shape with the given choice in every block.

    Shape:
        (N, in_channels, H, W) to (N, num_classes).
    """

    def __init__(
        self, shape: ResNetBackbone, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        width = shape.channels[0]
        if shape.stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.stages = []
        specs = shape.blocks()
        for stage, depth in enumerate(shape.depths, start=1):
            names = [f"layer{stage}.{index}" for index in range(depth)]
            layer = nn.Sequential(*(specs[name].build(choices[name]) for name in names))
            self.add_module(f"layer{stage}", layer)
            self.stages.append(f"layer{stage}")
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(specs[names[-1]].out_channels, num_classes)
        for module in self.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.dim() == 4:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return logits


def imagenet_resnet(name: str, kind: Literal["basic", "bottleneck"], *depths: int) -> ResNetBackbone:
    """ResNet for 224 x 224 images and 1,000 classes (He et al., 2016, table 1)."""
    return ResNetBackbone(name, kind, depths, (64, 128, 256, 512), "imagenet", 224, 1000)


def cifar_resnet(name: str, depth: int) -> ResNetBackbone:
    """ResNet for 32 x 32 images, three stages of `depth` basic blocks each (He et al., 2016, section 4.2).

    Its shortcuts are projections where the shape changes, as the MS-SAR paper's multiply-accumulates say.
    """
    return ResNetBackbone(name, "basic", (depth,) * 3, (16, 32, 64), "small", 32, 10)
