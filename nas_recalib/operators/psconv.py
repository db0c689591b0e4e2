"""Poly-scale convolution (Li et al., ECCV 2020)."""

import math
from collections.abc import Iterator
from functools import reduce
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from nas_recalib.operators._checks import require, require_channels, require_convolution, whole_numbers
from nas_recalib.operators._dilated import dilated_conv2d, inverse
from nas_recalib.operators._functional import in_layout_of, named_attributes
from nas_recalib.operators._lattice import Lattice, Term
from nas_recalib.operators.psconv_triton import poly_scale, usable


class PSConv2d(nn.Module):
    """Convolution whose kernels have different dilations, arranged in a cyclic lattice.

    Within each group the input and the output channels divide into t = len(pattern) consecutive blocks, and
    the kernel from input channel k of block b(k) to output channel c of block b(c) has dilation D(c, k) =
    pattern[(b(k) - b(c)) mod t] (eq. 3). This is the paper's lattice with its channels relabelled (appendix
    B). Weights and multiply-accumulates are those of nn.Conv2d: kernels that share a dilation form grouped
    convolutions, whose outputs are summed. For the backward pass it keeps about three maps of the input's
    size, where nn.Conv2d keeps one.

    Where t does not divide the channels of a group, the last of the paper's partitions is incomplete (t is
    the ceiling of channels by partitions, section 3.2): the first blocks have one channel more. This form is
    as exact but slower, since every output block is a convolution of its own.

    Args:
        in_channels: Channels of the input, at least t in each group.
        out_channels: Channels of the output, at least t in each group.
        kernel_size: Side of the square kernels, odd.
        stride: Stride of the convolution.
        groups: Groups as in nn.Conv2d; each has the same lattice. In a depthwise convolution, with
            groups = in_channels, the pattern runs across the groups instead (appendix A).
        pattern: Dilations, one for each block of channels.
        vary: Channels that dilations vary with: input and output channels ("both"), input channels only
            ("in": D = pattern[b(k)]) or output channels only ("out": D = pattern[b(c)]); the paper's table 5.
            Depthwise, an output channel has one input, and only "both" is allowed.
        depthwise: Arrangement of the pattern in a depthwise convolution. "interleaved" lays one pattern
            across every t consecutive groups, as in appendix A: the kernel of input channel i has the
            dilation pattern[i mod t]. "blocks" gives each of t consecutive blocks of channels one dilation:
            the operator of versions before 0.2, which differs where the convolution before it has groups.
            Other convolutions are the same either way.

    Shape:
        (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: If an argument is out of range; it is named.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        *,
        pattern: tuple[int, ...] = (1, 2, 1, 4),
        vary: Literal["both", "in", "out"] = "both",
        depthwise: Literal["interleaved", "blocks"] = "interleaved",
    ) -> None:
        super().__init__()
        dilations = whole_numbers("psconv", "pattern", pattern, "a list of dilations of at least 1")
        require(vary in ("both", "in", "out"), "psconv", "vary", vary, "both, in or out")
        require(
            depthwise in ("interleaved", "blocks"), "psconv", "depthwise", depthwise, "interleaved or blocks"
        )
        self.depthwise = groups == in_channels > 1
        varies = vary == "both" or not self.depthwise
        require(varies, "psconv", "vary", vary, "both, for a depthwise convolution")
        t = len(dilations)
        shape = (in_channels, out_channels, kernel_size, stride, groups)
        require_convolution("psconv", *shape)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            least = t if self.depthwise else groups * t
            require(channels >= least, "psconv", name, channels, f"at least {least}, for {t} dilations")
        blocks = f"a multiple of len(pattern) = {t}, which depthwise = blocks needs"
        divides = not self.depthwise or depthwise == "interleaved" or groups % t == 0
        require(divides, "psconv", "in_channels", in_channels, blocks)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        self.pattern = dilations
        self.vary = vary
        self.interleaved = depthwise == "interleaved"
        self.even = in_channels % (groups * t) == 0 == out_channels % (groups * t)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._lattice = Lattice(tuple(_terms(dilations, vary)), t, groups, stride)

    def forward(self, x: Tensor) -> Tensor:
        require_channels("psconv", x, self.in_channels)
        if len(set(self.pattern)) == 1:
            return dilated_conv2d(x, self.weight, self.stride, self.pattern[0], self.groups)
        if self.depthwise:
            return self._convolve_depthwise(x)
        if not self.even:
            return self._convolve_uneven(x)
        if usable(x, self.weight, self.pattern, self.groups):
            return poly_scale(x, self.weight, self.pattern, self.vary, self.stride, self.groups)
        return self._lattice.convolve(x, self.weight)

    def _convolve_depthwise(self, x: Tensor) -> Tensor:
        """Return the convolution by a depthwise one for each place of the pattern, channels back in order."""
        t = len(self.pattern)
        weights = self.weight.unflatten(0, (self.groups, -1))
        if not self.interleaved:
            parts = zip(x.chunk(t, 1), weights.chunk(t), self.pattern, strict=True)
            return torch.cat([self._convolve_each(*part) for part in parts], dim=1)
        maps = [self._convolve_each(x[:, i::t], weights[i::t], d) for i, d in enumerate(self.pattern)]
        each = [y.unflatten(1, (-1, self.out_channels // self.groups)) for y in maps]
        if self.groups % t == 0:
            return in_layout_of(torch.stack(each, dim=2).flatten(1, 3), x)
        order = [group for i in range(t) for group in range(i, self.groups, t)]
        return in_layout_of(torch.cat(each, dim=1)[:, inverse(order)].flatten(1, 2), x)

    def _convolve_each(self, x: Tensor, weights: Tensor, dilation: int) -> Tensor:
        """Return a depthwise convolution with weights (groups, multiplier, 1, k, k)."""
        return dilated_conv2d(x, weights.flatten(0, 1), self.stride, dilation, len(weights))

    def _convolve_uneven(self, x: Tensor) -> Tensor:
        """Return the convolution by a grouped one for each output block and each dilation of its kernels.

        Under torch.jit.trace it is a full convolution per dilation with the other kernels set to zero: the
        exporter to ONNX that reads such traces loses channels of uneven pieces.
        """
        if torch.jit.is_tracing():
            lattice = self._lattice_of_a_group().repeat(self.groups, 1)[:, :, None, None].to(x.device)
            masked = [(d, self.weight * (lattice == d)) for d in sorted(set(self.pattern))]
            maps = [dilated_conv2d(x, weight, self.stride, d, self.groups) for d, weight in masked]
            return reduce(torch.add, maps)
        t, maps, like = len(self.pattern), [], x
        x = x.unflatten(1, (self.groups, -1))
        weight = self.weight.unflatten(0, (self.groups, -1))
        ends_in, ends_out = _block_ends(x.shape[2], t), _block_ends(weight.shape[1], t)
        for out in range(t):
            rows = weight[:, ends_out[out] : ends_out[out + 1]]
            total: Tensor | None = None
            for dilation in sorted(set(self.pattern)):
                columns = [
                    channel
                    for block in range(t)
                    if self._dilation(out, block) == dilation
                    for channel in range(ends_in[block], ends_in[block + 1])
                ]
                if columns:
                    index = torch.tensor(columns, device=x.device)
                    source = x.index_select(2, index).flatten(1, 2)
                    kernels = rows.index_select(2, index).flatten(0, 1)
                    y = dilated_conv2d(source, kernels, self.stride, dilation, self.groups)
                    total = y if total is None else total + y
            assert total is not None
            maps.append(total.unflatten(1, (self.groups, ends_out[out + 1] - ends_out[out])))
        return in_layout_of(torch.cat(maps, dim=2).flatten(1, 2), like)

    def _dilation(self, out: int, block: int) -> int:
        """Return the dilation of the kernels from a block of input channels to one of output channels."""
        index = {"both": block - out, "in": block, "out": out}[self.vary]
        return self.pattern[index % len(self.pattern)]

    def dilation_matrix(self) -> Tensor:
        """Return each kernel's dilation, (out_channels, in_channels), 0 where groups leave no kernel."""
        t = len(self.pattern)
        if self.depthwise:
            each = self.groups // t
            column = torch.tensor(
                [self.pattern[i % t if self.interleaved else i // each] for i in range(self.groups)]
            )
            kernels: Tensor = column[:, None, None].expand(-1, self.out_channels // self.groups, 1)
            diagonal: Tensor = torch.block_diag(*kernels)
            return diagonal
        lattice: Tensor = torch.block_diag(*[self._lattice_of_a_group()] * self.groups)
        return lattice

    def _lattice_of_a_group(self) -> Tensor:
        """Return each kernel's dilation in one group, (out_channels / groups, in_channels / groups)."""
        t = len(self.pattern)
        rows, columns = (
            [block for block in range(t) for _ in range(ends[block], ends[block + 1])]
            for ends in (_block_ends(n // self.groups, t) for n in (self.out_channels, self.in_channels))
        )
        return torch.tensor([[self._dilation(out, block) for block in columns] for out in rows])

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "groups", "pattern", "vary", "interleaved")
        return f"{self.in_channels}, {self.out_channels}, {named_attributes(self, *names)}"


def _block_ends(channels: int, t: int) -> list[int]:
    """Return the first channel of each of t blocks, and the end of the last one."""
    return [0, *accumulate(-(-(channels - block) // t) for block in range(t))]


def _terms(pattern: tuple[int, ...], vary: str) -> Iterator[Term]:
    """Yield the terms of the lattice, with their outputs in order where possible; the last one's inputs.

    Forward and backward, the sum of the terms is accumulated in a part whose blocks are in order already.
    """
    found = []
    for dilation in sorted(set(pattern)):
        places = {i for i, d in enumerate(pattern) if d == dilation}
        found += [(dilation, shift, step) for shift, step in _cosets(places, len(pattern))]
    for dilation, shift, step in found:
        back = shift if (dilation, shift, step) == found[-1] else 0
        both = tuple(((j - back) % step, (j - back + shift) % step) for j in range(step))
        terms = {"in": (((0, shift),), 1, step), "out": (((shift, 0),), step, 1), "both": (both, step, step)}
        yield Term(dilation, *terms[vary])


def _cosets(places: set[int], t: int) -> Iterator[tuple[int, int]]:
    """Yield the progressions shift::step of Z_t (cosets of subgroups) that places split into, longest first.

    Blocks whose distance lies in one coset exchange channels only among themselves: that is one grouped
    convolution with `step` bundles.
    """
    left = set(places)
    for step in (s for s in range(1, t + 1) if t % s == 0):
        for shift in range(step):
            coset = set(range(shift, t, step))
            if coset <= left:
                left -= coset
                yield shift, step
