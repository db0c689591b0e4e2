"""Multiply-accumulates and parameters, counted on meta tensors and summed over blocks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.errors import in_one_line
from nas_recalib.networks import Backbone, BlockSpec
from nas_recalib.operators import BlockChoice


def run_on_meta(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Run a module on the meta device once, for the hooks and modes that observe it.

    Args:
        network: Module in evaluation mode whose parameters are on the meta device.
        input_shape: Shape of its single input, (1, C, H, W).
    """
    with torch.no_grad(), _FastNorms():
        network(torch.empty(input_shape, device="meta"))


class _FastNorms(TorchFunctionMode):
    """Mode that returns empty tensors from batch norms, which otherwise take over half of the time."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and not torch.is_grad_enabled() and _fit(*args, *kwargs.values()):
            return torch.empty_like(args[0])
        return func(*args, **kwargs)


def _fit(images: Tensor, mean: Tensor | None, variance: Tensor | None, *given: Any) -> bool:
    """Return whether a norm has statistics, and they and its weights have one value for each channel."""
    if mean is None or variance is None:
        return False
    vectors = [mean, variance, *(value for value in given if isinstance(value, Tensor))]
    return all(vector.shape == images.shape[1:2] for vector in vectors)


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one image.

    Attributes:
        macs: Multiply-accumulates of convolution and linear layers, forward, one image.
        params: Number of parameters.
    """

    macs: int
    params: int

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.macs + other.macs, self.params + other.params)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.macs - other.macs, self.params - other.params)


def count_cost(module: nn.Module, input_shape: tuple[int, ...]) -> Cost:
    """Count the cost of a module by running it once in evaluation mode.

    Args:
        module: Module whose parameters are on the meta device.
        input_shape: Shape of its single input, (1, C, H, W).
    """
    counter = FlopCounterMode(display=False)
    training = module.training
    module.eval()
    with counter:
        run_on_meta(module, input_shape)
    module.train(training)
    return Cost(counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters()))


@cache
def block_cost(spec: BlockSpec, choice: BlockChoice, input_shape: tuple[int, ...]) -> Cost:
    """Return the cost of a block with a choice; the two operators are counted separately and summed."""
    alone = BlockChoice(convolution=choice.convolution), BlockChoice(recalibration=choice.recalibration)
    if choice not in alone:
        convolution, recalibration = (block_cost(spec, part, input_shape) for part in alone)
        return convolution + recalibration - block_cost(spec, BlockChoice(), input_shape)
    with torch.device("meta"):
        block = spec.build(choice)
    return count_cost(block, input_shape)


@cache
def fixed_cost(
    backbone: Backbone, input_size: int, num_classes: int, in_channels: int
) -> tuple[Cost, Mapping[str, tuple[int, ...]]]:
    """Return the cost of all that no choice changes, and the shape of each block's input, (1, C, H, W)."""
    specs = backbone.blocks()
    plain = BlockChoice()
    with torch.device("meta"):
        network = backbone.build(dict.fromkeys(specs, plain), num_classes, in_channels)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in specs:
        network.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: shapes.update({name: tuple(inputs[0].shape)})
        )
    total = count_cost(network, (1, in_channels, input_size, input_size))
    blocks = [block_cost(spec, plain, shapes[name]) for name, spec in specs.items()]
    return total - sum(blocks, Cost(0, 0)), shapes


def network_cost(
    backbone: Backbone,
    choices: Mapping[str, BlockChoice],
    *,
    input_size: int,
    num_classes: int,
    in_channels: int = 3,
) -> Cost:
    """Return the cost of a network with a choice at each block: a constant and the cost of every block.

    Raises:
        ValueError: If an operator does not fit its block; the block is named.
    """
    constant, shapes = fixed_cost(backbone, input_size, num_classes, in_channels)
    total = constant
    for name, spec in backbone.blocks().items():
        total += named_block_cost(name, spec, choices[name], shapes[name])
    return total


def named_block_cost(name: str, spec: BlockSpec, choice: BlockChoice, input_shape: tuple[int, ...]) -> Cost:
    """Return `block_cost`; errors name the block.

    Raises:
        ValueError: If the choice does not fit the block, or fails in it as a user's own operator may.
    """
    try:
        return block_cost(spec, choice, input_shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except Exception as error:
        raise ValueError(f"{name}: {choice} fails in a block: {in_one_line(error)}") from error
