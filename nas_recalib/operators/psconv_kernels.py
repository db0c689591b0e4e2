"""Triton kernels of the poly-scale convolution; psconv_triton.py explains their design and calls them."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False

from typing import Any

import triton
import triton.language as tl

_KEY = ["_magnitude", "height", "width", "C_SOURCE", "C_TARGET", "GROUPS", "KERNEL", "STRIDE", "PATTERN"]


def _tuned(tiles: list[tuple[int, int, int]], key: list[str]) -> Any:
    fixed = {"enable_fp_fusion": True}
    configs = [triton.Config({"BLOCK_M": m} | fixed, num_warps=w, num_stages=s) for m, w, s in tiles]
    return triton.autotune(configs[:1] if triton.knobs.runtime.interpret else configs, key)


@triton.jit
def _outputs(tile, C_TARGET: tl.constexpr, BLOCK_N: tl.constexpr):
    """Return the block of a tile, its output channels, and a mask of those that exist."""
    EACH: tl.constexpr = (C_TARGET + BLOCK_N - 1) // BLOCK_N
    within = tile % EACH * BLOCK_N + tl.arange(0, BLOCK_N)
    block = tile // EACH
    return block, block * C_TARGET + within, within < C_TARGET


@triton.jit
def _inputs(
    step,
    target,
    C_SOURCE: tl.constexpr,
    PADDED: tl.constexpr,
    KERNEL: tl.constexpr,
    PATTERN: tl.constexpr,
    SOURCE_STEP: tl.constexpr,
    TARGET_STEP: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return a tap, BLOCK_K channels of a group (blocks padded), their offsets, and a mask of valid ones."""
    T: tl.constexpr = len(PATTERN)
    tap = step % (KERNEL * KERNEL)
    place = step // (KERNEL * KERNEL) * BLOCK_K + tl.arange(0, BLOCK_K)
    block = place // PADDED
    within = place % PADDED
    index = (SOURCE_STEP * block + TARGET_STEP * (target % T) + T) % T
    dilation = tl.zeros_like(index)
    for i in tl.static_range(T):
        dilation = tl.where(index == i, PATTERN[i], dilation)
    down = (tap // KERNEL - KERNEL // 2) * dilation
    right = (tap % KERNEL - KERNEL // 2) * dilation
    return tap, block * C_SOURCE + within, down, right, (within < C_SOURCE) & (block < T)


@triton.jit
def _gather(
    source,
    position,
    inputs,
    exists,
    height,
    width,
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):
    """Load positions x channels of an NHWC map for the positions (row, column) of the other map."""
    image, row, column = position
    _, channel, down, right, valid = inputs
    exists = exists[:, None] & valid[None, :]
    if TRANSPOSED and STRIDE > 1:
        y = row[:, None] - down[None, :]
        x = column[:, None] - right[None, :]
        inside = exists & (y >= 0) & (x >= 0) & (y % STRIDE == 0) & (x % STRIDE == 0)
        y = y // STRIDE
        x = x // STRIDE
        inside = inside & (y < height) & (x < width)
        start = source + (image * height * width).to(tl.int64) * CHANNELS
        pointers = start[:, None] + ((y * width + x) * CHANNELS + channel[None, :])
    else:
        if TRANSPOSED:
            down = -down
            right = -right
        y = row * STRIDE
        x = column * STRIDE
        inside = exists & ((y[:, None] + down[None, :]).to(tl.uint32) < height)
        inside = inside & ((x[:, None] + right[None, :]).to(tl.uint32) < width)
        start = source + ((image * height + y) * width + x).to(tl.int64) * CHANNELS
        pointers = start[:, None] + ((down * width + right) * CHANNELS + channel)[None, :]
    return tl.load(pointers, mask=inside, other=0.0, cache_modifier=".ca")


@_tuned([(128, 4, 3), (64, 4, 4), (128, 4, 4), (128, 8, 3), (256, 8, 3)], [*_KEY, "TRANSPOSED"])
@triton.jit
def convolve(
    source,
    weight,
    result,
    positions,
    _magnitude,
    source_height,
    source_width,
    height,
    width,
    C_SOURCE: tl.constexpr,
    C_TARGET: tl.constexpr,
    PADDED: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PATTERN: tl.constexpr,
    SOURCE_STEP: tl.constexpr,
    TARGET_STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    TILES: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Set result[position, target] = sum over taps and channels of source x weight[target, tap, channel]."""
    T: tl.constexpr = len(PATTERN)
    DEPTH: tl.constexpr = GROUPS * T * C_SOURCE
    block, target, wanted = _outputs(tl.program_id(0) % TILES, C_TARGET, BLOCK_N)
    group = source + block // T * (T * C_SOURCE)
    position = tl.program_id(0) // TILES * BLOCK_M + tl.arange(0, BLOCK_M)
    exists = position < positions
    image = position // (height * width)
    row = position // width % height
    column = position % width
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(STEPS):
        inputs = _inputs(step, block, C_SOURCE, PADDED, KERNEL, PATTERN, SOURCE_STEP, TARGET_STEP, BLOCK_K)
        tap, channel, _, _, valid = inputs
        values = _gather(
            group,
            (image, row, column),
            inputs,
            exists,
            source_height,
            source_width,
            DEPTH,
            STRIDE,
            TRANSPOSED,
        )
        kernels = tl.load(
            weight + (target[None, :] * (KERNEL * KERNEL) + tap) * (T * C_SOURCE) + channel[:, None],
            mask=valid[:, None] & wanted[None, :],
            other=0.0,
        )
        total = tl.dot(values, kernels, total, input_precision=PRECISION)
    tl.store(
        result + position.to(tl.int64)[:, None] * (GROUPS * T * C_TARGET) + target[None, :],
        total.to(result.dtype.element_ty),
        mask=exists[:, None] & wanted[None, :],
    )


@_tuned([(64, 4, 3), (32, 4, 3), (64, 4, 4), (64, 8, 3), (128, 8, 3)], _KEY)
@triton.jit
def correlate(
    source,
    gradient,
    result,
    positions,
    _magnitude,
    source_height,
    source_width,
    height,
    width,
    C_SOURCE: tl.constexpr,
    C_TARGET: tl.constexpr,
    PADDED: tl.constexpr,
    GROUPS: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PATTERN: tl.constexpr,
    SOURCE_STEP: tl.constexpr,
    TARGET_STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Set result[part, target, tap, channel] = sum over the part's positions of gradient x source."""
    T: tl.constexpr = len(PATTERN)
    DEPTH: tl.constexpr = GROUPS * T * C_SOURCE
    TAPS: tl.constexpr = KERNEL * KERNEL
    block, target, wanted = _outputs(tl.program_id(0) % TILES, C_TARGET, BLOCK_N)
    step = tl.program_id(0) // TILES
    inputs = _inputs(step, block, C_SOURCE, PADDED, KERNEL, PATTERN, SOURCE_STEP, TARGET_STEP, BLOCK_K)
    tap, channel, _, _, valid = inputs
    group = source + block // T * (T * C_SOURCE)
    share = tl.cdiv(tl.cdiv(positions, BLOCK_M), tl.num_programs(1)) * BLOCK_M
    start = tl.program_id(1) * share
    position = start + tl.arange(0, BLOCK_M)
    image = position // (height * width)
    row = position // width % height
    column = position % width
    total = tl.zeros((BLOCK_K, BLOCK_N), tl.float32)
    for _ in range(start, min(start + share, positions), BLOCK_M):
        exists = position < positions
        values = _gather(
            group, (image, row, column), inputs, exists, source_height, source_width, DEPTH, STRIDE, False
        )
        slopes = tl.load(
            gradient + position.to(tl.int64)[:, None] * (GROUPS * T * C_TARGET) + target[None, :],
            mask=exists[:, None] & wanted[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(values), slopes, total, input_precision=PRECISION)
        # advance by BLOCK_M positions with carries from column to row to image, cheaper than divisions
        position += BLOCK_M
        column += BLOCK_M % width
        row += BLOCK_M // width % height + (column >= width)
        column = tl.where(column >= width, column - width, column)
        image += BLOCK_M // (height * width) + (row >= height)
        row = tl.where(row >= height, row - height, row)
    part = result + tl.program_id(1).to(tl.int64) * (GROUPS * T * C_TARGET * TAPS * T * C_SOURCE)
    tl.store(
        part + (target[None, :] * TAPS + tap) * (T * C_SOURCE) + channel[:, None],
        total,
        mask=valid[:, None] & wanted[None, :],
    )
