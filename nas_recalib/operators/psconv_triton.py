"""Poly-scale convolution on a GPU as one implicit matrix product, by Triton kernels.

A kernel's dilation depends only on its blocks of input and output channels. A tile of positions x output
channels of one block therefore iterates over taps x input channels as a dense convolution does; only the
positions that it reads shift with the input block. Nothing is gathered, concatenated or added up in memory:
the map is read and written once, where grouped convolutions, one for each dilation, do so several times.

* Memory is NHWC (channels_last): the channels of a block at a tap are one run of at least 16 values (whole
  sectors) at every dilation. In NCHW, strided runs break up, and dilated ones lose alignment.
* A tile reads every tap again, and taps of different dilations share little: with 1-2-1-4 a layer fetches its
  input 36 times through the cache, where it needs 25 distinct shifts. For 64 channels (blocks of 16) that
  outweighs arithmetic. Hence taps vary fastest and loads stay in L1, where a tap finds most of what its
  neighbour in the row has loaded. Output tiles over the same positions run side by side and share L2.
* One program for all output blocks, with an accumulator each, would fetch 27 times instead of 36 (dilation 1
  serves two blocks), but needs t times the registers and a loop unrolled over blocks and dilations.
* The gradient of the input comes from the same kernel with mirrored taps, transposed weight and exchanged
  input and output blocks; with a stride, positions that no output reads are masked. The gradient of the
  weight has the positions as its inner dimension, split into parts that are summed in a fixed order, without
  atomics.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from nas_recalib.operators._tracing import shape_at_hand

# The kernels have been run in Triton's interpreter and compiled for GPUs, but not yet run on one.
ENABLED = os.environ.get("NAS_RECALIB_TRITON") == "1"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_INSTALLED = find_spec("triton") is not None and torch.version.hip is None
_DTYPES = {torch.float32, torch.float16, torch.bfloat16}
_LEAST_BLOCK = 16  # least side of a matrix product on tensor cores
_STEPS = {"both": (1, -1), "in": (1, 0), "out": (0, 1)}  # change of a pattern index by input, output


class _Lattice(NamedTuple):
    """Dilations of a convolution.

    Attributes:
        pattern: Dilations.
        steps: Change of an index into the pattern from one block of inputs, and of outputs, to the next.
        stride: Stride of the convolution.
        groups: Groups of the convolution.
    """

    pattern: Sequence[int]
    steps: tuple[int, int]
    stride: int
    groups: int


def usable(x: Tensor, weight: Tensor, pattern: Sequence[int], groups: int) -> bool:
    """Return whether `poly_scale` can compute this: blocks of 16 channels or more, NVIDIA Ampere or newer.

    It is off without NAS_RECALIB_TRITON=1 in the environment, until it has been run on a GPU. With
    TRITON_INTERPRET=1, tensors on the CPU pass, too, slowly, for tests.
    """
    outputs, inputs = shape_at_hand(weight)[:2]
    if x.is_cuda:
        supported = ENABLED and torch.cuda.get_device_properties(x.device).major >= 8
    else:
        supported = INTERPRETED and x.device.type == "cpu"
    return (
        _INSTALLED
        and supported
        and x.device == weight.device
        and {x.dtype, weight.dtype} <= _DTYPES
        and (x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type))
        and min(outputs // groups, inputs) // len(pattern) >= _LEAST_BLOCK
    )


def poly_scale(
    x: Tensor, weight: Tensor, pattern: Sequence[int], vary: str, stride: int, groups: int
) -> Tensor:
    """Convolve x with kernels in a cyclic lattice of dilations, as PSConv2d does.

    Under autocast it computes in autocast's dtype; in float32, TF32 is used where cuDNN's convolutions may
    use it. Differentiable once.

    Args:
        x: Map, (N, C_in, H, W), copied first unless it is channels_last.
        weight: Kernels, (C_out, C_in / groups, k, k).
        pattern: Dilations, one for each block of channels.
        vary: Channels that dilations vary with: "both", "in" or "out".
        stride: Stride of the convolution.
        groups: Groups of the convolution.

    Returns:
        (N, C_out, ceil(H / stride), ceil(W / stride)), channels_last.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    y: Tensor = _poly_scale(x, weight, pattern, vary, stride, groups)
    return y


@custom_op("nas_recalib::poly_scale", mutates_args=())
def _poly_scale(
    x: Tensor, weight: Tensor, pattern: Sequence[int], vary: str, stride: int, groups: int
) -> Tensor:
    y = _result(x, weight, pattern, vary, stride, groups)
    _convolve(x, weight, y, _Lattice(pattern, _STEPS[vary], stride, groups), transposed=False)
    return y


