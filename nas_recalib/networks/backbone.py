"""What every backbone is: a stem, named blocks that each ask which operators to use, and a classifier."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, Self, TypeVar

from torch import Tensor, nn

from nas_recalib.operators import BlockChoice

GateFan = Literal["fan_in", "fan_out"]
Network = TypeVar("Network", bound=nn.Module)


class BlockSpec(Protocol):
    """One block without its operators. Hashable: equal specs build blocks of equal cost."""

    def __hash__(self) -> int: ...

    def build(self, choice: BlockChoice) -> nn.Module:
        """The block, with the operators chosen for it.

        Raises:
            ValueError: If an operator does not fit the block's channels.
        """
        ...


class Backbone(Protocol):
    """A network without its operators. Hashable."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def input_size(self) -> int:
        """Side of the square images it is made for, in pixels."""
        ...

    @property
    def num_classes(self) -> int:
        """Classes of the data set it is made for."""
        ...

    def blocks(self) -> Mapping[str, BlockSpec]:
        """Specs of the blocks under their module names, in the order they run."""
        ...

    @property
    def depthwise(self) -> bool:
        """Whether its 3x3 convolutions are depthwise."""
        ...

    def build(
        self,
        choices: Mapping[str, BlockChoice],
        num_classes: int,
        in_channels: int,
        gate_fan: GateFan = "fan_in",
    ) -> nn.Module:
        """Build the network with the given choice at each of its blocks, by torch's global generator.

        Args:
            choices: The choice of each block, under its module name.
            num_classes: Number of classes.
            in_channels: Channels of the images.
            gate_fan: How the convolutions of recalibrations are drawn; see `initialise`.

        Returns:
            A module from images (N, in_channels, H, W) to logits (N, num_classes), or, where num_classes is
            0, to the features that a classifier would take, (N, C).

        Raises:
            ValueError: If num_classes is negative.
        """
        ...

    def scaled(self, width: float) -> Self:
        """The same blocks for small images, its channels scaled by `width`: what a proxy trains."""
        ...


class FeatureMap(NamedTuple):
    """A map that a network hands to other tasks: the last of its size.

    Attributes:
        module: Name of the module whose output it is.
        channels: Its channels.
        stride: By which it is smaller than the images.
    """

    module: str
    channels: int
    stride: int


def halving_maps(modules: Sequence[str], channels: Sequence[int], stride: int) -> list[FeatureMap]:
    """Maps each half as large as the one before it, the first smaller than the images by `stride`."""
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


def initialise(network: Network, gate_fan: GateFan) -> Network:
    """Draw the weight of every convolution as He et al. (2015), by torch's global generator.

    The convolutions of recalibrations, the gates, are drawn by fan-in. By fan-out the depthwise 1x1
    convolution of an Accuracy Booster over C channels has a deviation of sqrt(2 / C), so small that the
    epsilon of the batch norm behind it damps many gates.

    Args:
        network: A network whose blocks have their recalibration in the attribute `recalibration`.
        gate_fan: What the deviation of the gates' weights is taken from. "fan_out" is for networks that are
            to start as versions before 0.2 had them start.

    Returns:
        The network itself.
    """
    gates = {module for block in network.modules() for module in _gate_modules(block)}
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.dim() == 4 and not weight.is_meta:
            mode = gate_fan if module in gates else "fan_out"
            nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu")
    return network


def _gate_modules(block: nn.Module) -> Iterator[nn.Module]:
    recalibration = getattr(block, "recalibration", None)
    return recalibration.modules() if isinstance(recalibration, nn.Module) else iter(())


def add_recalibrated(recalibration: nn.Module, x: Tensor, shortcut: Tensor) -> Tensor:
    """The recalibrated map and the shortcut, summed in one pass where the operator can."""
    if getattr(recalibration, "takes_residual", False):
        total: Tensor = recalibration(x, residual=shortcut)
        return total
    recalibrated: Tensor = recalibration(x)
    return recalibrated + shortcut
