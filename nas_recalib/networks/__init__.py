"""Backbones by name: ResNets, ResNeXts, pre-activation ResNets, DenseNets and ShuffleNets."""

from nas_recalib.networks.backbone import Backbone, BlockSpec
from nas_recalib.networks.densenet import cifar_densenet
from nas_recalib.networks.features import FeatureMaps, freeze_norms, pyramid
from nas_recalib.networks.preact import preact_resnet, wide_resnet
from nas_recalib.networks.resnet import basic_resnet, bottleneck_resnet, cifar_resnet, cifar_resnext
from nas_recalib.networks.shufflenet import imagenet_shufflenet

_backbones: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        basic_resnet("resnet18", 2, 2, 2, 2),
        basic_resnet("resnet34", 3, 4, 6, 3),
        bottleneck_resnet("resnet50", 3, 4, 6, 3),
        bottleneck_resnet("resnet101", 3, 4, 23, 3),
        bottleneck_resnet("resnet152", 3, 8, 36, 3),
        bottleneck_resnet("resnet50-v1", 3, 4, 6, 3, early_stride=True),
        bottleneck_resnet("resnet152-v1", 3, 8, 36, 3, early_stride=True),
        bottleneck_resnet("resnext50-32x4d", 3, 4, 6, 3, groups=32, group_width=4),
        bottleneck_resnet("resnext101-32x4d", 3, 4, 23, 3, groups=32, group_width=4),
        bottleneck_resnet("resnext50-2x40d", 3, 4, 6, 3, groups=2, group_width=40),
        basic_resnet("wrn18-2", 2, 2, 2, 2, widen=2),
        cifar_resnet("resnet20", 3),
        cifar_resnet("resnet32", 5),
        cifar_resnet("resnet56", 9),
        cifar_resnet("resnet110", 18),
        cifar_resnext("resnext29-8x64d", groups=8, group_width=64),
        cifar_resnext("resnext29-16x64d", groups=16, group_width=64),
        preact_resnet("resnet164", 18),
        wide_resnet("wrn22-10", 3, widen=10),
        cifar_densenet("densenet100", 12, 16),
        cifar_densenet("densenet190", 40, 31),
        imagenet_shufflenet("shufflenet-g3", 3, 240, 480, 960),
    )
}


def backbone_names() -> list[str]:
    """Return the names of the backbones."""
    return list(_backbones)


def get_backbone(name: str) -> Backbone:
    """Return the backbone of a name.

    Raises:
        ValueError: If no backbone has that name; the message lists those that exist.
    """
    if name not in _backbones:
        raise ValueError(f"unknown backbone {name!r}; allowed: {', '.join(_backbones)}")
    return _backbones[name]


__all__ = [
    "Backbone",
    "BlockSpec",
    "FeatureMaps",
    "backbone_names",
    "freeze_norms",
    "get_backbone",
    "pyramid",
]