def _result(x: Tensor, weight: Tensor, _pattern: Any, _vary: str, stride: int, _groups: int) -> Tensor:
    height, width = (-(-side // stride) for side in x.shape[2:])
    return _map(x, weight.shape[0], height, width)


@custom_op("nas_recalib::poly_scale_to_input", mutates_args=())
def _to_input(
    gradient: Tensor,
    weight: Tensor,
    height: int,
    width: int,
    pattern: Sequence[int],
    vary: str,
    stride: int,
    groups: int,
) -> Tensor:
    result = _input_gradient(gradient, weight, height, width, pattern, vary, stride, groups)
    turned = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    _convolve(
        gradient, turned, result, _Lattice(pattern, _STEPS[vary][::-1], stride, groups), transposed=True
    )
    return result


def _input_gradient(gradient: Tensor, weight: Tensor, height: int, width: int, *lattice: Any) -> Tensor:
    return _map(gradient, weight.shape[1] * lattice[-1], height, width)


@custom_op("nas_recalib::poly_scale_to_weight", mutates_args=())
def _to_weight(
    x: Tensor,
    weight: Tensor,
    gradient: Tensor,
    pattern: Sequence[int],
    vary: str,
    stride: int,
    groups: int,
) -> Tensor:
    parts = _correlate(x, gradient, weight.shape[2], _Lattice(pattern, _STEPS[vary], stride, groups))
    return torch.empty_like(weight).copy_(parts.sum(0).permute(0, 3, 1, 2))


def _remember(ctx: Any, inputs: tuple[Any, ...], **_: Any) -> None:
    x, weight, *ctx.lattice = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    for_x, for_weight = ctx.needs_input_grad[:2]
    return (
        _to_input(gradient, weight, *x.shape[2:], *ctx.lattice) if for_x else None,
        _to_weight(x, weight, gradient, *ctx.lattice) if for_weight else None,
        *(None for _ in ctx.lattice),
    )


_poly_scale.register_fake(_result)
_to_input.register_fake(_input_gradient)
_to_weight.register_fake(lambda _x, weight, *_: torch.empty_like(weight))
_poly_scale.register_autograd(_backward, setup_context=_remember)


@register_flop_formula(torch.ops.nas_recalib.poly_scale)
def _flops(x: list[int], weight: list[int], *_: Any, out_shape: list[int], **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


@register_flop_formula(torch.ops.nas_recalib.poly_scale_to_input)
def _flops_to_input(gradient: list[int], weight: list[int], *_: Any, **__: Any) -> int:
    return conv_flop_count(gradient, weight, gradient)


@register_flop_formula(torch.ops.nas_recalib.poly_scale_to_weight)
def _flops_to_weight(x: list[int], weight: list[int], gradient: list[int], *_: Any, **__: Any) -> int:
    return conv_flop_count(x, weight, gradient)


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _map(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    shape = (like.shape[0], channels, height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _convolve(source: Tensor, weight: Tensor, result: Tensor, lattice: _Lattice, *, transposed: bool) -> None:
    """Write the convolution of source into result, or its gradient if transposed."""
    from nas_recalib.operators.psconv_kernels import convolve

    kernel = weight.shape[2]
    wide = 128 // source.itemsize  # as many channels as the widest swizzled row of shared memory takes
    plan = _plan(source, result, kernel, lattice, wide)
    chunks = -(-len(lattice.pattern) * plan["PADDED"] // plan["BLOCK_K"])
    plan |= {"STEPS": chunks * kernel**2, "TRANSPOSED": transposed}

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (-(-plan["positions"] // meta["BLOCK_M"]) * plan["TILES"],)

    with torch.cuda.device_of(source):
        convolve[grid](_nhwc(source), _nhwc(weight), result, **plan)


def _correlate(source: Tensor, gradient: Tensor, kernel: int, lattice: _Lattice) -> Tensor:
    """Return parts of the weight's gradient to sum, (parts, C_out, kernel, kernel, C_in / groups)."""
    from nas_recalib.operators.psconv_kernels import correlate

    plan = _plan(source, gradient, kernel, lattice, 128)
    chunks = -(-len(lattice.pattern) * plan["PADDED"] // plan["BLOCK_K"])
    programs = chunks * kernel**2 * plan["TILES"]
    parts = -(-_programs_at_once(source) // programs)
    shape = (parts, gradient.shape[1], kernel, kernel, source.shape[1] // lattice.groups)
    result = torch.empty(shape, dtype=torch.float32, device=source.device)
    with torch.cuda.device_of(source):
        correlate[programs, parts](_nhwc(source), _nhwc(gradient), result, **plan)
    return result


def _programs_at_once(x: Tensor) -> int:
    return 4 * torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 20


def _plan(source: Tensor, target: Tensor, kernel: int, lattice: _Lattice, widest: int) -> dict[str, Any]:
    """Return the arguments that both kernels share: maps, lattice and tiles.

    Input blocks are padded to PADDED channels so that a chunk of BLOCK_K holds whole blocks or lies in one.
    """
    from triton import cdiv, next_power_of_2

    pattern, steps, stride, groups = lattice
    t = len(pattern)
    c_source, c_target = source.shape[1] // (groups * t), target.shape[1] // (groups * t)
    positions = target.shape[0] * target.shape[2] * target.shape[3]
    block_n = min(128, next_power_of_2(c_target))
    block_k = min(widest, next_power_of_2(t * next_power_of_2(c_source)))
    run = min(block_k, next_power_of_2(c_source))
    tf32 = torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    return {
        "positions": positions,
        "_magnitude": positions.bit_length(),
        "source_height": source.shape[2],
        "source_width": source.shape[3],
        "height": target.shape[2],
        "width": target.shape[3],
        "C_SOURCE": c_source,
        "C_TARGET": c_target,
        "PADDED": cdiv(c_source, run) * run,
        "GROUPS": groups,
        "KERNEL": kernel,
        "STRIDE": stride,
        "PATTERN": tuple(pattern),
        "SOURCE_STEP": steps[0],
        "TARGET_STEP": steps[1],
        "PRECISION": "tf32" if tf32 else "ieee",
        "TILES": groups * t * cdiv(c_target, block_n),
        "BLOCK_N": block_n,
        "BLOCK_K": block_k,
    }
