"""DenseNet-BC for small images with torchvision's module names and a choice of operators for every layer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.fx import wrap
from torch.nn import functional as F

from nas_recalib.networks.backbone import Backbone, classifier, halving_maps
from nas_recalib.operators import BlockChoice, build_convolution, build_recalibration, takes_source
from nas_recalib.operators._tracing import shape_at_hand

BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Norm, 1x1, norm, 3x3; the output joins the running concatenation (Huang et al., 2017).

    Only the new features are recalibrated. Multi-stage weights come from the running concatenation, before
    the layer's own norm and without the new features, as the multiply-accumulates in table 3 of the MS-SAR
    paper (ECCV 2018) imply.

    Shape:
        (N, in_channels, H, W) to (N, in_channels + growth, H, W).
    """

    def __init__(self, spec: "DenseStep", choice: BlockChoice) -> None:
        super().__init__()
        middle = BOTTLENECK * spec.growth
        self.norm1 = nn.BatchNorm2d(spec.in_channels)
        self.conv1 = nn.Conv2d(spec.in_channels, middle, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.conv2 = build_convolution(choice.convolution, middle, spec.growth, 1)
        self.recalibration = build_recalibration(
            choice.recalibration, spec.growth, clamp=spec.clamp, source_channels=spec.in_channels
        )
        self.multi_stage = takes_source(choice.recalibration)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu(self.norm1(x)))
        y = self.conv2(self.relu(self.norm2(y)))
        y = self.recalibration(y, x) if self.multi_stage else self.recalibration(y)
        return torch.cat((x, y), dim=1)


class Transition(nn.Sequential):
    """Layer between two dense blocks that halves channels, height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)


@dataclass(frozen=True)
class DenseStep:
    """Dense layer without its operators; `growth` is the number of channels that it adds."""

    in_channels: int
    growth: int
    clamp: bool

    def build(self, choice: BlockChoice) -> nn.Module:
        return DenseLayer(self, choice)


@dataclass(frozen=True)
class DenseNetBackbone(Backbone):
    """DenseNet-BC without its operators.

    Attributes:
        growth: Number of channels that a layer adds; the stem has twice as many.
        depths: Number of layers of each dense block.
        clamp: Whether its maps may become smaller than an operator's regions.
    """

    growth: int
    depths: tuple[int, ...]
    clamp: bool = False

    def blocks(self) -> dict[str, DenseStep]:
        specs = {}
        width = 2 * self.growth
        for stage, depth in enumerate(self.depths, start=1):
            for step in range(1, depth + 1):
                name = f"features.denseblock{stage}.denselayer{step}"
                specs[name] = DenseStep(width, self.growth, self.clamp)
                width += self.growth
            width //= 2
        return specs

    def _network(self, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int) -> nn.Module:
        return DenseNet(self, choices, num_classes, in_channels)

    def scaled(self, width: float) -> "DenseNetBackbone":
        return replace(self, growth=max(4, round(self.growth * width / 4) * 4), clamp=True)


class DenseNet(nn.Module):
    """DenseNet-BC with a choice in every layer.

    Shape:
        (N, in_channels, H, W) to (N, num_classes), or to the features (N, C) for no classes.

    Raises:
        ValueError: If an image has too few pixels to be halved at every transition.
    """

    def __init__(
        self, shape: DenseNetBackbone, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.name = shape.name
        self.least_side = 2 ** (len(shape.depths) - 1)
        specs = shape.blocks()
        width = 2 * shape.growth
        widths = []
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(in_channels, width, 3, 1, 1, bias=False))
        for stage, depth in enumerate(shape.depths, start=1):
            if stage > 1:
                self.features.add_module(f"transition{stage - 1}", Transition(width))
                width //= 2
            block = nn.Sequential()
            for step in range(1, depth + 1):
                name = f"features.denseblock{stage}.denselayer{step}"
                block.add_module(f"denselayer{step}", specs[name].build(choices[name]))
            self.features.add_module(f"denseblock{stage}", block)
            width += depth * shape.growth
            widths.append(width)
        self.features.add_module("norm5", nn.BatchNorm2d(width))
        self.features.add_module("relu5", nn.ReLU(inplace=True))
        blocks = [f"features.denseblock{stage}" for stage in range(1, len(shape.depths))]
        self.maps = halving_maps([*blocks, "features.relu5"], widths, stride=1)
        self.classifier = classifier(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = require_pixels(self.name, x, self.least_side)
        y = F.adaptive_avg_pool2d(self.features(x), 1)
        logits: Tensor = self.classifier(torch.flatten(y, 1))
        return logits


@wrap
def require_pixels(network: str, x: Tensor, least: int) -> Tensor:
    """Return x, or raise ValueError if its images are too small; torch.fx records this as one node."""
    height, width = shape_at_hand(x)[-2:]
    if height < least or width < least:
        raise ValueError(f"{network}: an image of {height}x{width} pixels is smaller than {least}x{least}")
    return x


def cifar_densenet(name: str, growth: int, depth: int) -> DenseNetBackbone:
    """Return DenseNet-BC for 32x32 images, three blocks of `depth` layers (Huang et al., 2017, 4.1)."""
    return DenseNetBackbone(name, 32, 10, growth, (depth,) * 3)
