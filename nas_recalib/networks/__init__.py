"""Backbones that ask, block by block, which operators to use. They import nothing but torch and operators."""

from nas_recalib.networks.backbone import Backbone, BlockSpec
from nas_recalib.networks.densenet import cifar_densenet
from nas_recalib.networks.resnet import cifar_resnet, imagenet_resnet
from nas_recalib.networks.shufflenet import imagenet_shufflenet

_backbones: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        imagenet_resnet("resnet18", "basic", 2, 2, 2, 2),
        imagenet_resnet("resnet34", "basic", 3, 4, 6, 3),
        imagenet_resnet("resnet50", "bottleneck", 3, 4, 6, 3),
        imagenet_resnet("resnet101", "bottleneck", 3, 4, 23, 3),
        imagenet_resnet("resnet152", "bottleneck", 3, 8, 36, 3),
        cifar_resnet("resnet20", 3),
        cifar_resnet("resnet32", 5),
        cifar_resnet("resnet56", 9),
        cifar_resnet("resnet110", 18),
        cifar_densenet("densenet100", 12, 16),
        cifar_densenet("densenet190", 40, 31),
        imagenet_shufflenet("shufflenet-g3", 3, 240, 480, 960),
    )
}


def backbone_names() -> list[str]:
    """Names of the backbones there are."""
    return list(_backbones)


def get_backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        ValueError: If there is none; the message lists those there are.
    """
    if name not in _backbones:
        raise ValueError(f"unknown backbone {name!r}; allowed: {', '.join(_backbones)}")
    return _backbones[name]


__all__ = ["Backbone", "BlockSpec", "backbone_names", "get_backbone"]
