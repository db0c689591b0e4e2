"""Base class of backbones, and what they share: stages, classifier, initialisation, recalibrated sums."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, Self

from torch import Tensor, nn

from nas_recalib.operators import BlockChoice

GateFan = Literal["fan_in", "fan_out"]


class BlockSpec(Protocol):
    """Block without its operators. Hashable: equal specs build blocks of equal cost."""

    def __hash__(self) -> int: ...

    def build(self, choice: BlockChoice) -> nn.Module:
        """Build the block with the operators chosen for it.

        Raises:
            ValueError: If an operator does not fit the block's channels.
        """
        ...


@dataclass(frozen=True)
class Backbone(ABC):
    """Network without its operators: a stem, named blocks and a classifier.

    Attributes:
        name: Name in files.
        input_size: Side of the square images that it is designed for, in pixels.
        num_classes: Number of classes of the data set that it is designed for.
        depthwise: Whether its 3x3 convolutions are depthwise.
    """

    name: str
    input_size: int
    num_classes: int
    depthwise: ClassVar[bool] = False

    @abstractmethod
    def blocks(self) -> Mapping[str, BlockSpec]:
        """Return the specs of the blocks under their module names, in the order in which they run."""

    @abstractmethod
    def scaled(self, width: float) -> Self:
        """Return the proxy network: the same blocks for small images, with channels scaled by `width`."""

    @abstractmethod
    def _network(
        self, choices: Mapping[str, BlockChoice], num_classes: int, in_channels: int
    ) -> nn.Module: ...

    def build(
        self,
        choices: Mapping[str, BlockChoice],
        num_classes: int,
        in_channels: int,
        gate_fan: GateFan = "fan_in",
    ) -> nn.Module:
        """Build the network with a choice at each of its blocks, initialised by torch's global generator.

        Args:
            choices: The choice of each block, under its module name.
            num_classes: Number of classes.
            in_channels: Channels of the images.
            gate_fan: Initialisation of the convolutions of recalibrations; see `initialise`.

        Returns:
            A module from images (N, in_channels, H, W) to logits (N, num_classes), or, where num_classes is
            0, to the features that a classifier would take, (N, C).

        Raises:
            ValueError: If num_classes is negative.
        """
        return initialise(self._network(choices, num_classes, in_channels), gate_fan)


class FeatureMap(NamedTuple):
    """Feature map for other tasks: the last of its size in a network.

    Attributes:
        module: Name of the module whose output it is.
        channels: Number of channels.
        stride: Factor by which it is smaller than the images.
    """

    module: str
    channels: int
    stride: int


def halving_maps(modules: Sequence[str], channels: Sequence[int], stride: int) -> list[FeatureMap]:
    """Return maps of which each halves the one before, the first smaller than the images by `stride`."""
    pairs = zip(modules, channels, strict=True)
    return [FeatureMap(module, width, stride * 2**index) for index, (module, width) in enumerate(pairs)]


def classifier(channels: int, num_classes: int) -> nn.Module:
    """Return the last layer of a network: linear, or an identity for no classes, as in timm.

    Raises:
        ValueError: If num_classes is negative.
    """
    if num_classes < 0:
        raise ValueError(
            f"num_classes: {num_classes} is not at least 0 (0 builds a network without classifier)"
        )
    return nn.Linear(channels, num_classes) if num_classes else nn.Identity()


def add_stages(
    network: nn.Module, specs: Mapping[str, BlockSpec], choices: Mapping[str, BlockChoice]
) -> list[str]:
    """Add blocks such as `layer1.0` to a network, in stages such as `layer1`; return their names."""
    stages: dict[str, list[nn.Module]] = {}
    for name, spec in specs.items():
        stages.setdefault(name.partition(".")[0], []).append(spec.build(choices[name]))
    for stage, blocks in stages.items():
        network.add_module(stage, nn.Sequential(*blocks))
    return list(stages)


def initialise(network: nn.Module, gate_fan: GateFan) -> nn.Module:
    """Draw the weight of every convolution as in He et al. (2015), by torch's global generator.

    The convolutions of recalibrations, the gates, are drawn by fan-in. By fan-out the depthwise 1x1
    convolution of an Accuracy Booster over C channels has a deviation of sqrt(2 / C), so small that the
    epsilon of the batch norm after it damps many gates.

    Args:
        network: Network whose blocks have their recalibration in the attribute `recalibration`.
        gate_fan: Mode of the gates' initialisation. "fan_out" is that of versions before 0.2.

    Returns:
        The network itself.
    """
    recalibrations = (getattr(block, "recalibration", None) for block in network.modules())
    gates = {gate for gates in recalibrations if isinstance(gates, nn.Module) for gate in gates.modules()}
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() == 4 and not weight.is_meta:
            mode = gate_fan if module in gates else "fan_out"
            nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu")
    return network


def add_recalibrated(recalibration: nn.Module, x: Tensor, shortcut: Tensor) -> Tensor:
    """Return recalibration(x) + shortcut, in one pass over the map where the operator supports it."""
    if getattr(recalibration, "takes_residual", False):
        total: Tensor = recalibration(x, residual=shortcut)
        return total
    recalibrated: Tensor = recalibration(x)
    return recalibrated + shortcut
