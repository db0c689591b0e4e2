"""Lattice of a poly-scale convolution as grouped convolutions (Li et al., ECCV 2020, eq. 3, appendix B).

The channels of each group divide into t consecutive blocks. The kernels from one block to another share a
dilation, and blocks that share one among themselves are a bundle: a dense convolution from some blocks to
others. A term is one or more bundles of the same dilation and shape, which is one grouped convolution. Every
pair of blocks is in one bundle, so that all terms together have the weights and the multiply-accumulates of
nn.Conv2d.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from nas_recalib.operators._dilated import (
    Blocks,
    autocast_dtype,
    dilated_conv2d,
    has_exact_gradient,
    inverse,
    reader,
    sum_up,
    take,
)
from nas_recalib.operators._functional import differentiates_eagerly, in_layout_of

_LANES = 16  # least channels per block with which a bundle of its own runs fast on a CPU ...
_WORTH = 2**25  # ... and least multiply-accumulates of a bundle that outweigh a call of its own
_NARROW = 8  # channels per block below which a CPU has no fast grouped convolution


@dataclass(frozen=True)
class Term:
    """Bundles of one dilation; bundle (o, i) maps the blocks i::step_in to the blocks o::step_out."""

    dilation: int
    bundles: tuple[tuple[int, int], ...]
    step_out: int
    step_in: int


@dataclass(frozen=True)
class Lattice:
    """Dilation of every kernel, as a sum of terms.

    Attributes:
        terms: Grouped convolutions that together hold each pair of blocks once.
        blocks: Number of blocks of channels in each group (t).
        groups: Groups as in nn.Conv2d.
        stride: Stride of the convolution.
    """

    terms: tuple[Term, ...]
    blocks: int
    groups: int
    stride: int

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve (N, C_in, H, W) with a weight of the shape of nn.Conv2d's, by the fastest way."""
        dtype = autocast_dtype(x)
        if dtype is not None:
            x, weight = x.to(dtype), weight.to(dtype)
        if not differentiates_eagerly():
            return self.sum_of_terms(x, weight)
        if _dense_is_faster(self, x, weight):
            return self.sum_of_dense(x, weight)
        y: Tensor = _Convolve.apply(x, weight, self._fastest(x, weight))
        return y

    def sum_of_terms(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the result of `convolve` by torch's own operations, which autograd differentiates."""
        parts = []
        for term in self.terms:
            source = take(x, self.inputs(term), self.size)
            y = dilated_conv2d(
                source, self.kernels(weight, term), self.stride, term.dilation, self._width(term)
            )
            parts.append((y, self.outputs(term)))
        if all(len(order) == self.size for _, order in parts):
            return reduce(torch.add, (take(y, inverse(order), self.size) for y, order in parts))
        joined = torch.cat([y for y, _ in parts], dim=1)
        return take(joined, inverse([block for _, order in parts for block in order]), self.size)

    def sum_of_dense(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the result of `convolve` by a full convolution per dilation, other kernels set to zero."""
        t = self.blocks
        blocks = weight.unflatten(1, (t, -1)).unflatten(0, (self.groups, t, -1))
        grid = torch.tensor(self.grid, device=weight.device)[:, None, :, None, None, None]
        parts = []
        for dilation in self.dilations:
            kernels = (blocks * (grid == dilation)).flatten(3, 4).flatten(0, 2)
            parts.append(dilated_conv2d(x, kernels, self.stride, dilation, self.groups))
        return reduce(torch.add, parts)

    @property
    def dilations(self) -> list[int]:
        return sorted({term.dilation for term in self.terms})

    @cached_property
    def grid(self) -> list[list[int]]:
        """Dilation of the kernels between the blocks of a group: [output block][input block]."""
        grid = [[0] * self.blocks for _ in range(self.blocks)]
        for term in self.terms:
            for o, i in term.bundles:
                for row in grid[o :: term.step_out]:
                    row[i :: term.step_in] = [term.dilation] * len(row[i :: term.step_in])
        return grid

    def geometry(self, term: Term, kernels: Tensor) -> tuple[int, int, int]:
        """Return padding, dilation and groups of a term's convolution."""
        return term.dilation * (kernels.shape[-1] // 2), term.dilation, self._width(term)

    def _width(self, term: Term) -> int:
        return self.groups * len(term.bundles)

    @property
    def size(self) -> int:
        """Number of blocks in all groups."""
        return self.groups * self.blocks

    def inputs(self, term: Term) -> Blocks:
        """Return the blocks that a term reads, in its order."""
        return self._of_all_groups([b for _, i in term.bundles for b in range(i, self.blocks, term.step_in)])

    def outputs(self, term: Term) -> Blocks:
        """Return the blocks that a term adds to, in its order."""
        return self._of_all_groups([b for o, _ in term.bundles for b in range(o, self.blocks, term.step_out)])

    def _of_all_groups(self, blocks: list[int]) -> Blocks:
        return tuple(group * self.blocks + block for group in range(self.groups) for block in blocks)

    def kernels(self, weight: Tensor, term: Term) -> Tensor:
        """Return the kernels of a term's convolution."""
        return torch.stack(self._bundles(weight, term), dim=1).flatten(4, 5).flatten(0, 3)

    def write_kernels(self, weight: Tensor, term: Term, kernels: Tensor) -> None:
        """Write a term's kernels, as `kernels` returns them, into a weight."""
        bundles = self._bundles(weight, term)
        _, outs, rows, ins, columns, _, _ = bundles[0].shape
        shape = (self.groups, len(bundles), outs, rows, ins, columns, *kernels.shape[2:])
        for bundle, source in zip(bundles, kernels.view(shape).unbind(1), strict=True):
            bundle.copy_(source)

    def _bundles(self, weight: Tensor, term: Term) -> list[Tensor]:
        lattice = weight.unflatten(1, (self.blocks, -1)).unflatten(0, (self.groups, self.blocks, -1))
        return [lattice[:, o :: term.step_out, :, i :: term.step_in] for o, i in term.bundles]

    def _fastest(self, x: Tensor, weight: Tensor) -> "Lattice":
        """Return the lattice with its bundles as single terms where a CPU runs those faster than groups."""
        channels = min(weight.shape[0], weight.shape[1]) // self.blocks
        positions = x.shape[0] * x.shape[2] * x.shape[3] // self.stride**2
        work = positions * weight.numel() // self.blocks**2
        if not x.is_cpu or self.groups > 1 or channels < _LANES or work < _WORTH:
            return self
        return _split_bundles(self, keep_wide=channels >= 2 * _LANES)


def _dense_is_faster(lattice: Lattice, x: Tensor, weight: Tensor) -> bool:
    """Return whether a CPU in training multiplies by zeros faster than it rearranges the blocks.

    In inference an operator performs exactly the multiply-accumulates that it is counted with.
    """
    if not x.is_cpu or lattice.groups > 1 or not (torch.is_grad_enabled() and weight.requires_grad):
        return False
    channels = min(weight.shape[:2]) // lattice.blocks
    return channels < _NARROW + (x.dtype.itemsize == 2 and len(lattice.dilations) == 2)


@cache
def _split_bundles(lattice: Lattice, *, keep_wide: bool) -> Lattice:
    """Return the lattice with one term per bundle; with `keep_wide`, bundles of single blocks stay one."""
    terms: list[Term] = []
    for term in lattice.terms:
        if keep_wide and term.step_in == lattice.blocks:
            terms.append(term)
        else:
            terms += [replace(term, bundles=(bundle,)) for bundle in term.bundles]
    return replace(lattice, terms=tuple(terms))


class _Convolve(Function):
    """Autograd function that sums the terms in place, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, lattice: Lattice) -> Tensor:
        ctx.lattice = lattice
        read = reader(x, lattice.size)
        sources = [read(lattice.inputs(term)) for term in lattice.terms]
        ctx.save_for_backward(x, weight, *sources)
        parts = []
        for term, source in zip(lattice.terms, sources, strict=True):
            kernels = lattice.kernels(weight, term)
            y = F.conv2d(source, kernels, None, lattice.stride, *lattice.geometry(term, kernels))
            parts.append((y, lattice.outputs(term)))
        return sum_up(parts, lattice.size)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *sources = ctx.saved_tensors
        lattice, needs = ctx.lattice, ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # the backward pass is itself differentiated
            needed = [t for t, need in zip((x, weight), needs, strict=True) if need]
            y = lattice.sum_of_terms(x, weight)
            found = iter(torch.autograd.grad(y, needed, g, create_graph=True))
            return *(next(found) if need else None for need in needs), None
        read, parts = reader(g, lattice.size), []
        of_weight = torch.empty_like(weight) if needs[1] else None
        for term, source in zip(lattice.terms, sources, strict=True):
            kernels, outputs = lattice.kernels(weight, term), read(lattice.outputs(term))
            of_source, of_kernels = _gradients(lattice, term, outputs, source, kernels, needs)
            if needs[0]:
                parts.append((of_source, lattice.inputs(term)))
            if of_weight is not None:
                lattice.write_kernels(of_weight, term, of_kernels)
        return sum_up(parts, lattice.size) if needs[0] else None, of_weight, None


def _gradients(
    lattice: Lattice, term: Term, g: Tensor, source: Tensor, kernels: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of a term's inputs and kernels."""
    padding, dilation, groups = lattice.geometry(term, kernels)
    stride, paddings, dilations = [lattice.stride] * 2, [padding] * 2, [dilation] * 2

    def backward(g: Tensor, source: Tensor, *mask: bool) -> list[Tensor]:
        rest = (None, stride, paddings, dilations, False, [0, 0], groups, [*mask, False])
        found: list[Tensor] = torch.ops.aten.convolution_backward(g, source, kernels.to(source.dtype), *rest)
        return found

    of_source = backward(g, source, needs[0], False)[0]
    if not needs[1]:
        return of_source, kernels
    if source.is_cpu:
        if not has_exact_gradient(source.dtype, dilation, source.shape[1] // groups):
            g, source = g.float(), source.float()
        # Where a dilated kernel is larger than the map, a CPU takes a much slower path.
        lacking = [max(0, 2 * padding + 1 - side) for side in source.shape[-2:]]
        if any(lacking):
            g, source = _extend(g, *(-(-n // lattice.stride) for n in lacking)), _extend(source, *lacking)
    return of_source, backward(g, source, False, True)[1]


def _extend(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return a map with rows of zeros below and columns of zeros to the right."""
    return in_layout_of(F.pad(x, (0, columns, 0, rows)), x)
