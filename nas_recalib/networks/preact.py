"""Pre-activation ResNet and Wide ResNet for 32x32 images, with a choice of operators for every block."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from nas_recalib.networks.backbone import add_recalibrated, add_stages, classifier, halving_maps
from nas_recalib.networks.resnet import ResidualBackbone, ResidualBlock
from nas_recalib.operators import BlockChoice, build_convolution, build_recalibration


class PreActBasicBlock(nn.Module):
    """Twice norm, ReLU and 3x3 convolution, then the recalibration and the sum (Zagoruyko & Komodakis, 2016).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, spec: ResidualBlock, choice: BlockChoice) -> None:
        super().__init__()
        inputs, channels, groups = spec.in_channels, spec.channels, spec.groups
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = build_convolution(choice.convolution, inputs, channels, spec.stride, groups)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = build_convolution(choice.convolution, channels, spec.out_channels, 1, groups)
        self.recalibration = build_recalibration(choice.recalibration, spec.out_channels, clamp=spec.clamp)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = spec.projection()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        y = self.conv2(self.relu(self.bn2(self.conv1(y))))
        return add_recalibrated(self.recalibration, y, shortcut)


class PreActBottleneck(nn.Module):
    """Norm, ReLU and convolution thrice: 1x1 (which carries the stride), 3x3, 1x1 (He et al., 2016b).

    Then the recalibration and the sum. Where the shape changes, the shortcut is a 1x1 convolution of the
    activated input. The last convolution, which no norm follows, has a bias, as the parameters in table 15 of
    the Accuracy Booster paper imply.
    """

    def __init__(self, spec: ResidualBlock, choice: BlockChoice) -> None:
        super().__init__()
        channels = spec.channels
        self.bn1 = nn.BatchNorm2d(spec.in_channels)
        self.conv1 = nn.Conv2d(spec.in_channels, channels, 1, spec.stride, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = build_convolution(choice.convolution, channels, channels, 1, spec.groups)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, spec.out_channels, 1)
        self.recalibration = build_recalibration(choice.recalibration, spec.out_channels, clamp=spec.clamp)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = spec.projection()
        nn.init.zeros_(self.conv3.bias)  # type: ignore[arg-type]  # its type is that of a missing bias, too

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        y = self.conv2(self.relu(self.bn2(self.conv1(y))))
        y = self.conv3(self.relu(self.bn3(y)))
        return add_recalibrated(self.recalibration, y, shortcut)


class PreActResNet(nn.Module):
    """Pre-activation network with a choice in every block.

    Shape:
        (N, in_channels, H, W) to (N, num_classes), or to the features (N, C) for no classes.
    """

    def __init__(
        self, shape: ResidualBackbone, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, shape.stem_channels, 3, 1, 1, bias=False)
        self.stages = add_stages(self, shape.blocks(), choices)
        self.maps = halving_maps([*self.stages[:-1], "relu"], shape.outputs, stride=1)
        self.bn1 = nn.BatchNorm2d(shape.outputs[-1])
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = classifier(shape.outputs[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(torch.flatten(self.avgpool(self.relu(self.bn1(x))), 1))
        return logits


_cifar = partial(
    ResidualBackbone, network=PreActResNet, stem="small", stem_channels=16, input_size=32, num_classes=10
)


def preact_resnet(name: str, depth: int) -> ResidualBackbone:
    """Return a network of three stages of `depth` bottlenecks each (He et al., 2016b)."""
    outputs = (64, 128, 256)
    return _cifar(name, block=PreActBottleneck, depths=(depth,) * 3, channels=(16, 32, 64), outputs=outputs)


def wide_resnet(name: str, depth: int, widen: int) -> ResidualBackbone:
    """Return three stages of `depth` basic blocks, `widen` times as wide (Zagoruyko & Komodakis, 2016)."""
    channels = (16 * widen, 32 * widen, 64 * widen)
    return _cifar(name, block=PreActBasicBlock, depths=(depth,) * 3, channels=channels, outputs=channels)
