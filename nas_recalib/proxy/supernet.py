"""Supernet for one-shot scoring: all choices of a space in one network, trained along fairly drawn paths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_recalib.networks import get_backbone
from nas_recalib.networks.backbone import Backbone, GateFan, initialise
from nas_recalib.operators import BlockChoice
from nas_recalib.proxy.evaluation import evaluate, recalibrate_batch_norm
from nas_recalib.proxy.objective import Proxy
from nas_recalib.proxy.train import Training
from nas_recalib.space import SearchSpace

_SAME_WEIGHT = {"vanilla", "psconv"}  # convolutions with one weight of the shape of nn.Conv2d
_SHARED = ("scconv",)  # whose convolutions are shared by all of their variants
_PROBE = (8, 3, 16, 16)  # random images on which the scales of recalibrations are measured
_MOST_SCALE = 4.0


class BlockOptions(nn.Module):
    """All choices of a block, of which one runs.

    Attributes:
        options: The block with each choice.
        selected: Index of the choice that runs.
    """

    def __init__(self, options: Sequence[nn.Module]) -> None:
        super().__init__()
        self.options = nn.ModuleList(options)
        self.selected = 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.options[self.selected](x)
        return y


class ScaledRecalibration(nn.Module):
    """Recalibration times a learned scale, which starts where the magnitude of its input is kept.

    A gate that starts at one half would halve what the weights it shares with others have to add up to.

    Attributes:
        recalibration: Recalibration of the block.
        scale: Learned factor.
    """

    def __init__(self, recalibration: nn.Module) -> None:
        super().__init__()
        self.recalibration = recalibration
        self.scale = nn.Parameter(torch.ones(()))

    def keep_magnitude(self, recalibration: nn.Module, maps: tuple[Tensor, ...], y: Tensor) -> None:
        """Set the scale by the input and the output of the recalibration; a forward hook of it."""
        ratio = float(maps[0].std() / y.std().clamp_min(1e-6))
        nn.init.constant_(self.scale, min(_MOST_SCALE, max(1 / _MOST_SCALE, ratio)))

    def forward(self, *maps: Tensor) -> Tensor:
        recalibrated: Tensor = self.recalibration(*maps)
        return recalibrated * self.scale


def build_supernet(
    shape: Backbone,
    choices: Mapping[str, Sequence[BlockChoice]],
    num_classes: int,
    seed: int,
    gate_fan: GateFan = "fan_in",
) -> nn.Module:
    """Build a network in which `BlockOptions` take the place of every block.

    Choices of a block share what has the same role and shape: 1x1 convolutions and the shortcut; the kernel
    of the vanilla convolution and of every PSConv; the convolutions of every SCConv; a recalibration among
    all convolutions. Every convolution has norms of its own, and an operator of the user's own weights of its
    own.

    Args:
        shape: Backbone of the proxy network.
        choices: Choices of every block, under its module name.
        num_classes: Number of classes.
        seed: Seed of the initial weights. torch's global generator is left as it was.
        gate_fan: Initialisation of the convolutions of recalibrations.
    """
    specs = shape.blocks()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = shape.build({name: options[0] for name, options in choices.items()}, num_classes, 3)
        for name, options in choices.items():
            blocks = [specs[name].build(choice) for choice in options]
            _share(blocks, options)
            parent, _, leaf = name.rpartition(".")
            network.get_submodule(parent).add_module(leaf, BlockOptions(blocks))
        initialise(network, gate_fan)
    _calibrate_scales(network, [len(options) for options in choices.values()])
    return network


@torch.no_grad()
def _calibrate_scales(network: nn.Module, sizes: Sequence[int]) -> None:
    """Set the scale of every recalibration on random images, on paths that pass through all of them."""
    images = torch.randn(_PROBE, generator=torch.Generator().manual_seed(0))
    scaled = [module for module in network.modules() if isinstance(module, ScaledRecalibration)]
    hooks = [module.recalibration.register_forward_hook(module.keep_magnitude) for module in scaled]
    for index in range(max(sizes)):
        select(network, tuple(index % size for size in sizes))
        network(images)
    for hook in hooks:
        hook.remove()
    select(network, (0,) * len(sizes))


def _share(blocks: Sequence[nn.Module], choices: Sequence[BlockChoice]) -> None:
    """Replace modules and parameters of a block's options by those of earlier options with the same role."""
    modules: dict[tuple[str, str], nn.Module] = {}
    weights: dict[tuple[Any, ...], nn.Parameter] = {}
    for block, choice in zip(blocks, choices, strict=True):
        if str(choice.recalibration) != "none":
            recalibration = cast(nn.Module, block.recalibration)
            where = ("recalibration", str(choice.recalibration))
            block.add_module(where[0], modules.setdefault(where, ScaledRecalibration(recalibration)))
        for name, child in list(block.named_children()):
            if isinstance(child, _BatchNorm):
                block.add_module(name, modules.setdefault((name, str(choice.convolution)), child))
            elif name != "recalibration":
                role = _role(name, child, choice)
                for path, weight in list(child.named_parameters()):
                    key = (name, role, path, tuple(weight.shape))
                    owner, _, leaf = path.rpartition(".")
                    setattr(child.get_submodule(owner), leaf, weights.setdefault(key, weight))


