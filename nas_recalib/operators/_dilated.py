"""Dilated convolutions on blocks of channels, with gradients that are right in every precision."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from nas_recalib.operators._functional import memory_format

Blocks = tuple[int, ...]
Part = tuple[Tensor, Blocks]  # a tensor, and the blocks of channels that it holds, in order


def reader(x: Tensor, size: int) -> Callable[[Blocks], Tensor]:
    """Return a cached function that takes blocks of channels out of x, (N, C, H, W) with `size` blocks."""
    return cache(lambda order: take(x, order, size))


def take(x: Tensor, order: Sequence[int], size: int) -> Tensor:
    """Return the blocks of x that `order` names, in that order; x, (N, C, H, W), has `size` blocks."""
    runs = list(_runs(order))
    if runs == [(0, 0, size)]:
        return x
    channels = x.shape[1] // size
    return torch.cat([x.narrow(1, block * channels, length * channels) for _, block, length in runs], dim=1)


def sum_up(parts: list[Part], size: int) -> Tensor:
    """Return the sum of parts that each hold some of `size` blocks, (N, C, H, W).

    The first part that holds all blocks in order, if there is one, is summed into in place.
    """
    complete = [y for y, order in parts if order == tuple(range(size))]
    total = complete[0] if complete else _empty_like(*parts[0], size)
    channels = total.shape[1] // size
    if complete:
        for y, order in parts:
            if y is total:
                continue
            # Adding a few numbers at a time is slow in half precision.
            if y.dtype.itemsize == 2 and len(order) == size:
                total.add_(take(y, inverse(order), size))
                continue
            for start, block, length in _runs(order):
                target = total.narrow(1, block * channels, length * channels)
                target.add_(y.narrow(1, start * channels, length * channels))
        return total
    pieces: dict[int, list[Tensor]] = {}
    for y, order in parts:
        for block, piece in zip(order, y.split(channels, dim=1), strict=True):
            pieces.setdefault(block, []).append(piece)
    for block, (first, *others) in pieces.items():
        target = total.narrow(1, block * channels, channels)
        if not others:
            target.copy_(first)
        for index, other in enumerate(others):
            torch.add(target if index else first, other, out=target)
    return total


def _empty_like(part: Tensor, order: Blocks, size: int) -> Tensor:
    shape = (part.shape[0], part.shape[1] // len(order) * size, *part.shape[2:])
    return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=memory_format(part))


def _runs(order: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield each run of consecutive blocks: its index in the order, its first block, its number of blocks."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or order[end] != order[end - 1] + 1:
            yield start, order[start], end - start
            start = end


def inverse(order: Sequence[int]) -> list[int]:
    """Return the inverse of a permutation."""
    return sorted(range(len(order)), key=order.__getitem__)


_EXACT_MULTIPLE = 16


def dilated_conv2d(x: Tensor, weight: Tensor, stride: int, dilation: int, groups: int) -> Tensor:
    """Convolve (N, C, H, W) with square kernels, padded so that a stride of 1 keeps the size of the map.

    It computes in float32 where a CPU's weight gradient in lower precision is wrong.
    """
    dtype = autocast_dtype(x) or x.dtype
    geometry = (None, stride, dilation * (weight.shape[-1] // 2), dilation, groups)
    castable = x.dtype == weight.dtype or autocast_dtype(x) is not None
    if x.is_cpu and castable and not has_exact_gradient(dtype, dilation, weight.shape[1]):
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x.float(), weight.float(), *geometry).to(dtype)
    return F.conv2d(x, weight, *geometry)


def has_exact_gradient(dtype: torch.dtype, dilation: int, channels: int) -> bool:
    """Return whether a CPU's weight gradient of a dilated convolution is right.

    In bfloat16, oneDNN 3.13 gives wrong numbers or NaN, or crashes, on maps of 32 pixels and more, unless the
    input channels per group are a multiple of 16.
    """
    return dilation == 1 or dtype.itemsize > 2 or channels % _EXACT_MULTIPLE == 0


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype that autocast gives the input of a convolution, or None where it changes nothing."""
    if x.is_meta or not x.is_floating_point() or x.dtype == torch.float64:
        return None
    if not torch.is_autocast_enabled(x.device.type):
        return None
    return torch.get_autocast_dtype(x.device.type)
