"""Peak memory of activations in inference, block by block: their maximum is the network's.

Blocks run one after another, so the peak of a network is the greatest of what is alive in its stem and head
and, for each block, of what its inside holds at once with what the network holds meanwhile: the block's
input, that of its stage, the images. The latter depends on no choice, as no block's input does.

Bytes are those that torch's allocator gives out in eager mode for contiguous inputs, with as many threads as
torch has now: activations, images, temporary copies. Weights and buffers are not counted, nor what libraries
allocate by themselves (oneDNN's scratch, cuDNN's workspaces).
"""

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from nas_recalib.costs.live_bytes import Shape, fake_run
from nas_recalib.networks import Backbone, BlockSpec
from nas_recalib.operators import BlockChoice

P = ParamSpec("P")
R = TypeVar("R")


def _cached(function: Callable[P, R]) -> Callable[P, R]:
    """Remembers results by torch's threads too: they decide how a CPU convolves."""

    @cache
    def by_threads(_: int, *args: Any, **kwargs: Any) -> R:
        return function(*args, **kwargs)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given: Any = by_threads
        found: R = given(torch.get_num_threads(), *args, **kwargs)
        return found

    return call


@_cached
def block_memory(
    spec: BlockSpec,
    choice: BlockChoice,
    input_shape: Shape,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> int:
    """Most bytes alive at once while a block runs, its input included.

    Args:
        spec: The block.
        choice: Its operators.
        input_shape: (N, C, H, W).
        dtype: Of the input and the block's weights.
        device: "cpu" or "cuda", whose ways are taken; none needs to be there.

    Raises:
        ValueError: If the choice does not fit the block.
    """
    with torch.device("meta"):
        block = spec.build(choice)
    with fake_run(block, dtype, device) as (tracker, run):
        run(input_shape)
    return tracker.peak


@_cached
def fixed_memory(
    backbone: Backbone,
    input_size: int,
    num_classes: int,
    batch: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[int, Mapping[str, tuple[int, Shape]]]:
    """Peak outside the blocks; for each block what is alive beside its input, and the shape of that."""
    specs = backbone.blocks()
    found: dict[str, tuple[int, Shape]] = {}
    peak = 0
    with torch.device("meta"):
        network = backbone.build(dict.fromkeys(specs, BlockChoice()), num_classes, 3)
    with fake_run(network, dtype, device) as (tracker, run):

        def enter(name: str, x: Tensor) -> None:
            nonlocal peak
            peak = max(peak, tracker.peak)
            found[name] = tracker.live - x.untyped_storage().nbytes(), tuple(x.shape)

        def leave(*_: Any) -> None:
            tracker.peak = tracker.live

        for name in specs:
            block = network.get_submodule(name)
            block.register_forward_pre_hook(lambda _, inputs, name=name: enter(name, *inputs))
            block.register_forward_hook(leave)
        run((batch, 3, input_size, input_size))
    return max(peak, tracker.peak), found


def network_memory(
    backbone: Backbone,
    choices: Mapping[str, BlockChoice],
    *,
    input_size: int,
    num_classes: int,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> int:
    """Peak bytes of a network's activations in inference: the greatest of a constant and its blocks' peaks.

    Args:
        backbone: Of the network.
        choices: At each of its blocks.
        input_size: Side of the images, in pixels.
        num_classes: Classes.
        batch: Images at once.
        dtype: Of the images and the network's weights.
        device: "cpu" or "cuda", whose ways are taken; none needs to be there.

    Raises:
        ValueError: If an operator does not fit its block; the block is named.
    """
    constant, blocks = fixed_memory(backbone, input_size, num_classes, batch, dtype, device)
    peaks = (
        named_block_memory(name, spec, choices[name], blocks[name], dtype, device)
        for name, spec in backbone.blocks().items()
    )
    return max(constant, *peaks)


def named_block_memory(
    name: str,
    spec: BlockSpec,
    choice: BlockChoice,
    held: tuple[int, Shape],
    dtype: torch.dtype,
    device: str,
) -> int:
    """As `block_memory`, what is held beside the input added, with the block's name before what may be wrong.

    Raises:
        ValueError: If the choice does not fit the block.
    """
    beside, input_shape = held
    try:
        return beside + block_memory(spec, choice, input_shape, dtype, device)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
