"""Networks as backbones of other tasks: feature maps, a feature pyramid for detectors, frozen batch norms.

torchvision is imported only by the functions that use it.
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
    """Feature maps of a network at several strides, each the last of its size, without the classifier.

    It shares the network's modules under the same names, as far as the last map needs them: weights loaded
    into one are in the other, and a state dict of the network loads with strict=False.

    In a DenseNet a map is the output of a dense block before the transition, in a pre-activation network the
    sum before the next norm; the last map of either is the input of the global pooling, after the final norm
    and ReLU. A ShuffleNet's first map is that of its stem.

    Args:
        network: Network of this package, as `build` returns it.
        strides: Strides of the maps, the factors by which they are smaller than the images (default: all; 4,
            8, 16 and 32 in a network for ImageNet, 1, 2 and 4 in one for small images).

    Attributes:
        strides: Strides of the maps, in ascending order.
        channels: Number of channels of each map.

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
    """Return a backbone for torchvision's detectors: the maps of a network and a feature pyramid over them.

    With the vanilla convolution its parameters are named as in torchvision's own backbones with a pyramid
    (`body...`, `fpn...`); those of another convolution are below `operator`, beside its `bias`.

    Args:
        network: Network of this package, as `build` returns it.
        out_channels: Number of channels of every map of the pyramid (Lin et al., CVPR 2017).
        strides: Strides of the maps; see `FeatureMaps`. With other than four maps, a detector needs an anchor
            generator with one size more than there are maps.
        convolution: Convolution that replaces the pyramid's 3x3 convolutions, such as `psconv` (PSConv paper,
            footnote 4); like them it has a bias.

    Returns:
        A module with an attribute `out_channels`, from (N, in_channels, H, W) to an OrderedDict of maps with
        the names and sizes of those of `FeatureMaps`, and "pool", half as large as the last.

    Raises:
        ValueError: If `FeatureMaps` raises it, or the convolution does not exist.
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
    """Convolution and bias, initialised like those of torchvision's pyramid."""

    def __init__(self, operator: nn.Module, channels: int) -> None:
        super().__init__()
        self.operator = operator
        self.bias = nn.Parameter(torch.zeros(channels))
        for parameter in operator.parameters():
            if parameter.dim() == 4:
                nn.init.kaiming_uniform_(parameter, a=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.operator(x)
        return y + self.bias[:, None, None].to(y.dtype)


def freeze_norms(network: Module) -> Module:
    """Replace every batch norm, those inside operators too, by torchvision's FrozenBatchNorm2d, in place.

    A frozen norm keeps its statistics, scale and shift in training as well, as detectors need, which train on
    one or two images at a time. Load trained weights, freeze, and only then create `FeatureMaps` or a
    `pyramid`, which share the modules of the network. State dicts are compatible before and after.

    Args:
        network: Any module that is not itself a norm. Norms without running statistics are not replaced.

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
    maps: list[FeatureMap] | None = getattr(network, "maps", None)
    if maps is None:
        raise ValueError(
            f"feature maps: {type(network).__name__} has no attribute 'maps'; use a network returned by build"
        )
    chosen = [m for m in maps if strides is None or m.stride in strides]
    if strides is not None and (not strides or len(chosen) < len(set(strides))):
        available = ", ".join(str(m.stride) for m in maps)
        raise ValueError(f"feature maps: strides = {tuple(strides)} are not all among {available}")
    return chosen