def _role(name: str, child: nn.Module, choice: BlockChoice) -> str:
    """Return the role of a block's child: children of the same role and shape share their weights."""
    pointwise = type(child) is nn.Conv2d and child.kernel_size == (1, 1)
    if pointwise or name == "downsample":
        return "common"
    if choice.convolution.name in _SAME_WEIGHT:
        return "vanilla"
    return choice.convolution.name if choice.convolution.name in _SHARED else str(choice.convolution)


def select(network: nn.Module, choices: Sequence[int]) -> None:
    """Let a supernet compute the subnet with a choice, by its index, at every block."""
    options = (module for module in network.modules() if isinstance(module, BlockOptions))
    for block, index in zip(options, choices, strict=True):
        block.selected = index


def fair_path(sizes: Sequence[int], seed: int, step: int) -> tuple[int, ...]:
    """Return the path of a training step: at every position each choice once before any of them again.

    Args:
        sizes: Number of choices at every position.
        seed: Seed of the permutations.
        step: Number of the step, from 0.
    """
    path = []
    for position, size in enumerate(sizes):
        cycle, index = divmod(step, size)
        path.append(int(np.random.default_rng((seed, position, cycle)).permutation(size)[index]))
    return tuple(path)


def expand(space: SearchSpace, indices: Sequence[int]) -> tuple[int, ...]:
    """Return the index of the choice at every block of a space's backbone, from those at its positions."""
    of_block = {
        block: index
        for position, index in zip(space.positions, indices, strict=True)
        for block in position.blocks
    }
    return tuple(of_block[block] for block in get_backbone(space.backbone).blocks())


@dataclass(frozen=True, eq=False)
class OneShot:
    """Training of a supernet of a space, and scores of its subnets.

    Attributes:
        space: Search space.
        proxy: Settings and data of the supernet's training.
    """

    space: SearchSpace
    proxy: Proxy

    @property
    def fingerprint(self) -> str:
        """Text of all that decides the supernet's weights, compared by checkpoints."""
        return f"{self.proxy.fingerprint} {self.space.describe()}"

    def to(self, device: torch.device) -> "OneShot":
        """Return the same with the images on another device."""
        return replace(self, proxy=self.proxy.to(device))

    def training(self) -> Training:
        """Return the training of the supernet, which may be interrupted and resumed like any other.

        Its accuracies are those of the subnet of all first choices.
        """
        choices = {block: position.choices for position in self.space.positions for block in position.blocks}
        shape, seed = get_backbone(self.space.backbone).scaled(self.proxy.width), self.proxy.seed
        ordered = {block: choices[block] for block in shape.blocks()}
        network = build_supernet(
            shape, ordered, self.proxy.data.num_classes, seed, self.proxy.recipe.gate_fan
        )
        sizes = [len(position.choices) for position in self.space.positions]

        def take_path(step: int) -> None:
            select(network, expand(self.space, fair_path(sizes, seed, step)))

        return self.proxy.training_of(network, before_step=take_path)

    def score(self, network: nn.Module, indices: Sequence[int]) -> tuple[float, float]:
        """Return accuracy (0 to 1) and cross-entropy of a subnet on the validation images.

        Args:
            network: Evaluated network of a supernet's training.
            indices: Index of the choice at every position of the space.
        """
        select(network, expand(self.space, indices))
        recalibrate_batch_norm(network, self.proxy.data, self.proxy.dtype)
        return evaluate(network, self.proxy.data, self.proxy.dtype)
