"""Product of a map with weights computed from its averages, in as few passes over the map as possible.

Forward reads the map once for its averages and once for the product; the residual is added in the same pass.
Backward reads the map and the gradient once for the gradient of the weights; the gradient of the map, which
has a term from the product and one from the averages, is then written in a single pass.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from nas_recalib.operators._functional import differentiates_eagerly, in_layout_of
from nas_recalib.operators._tracing import clamped, sizes_vary

Weigh = Callable[[list[Tensor]], Tensor]

_CACHED = 2**20  # elements of a product that stay in the CPU cache until they are summed


def recalibrate(x: Tensor, grids: Sequence[int], weigh: Weigh, residual: Tensor | None = None) -> Tensor:
    """Return x * weigh(averages(x, grids)) + residual, (N, C, H, W).

    Args:
        x: Map, (N, C, H, W).
        grids: Numbers k; the map is averaged over k x k regions for each.
        weigh: Function from those averages to weights (N, C, a, b), which are repeated to the map's size.
        residual: Map added to the product, (N, C, H, W).
    """
    if not differentiates_eagerly():  # a compiler fuses the passes itself
        weights = weigh(averages(x, grids)).to(x.dtype)
        return _product(x, weights if max(grids) == 1 else _repeat_over(x, weights), residual)
    if residual is not None and residual.dtype != x.dtype:
        return residual + recalibrate(x, grids, weigh)
    if not torch.is_grad_enabled():
        return _multiply_add(x, _fit(weigh(averages(x, grids)).to(x.dtype), x), residual)
    deferred = _Deferred()
    passed, *means = _Average.apply(x, deferred, tuple(grids))
    weights = _fit(weigh(means).to(x.dtype), x)
    product: Tensor = _Multiply.apply(x, passed, weights, residual, deferred)
    return product


def multiply(x: Tensor, weights: Tensor, residual: Tensor | None = None) -> Tensor:
    """Return x * weights + residual, (N, C, H, W), for weights (N, C, a, b) of any origin."""
    return _product(x, _repeat_over(x, weights.to(x.dtype)), residual)


def averages(x: Tensor, grids: Sequence[int]) -> list[Tensor]:
    """Return the averages of x over k x k regions for each k, (N, C, k, k).

    A grid that a finer one subdivides is averaged from the finer one. Where k does not divide the map,
    regions overlap as in adaptive pooling; where k exceeds the map, every row or column is a region.
    """
    if sizes_vary(x.shape[-2], x.shape[-1]):
        return [_mean(x, k) for k in grids]
    found: dict[int, Tensor] = {}
    for k in sorted(set(grids), reverse=True):
        finer = [other for other in found if other % k == 0 and _divides(other, x)]
        found[k] = _mean(found[min(finer)] if finer else x, k)
    return [found[k] for k in grids]


def repeat(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (N, C, a, b) upsampled to (N, C, *size) by nearest neighbour: row i reads row floor(i a / H)."""
    if sizes_vary(*x.shape[-2:], *size):
        rows, columns = (
            torch.arange(side, device=x.device) * cells // side
            for side, cells in zip(size, x.shape[-2:], strict=True)
        )
        return x.index_select(2, rows).index_select(3, columns)
    if tuple(x.shape[-2:]) == size:
        return x
    if tuple(x.shape[-2:]) == (1, 1):
        return x.expand(-1, -1, *size)
    # torch's "nearest" divides in float32 and reads row 41 of 82 from the first of 2 cells. Where the cells
    # divide the map, "nearest-exact", which rounds from the middle of a row, is always right.
    exact = size[0] % x.shape[-2] == 0 and size[1] % x.shape[-1] == 0
    return F.interpolate(x, size=size, mode="nearest-exact" if exact else "nearest")


def _product(x: Tensor, weights: Tensor, residual: Tensor | None) -> Tensor:
    return x * weights if residual is None else residual + x * weights


def _repeat_over(x: Tensor, weights: Tensor) -> Tensor:
    return repeat(weights, (x.shape[-2], x.shape[-1]))


def average_by(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return averages (N, C, a, b) of (N, C, H, W) over the rows and columns in masks (a, H) and (b, W)."""
    down, across = (mask.to(x.dtype) / mask.sum(1, keepdim=True) for mask in (rows, columns))
    return torch.matmul(torch.matmul(down, x), across.T)


class _Deferred:
    """Weights that the backward pass of the product leaves to that of the averages to multiply by."""

    weights: Tensor | None = None


class _Average(Function):
    """Autograd function from a map to the map itself and its averages."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, deferred: _Deferred, grids: tuple[int, ...]) -> tuple[Tensor, ...]:
        ctx.deferred, ctx.grids = deferred, grids
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        return x.view_as(x), *averages(x, grids)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *means: Tensor | None) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        of_means = _gradient_of_averages(means, ctx.grids, x)
        weights, ctx.deferred.weights = ctx.deferred.weights, None
        if g is not None and weights is not None:
            of_means = None if of_means is None else in_layout_of(of_means, x)
            return _multiply_add(g, weights, of_means), None, None
        if of_means is None:
            return g, None, None
        repeated = repeat(of_means, (x.shape[-2], x.shape[-1]))
        return repeated if g is None else g + repeated, None, None


