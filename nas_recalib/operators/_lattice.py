"""The lattice of a poly-scale convolution as grouped convolutions (Li et al., ECCV 2020, eq. 3, appendix B).

Channels fall into consecutive blocks, t in each group. The kernels from one block to another share a
dilation, and blocks that share one among themselves are a bundle: a dense convolution from some blocks to
others. A term is one or more bundles of the same dilation and shape, which is one grouped convolution. Every
pair of blocks stands in one bundle, so that all terms together have the weights and the multiply-accumulates
of nn.Conv2d.
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
    inverse,
    is_sound,
    reader,
    sum_up,
    take,
)
from nas_recalib.operators._functional import differentiates_eagerly, laid_out

_LANES = 16  # channels a block needs for a bundle of its own to run quickly on a CPU ...
_WORTH = 2**25  # ... and the multiply-accumulates of one, for its call to be worth while
_NARROW = 8  # channels of a block, for which a CPU has no quick grouped convolution


@dataclass(frozen=True)
class Term:
    """Bundles of one dilation; bundle (o, i) maps the blocks i::step_in to the blocks o::step_out."""

    dilation: int
    bundles: tuple[tuple[int, int], ...]
    step_out: int
    step_in: int


@dataclass(frozen=True)
class Lattice:
    """Which dilation every kernel has, as terms that are summed.

    Attributes:
        terms: Hold each pair of blocks once.
        blocks: Blocks of each group's channels (t).
        groups: Groups as in nn.Conv2d.
        stride: Of the convolution.
    """

    terms: tuple[Term, ...]
    blocks: int
    groups: int
    stride: int

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution of (N, C_in, H, W) by a weight of nn.Conv2d's shape."""
        dtype = autocast_dtype(x)
        if dtype is not None:
            x, weight = x.to(dtype), weight.to(dtype)
        if not differentiates_eagerly():
            return self.sum_of_terms(x, weight)
        if _dense_is_quicker(self, x, weight):
            return self.sum_of_dense(x, weight)
        y: Tensor = _Convolve.apply(x, weight, self._fastest(x, weight))
        return y

    def sum_of_terms(self, x: Tensor, weight: Tensor) -> Tensor:
        """The same by operations that each know their gradient."""
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
        """The same by one whole convolution for each dilation, the kernels of others zero in it."""
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
        """Dilation of the kernels from each block of a group to each: [to][from]."""
        grid = [[0] * self.blocks for _ in range(self.blocks)]
        for term in self.terms:
            for o, i in term.bundles:
                for row in grid[o :: term.step_out]:
                    row[i :: term.step_in] = [term.dilation] * len(row[i :: term.step_in])
        return grid

    def run(self, term: Term, source: Tensor, kernels: Tensor) -> Tensor:
        """A term's grouped convolution."""
        return F.conv2d(source, kernels, None, self.stride, *self.geometry(term, kernels))

    def geometry(self, term: Term, kernels: Tensor) -> tuple[int, int, int]:
        """Padding, dilation and groups of a term's convolution."""
        return term.dilation * (kernels.shape[-1] // 2), term.dilation, self._width(term)

    def _width(self, term: Term) -> int:
        return self.groups * len(term.bundles)

    @property
    def size(self) -> int:
        """Blocks of all groups."""
        return self.groups * self.blocks

    def inputs(self, term: Term) -> Blocks:
        """Blocks that a term reads, in its order."""
        return self._of_all_groups([b for _, i in term.bundles for b in range(i, self.blocks, term.step_in)])

    def outputs(self, term: Term) -> Blocks:
        """Blocks that a term adds to, in its order."""
        return self._of_all_groups([b for o, _ in term.bundles for b in range(o, self.blocks, term.step_out)])

    def _of_all_groups(self, blocks: list[int]) -> Blocks:
        return tuple(group * self.blocks + block for group in range(self.groups) for block in blocks)

    def kernels(self, weight: Tensor, term: Term) -> Tensor:
        """The part of a weight that a term is the convolution by."""
        return torch.stack(self._bundles(weight, term), dim=1).flatten(4, 5).flatten(0, 3)

    def write_kernels(self, weight: Tensor, term: Term, kernels: Tensor) -> None:
        """Puts what `kernels` takes out of a weight back in its place."""
        bundles = self._bundles(weight, term)
        _, outs, rows, ins, columns, _, _ = bundles[0].shape
        shape = (self.groups, len(bundles), outs, rows, ins, columns, *kernels.shape[2:])
        for bundle, told in zip(bundles, kernels.view(shape).unbind(1), strict=True):
            bundle.copy_(told)

    def _bundles(self, weight: Tensor, term: Term) -> list[Tensor]:
        lattice = weight.unflatten(1, (self.blocks, -1)).unflatten(0, (self.groups, self.blocks, -1))
        return [lattice[:, o :: term.step_out, :, i :: term.step_in] for o, i in term.bundles]

    def _fastest(self, x: Tensor, weight: Tensor) -> "Lattice":
        """On a CPU, bundles of some size run faster each by itself than as groups of one convolution."""
        channels = min(weight.shape[0], weight.shape[1]) // self.blocks
        positions = x.shape[0] * x.shape[2] * x.shape[3] // self.stride**2
        work = positions * weight.numel() // self.blocks**2
        if not x.is_cpu or self.groups > 1 or channels < _LANES or work < _WORTH:
            return self
        return _bundles_alone(self, together=channels >= 2 * _LANES)  # groups so wide are quick enough


def _dense_is_quicker(lattice: Lattice, x: Tensor, weight: Tensor) -> bool:
    """Whether a CPU is quicker to multiply by zeros than to take the blocks apart, in training.

    In inference an operator does the multiply-accumulates that it is counted with, no others.
    """
    if not x.is_cpu or lattice.groups > 1 or not (torch.is_grad_enabled() and weight.requires_grad):
        return False
    channels = min(weight.shape[:2]) // lattice.blocks
    return channels < _NARROW + (x.dtype.itemsize == 2 and len(lattice.dilations) == 2)


@cache
def _bundles_alone(lattice: Lattice, *, together: bool) -> Lattice:
    """A term for each bundle; those that read all blocks may stay together."""
    terms: list[Term] = []
    for term in lattice.terms:
        alone = not together or term.step_in < lattice.blocks
        bundles = [(bundle,) for bundle in term.bundles] if alone else [term.bundles]
        terms += [replace(term, bundles=each) for each in bundles]
    return replace(lattice, terms=tuple(terms))


class _Convolve(Function):
    """Sums terms in place, forward and backward, as operations that each know their gradient cannot."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, lattice: Lattice) -> Tensor:
        ctx.lattice = lattice
        read = reader(x, lattice.size)
        sources = [read(lattice.inputs(term)) for term in lattice.terms]
        ctx.save_for_backward(x, weight, *sources)
        parts = [
            (lattice.run(term, source, lattice.kernels(weight, term)), lattice.outputs(term))
            for term, source in zip(lattice.terms, sources, strict=True)
        ]
        return sum_up(parts, lattice.size)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *sources = ctx.saved_tensors
        lattice, needs = ctx.lattice, ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # the backward pass is itself to be differentiated
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
    """Gradients of a term's inputs and kernels."""
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
        if not is_sound(source.dtype, dilation, source.shape[1] // groups):
            g, source = g.float(), source.float()
        # Where a dilated kernel is larger than the map, a CPU takes a path many times as slow.
        lacking = [max(0, 2 * padding + 1 - side) for side in source.shape[-2:]]
        if any(lacking):
            g, source = _extend(g, *(-(-n // lattice.stride) for n in lacking)), _extend(source, *lacking)
    return of_source, backward(g, source, False, True)[1]


def _extend(x: Tensor, rows: int, columns: int) -> Tensor:
    """Zeros below and to the right of a map."""
    return laid_out(F.pad(x, (0, columns, 0, rows)), x)
