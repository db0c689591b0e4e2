"""Networks as backbones of other tasks: maps of several sizes, a feature pyramid, frozen norms.

Nothing but torch is imported until modules of torchvision are asked for.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from nas_recalib.networks.backbone import FeatureMap
from nas_recalib.operators import build_convolution
from nas_recalib.operators.catalog import VANILLA, parse_part

Module = TypeVar("Module", bound=nn.Module)


class FeatureMaps(nn.Module):
    """The maps of a network at several strides, each the last of its size, without the classifier.

    It shares the network's modules under the names they have there, as far as the last map needs them: what
    is loaded into the one is in the other, and a state dict of the network loads with strict=False.

    In a DenseNet a map is that of a dense block before the transition, in a pre-activation network the sum
    before the next norm; the last of either is what the classifier averages, after the final norm and ReLU.
    A ShuffleNet's first map is its stem's.

    Args:
        network: Of this package, as `build` gives it.
        strides: Which maps, by how many times they are smaller than the images (default: all there are; 4,
            8, 16 and 32 in a network for ImageNet, 1, 2 and 4 in one for small images).

    Attributes:
        strides: Those of the maps, in ascending order.
        channels: Channels of each map.

    Shape:
        (N, in_channels, H, W) to an OrderedDict whose "0", "1" and so on, the largest first, are
        (N, channels, ceil(H / stride), ceil(W / stride)); a DenseNet rounds down.

    Raises:
        ValueError: If the network is not of this package or has no map of a stride; it is named.
    """

    def __init__(self, network: nn.Module, strides: Sequence[int] | None = None) -> None:
        super().__init__()
        maps = _choose(network, strides)
        self.strides = [m.stride for m in maps]
        self.channels = [m.channels for m in maps]
        self._parent, _, last = maps[-1].module.rpartition(".")
        self._names = {m.module.rpartition(".")[2]: str(index) for index, m in enumerate(maps)}
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for name, module in network.get_submodule(self._parent).named_children():
            layers[name] = module
            if name == last:
                break
        kept = OrderedDict({self._parent: nn.Sequential(layers)}) if self._parent else layers
        for name, module in kept.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        maps = OrderedDict()
        for name, module in self.get_submodule(self._parent).named_children():
            x = module(x)
            if name in self._names:
                maps[self._names[name]] = x
        return maps


def pyramid(
    network: nn.Module,
    out_channels: int = 256,
    strides: Sequence[int] | None = None,
    *,
    convolution: str = "vanilla",
) -> nn.Module:
    """A backbone for torchvision's detectors: the maps of a network and a feature pyramid over them.

    Its parameters are named as in torchvision's own backbones with a pyramid (`body...`, `fpn...`).

    Args:
        network: Of this package, as `build` gives it.
        out_channels: Channels of every map of the pyramid (Lin et al., CVPR 2017).
        strides: As for `FeatureMaps`. For other than four maps, a detector must be given an anchor generator
            of one size more than there are maps.
        convolution: The convolution that takes the place of the pyramid's 3x3 convolutions, such as `psconv`
            (PSConv paper, footnote 4), with a bias as they have.

    Returns:
        A module with an attribute `out_channels`, from (N, in_channels, H, W) to an OrderedDict of maps of
        the same names and sizes as those of `FeatureMaps`, and "pool", half as large as the last.

    Raises:
        ValueError: As `FeatureMaps`, or if there is no such convolution.
    """
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

    body = FeatureMaps(network, strides)
    fpn = FeaturePyramidNetwork(body.channels, out_channels, LastLevelMaxPool())
    part = parse_part(convolution, "convolution")
    if part != VANILLA:
        for block in fpn.layer_blocks:
            block[0] = _BiasedConvolution(
                build_convolution(part, out_channels, out_channels, 1), out_channels
            )
    backbone = nn.Sequential(OrderedDict(body=body, fpn=fpn))
    backbone.out_channels = out_channels  # type: ignore[assignment]  # where detectors look for it
    return backbone


class _BiasedConvolution(nn.Module):
    """A convolution and a bias, drawn as torchvision draws those of a pyramid."""

    def __init__(self, operator: nn.Module, channels: int) -> None:
        super().__init__()
        self.operator = operator
        self.bias = nn.Parameter(torch.zeros(channels))
        for parameter in operator.parameters():
            if parameter.dim() == 4:
                nn.init.kaiming_uniform_(parameter, a=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.operator(x) + self.bias[:, None, None]
        return y


def freeze_norms(network: Module) -> Module:
    """Replaces every batch norm, those inside operators too, by torchvision's FrozenBatchNorm2d, in place.

    A frozen norm uses the statistics, scale and shift that it has, in training as well, and learns nothing:
    what detectors need, which train on an image or two at a time. So load trained weights, freeze, and only
    then make `FeatureMaps` or a `pyramid`, which take the modules that are there. State dicts fit before and
    after.

    Args:
        network: Any module that is not itself a norm. Norms that keep no statistics stay.

    Returns:
        The same module.
    """
    from torchvision.ops import FrozenBatchNorm2d

    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) and norm.running_mean is not None:
                frozen = FrozenBatchNorm2d(norm.num_features, norm.eps).to(norm.running_mean)
                frozen.load_state_dict(norm.state_dict(), strict=False)  # a norm may have no scale and shift
                parent.add_module(name, frozen)
    return network


def _choose(network: nn.Module, strides: Sequence[int] | None) -> list[FeatureMap]:
    offered: list[FeatureMap] | None = getattr(network, "maps", None)
    if offered is None:
        raise ValueError(f"{type(network).__name__} is not a network that names its maps, as those of build")
    chosen = [m for m in offered if strides is None or m.stride in strides]
    if strides is not None and (not strides or len(chosen) < len(set(strides))):
        available = ", ".join(str(m.stride) for m in offered)
        raise ValueError(f"feature maps: strides = {tuple(strides)} are not some of {available}")
    return chosen