class _Multiply(Function):
    """Autograd function of x * weights + residual.

    The gradient that it returns for the map that _Average passed on is not yet multiplied by the weights:
    _Average does so in the pass that adds the gradient of the averages. Only where the backward pass is
    itself differentiated, which needs x as an input, are both done here.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, _passed: Tensor, weights: Tensor, residual: Tensor | None, deferred: _Deferred
    ) -> Tensor:
        ctx.deferred = deferred
        ctx.save_for_backward(x, weights)
        return _multiply_add(x, weights, residual)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weights = ctx.saved_tensors
        differentiable = torch.is_grad_enabled()
        ctx.deferred.weights = None if differentiable else weights.detach()
        of_map = _multiply_add(g, weights, None) if differentiable else g
        return None, of_map, _sum_of_products(x, g, weights), g if ctx.needs_input_grad[3] else None, None


def _divides(k: int, x: Tensor) -> bool:
    return x.shape[-2] % k == 0 and x.shape[-1] % k == 0


def _mean(x: Tensor, k: int) -> Tensor:
    height, width = x.shape[-2:]
    if k == 1:  # unlike that of mean, the gradient of sum is a broadcast that is never written out
        wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        return (x.sum((2, 3), keepdim=True, dtype=wide) / (height * width)).to(x.dtype)
    if sizes_vary(height, width):
        rows, columns = clamped(k, x)
        return average_by(x, _regions(height, rows, x.device), _regions(width, columns, x.device))
    if _divides(k, x):
        return F.avg_pool2d(x, (height // k, width // k))
    return F.adaptive_avg_pool2d(x, (min(k, height), min(k, width)))


def _regions(side: int, k: int, device: torch.device) -> Tensor:
    """Return a mask (k, side) of the rows in each region of adaptive pooling, also for symbolic sides."""
    start = torch.arange(k, device=device)[:, None] * side
    row = torch.arange(side, device=device)[None, :] * k
    return (row + k > start) & (row < start + side)


def _fit(weights: Tensor, x: Tensor) -> Tensor:
    """Return weights in the layout of x, repeated to its size unless their grid divides it."""
    weights = in_layout_of(weights, x)
    rows, columns = weights.shape[-2:]
    divides = x.shape[-2] % rows == 0 and x.shape[-1] % columns == 0
    return weights if divides else repeat(weights, (x.shape[-2], x.shape[-1]))


def _gradient_of_averages(
    gradients: Sequence[Tensor | None], grids: Sequence[int], x: Tensor
) -> Tensor | None:
    """Return the map's gradient from those of its averages, on the coarsest grid that represents it."""
    size = (x.shape[-2], x.shape[-1])
    finest = max(grids)
    if _divides(finest, x) and all(finest % k == 0 for k in grids):
        size = (finest, finest)
    total: Tensor | None = None
    for g, k in zip(gradients, grids, strict=True):
        if g is None:
            continue
        if _divides(k, x):
            share = repeat(g * (k * k / (x.shape[-2] * x.shape[-1])), size)
        else:
            share = torch.ops.aten._adaptive_avg_pool2d_backward(g, x)
        total = share if total is None else total + share
    return total


def _multiply_add(x: Tensor, weights: Tensor, term: Tensor | None) -> Tensor:
    """Return x * weights + term; weights and term are (N, C, a, b) on grids that divide that of x."""
    grids = {tuple(t.shape[-2:]) for t in (weights, term) if t is not None}
    coarse = grids - {(1, 1), tuple(x.shape[-2:])}
    grid = max(coarse) if coarse else (1, 1)
    if torch.is_grad_enabled():  # the backward pass is itself differentiated
        product = _cells(x, grid) * _cells(weights, grid)
        return (product if term is None else product + _cells(term, grid)).flatten(4, 5).flatten(2, 3)
    out = torch.empty_like(x)  # in the layout of x, which broadcasting would not keep
    if term is None:
        torch.mul(_cells(x, grid), _cells(weights, grid), out=_cells(out, grid))
    else:
        torch.addcmul(_cells(term, grid), _cells(x, grid), _cells(weights, grid), out=_cells(out, grid))
    return out


def _cells(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """View (N, C, H, W) as (N, C, rows, H / rows, columns, W / columns), or as one value per cell."""
    rows, columns = grid
    if grid == (1, 1):
        return x[:, :, None, :, None, :]
    if x.shape[-2] < rows or x.shape[-1] < columns:
        return x[:, :, :, None, :, None]
    return x.view(*x.shape[:2], rows, x.shape[-2] // rows, columns, x.shape[-1] // columns)


def _sum_of_products(x: Tensor, g: Tensor, weights: Tensor) -> Tensor:
    """Return x * g summed over the positions that each weight multiplies, in the shape of the weights."""
    window = (x.shape[-2] // weights.shape[-2], x.shape[-1] // weights.shape[-1])
    if window == (1, 1):
        return x * g

    def total(product: Tensor) -> Tensor:
        if tuple(weights.shape[-2:]) == (1, 1):
            return product.sum((2, 3), keepdim=True)
        return F.avg_pool2d(product, window, divisor_override=1)

    images = max(1, _CACHED * x.shape[0] // max(1, x.numel()))
    if not x.is_cpu or torch.is_grad_enabled() or images >= x.shape[0]:
        return total(x * g)
    scratch = torch.empty_like(x[:images])
    parts = zip(x.split(images), g.split(images), strict=True)
    return torch.cat([total(torch.mul(a, b, out=scratch[: len(a)])) for a, b in parts])
