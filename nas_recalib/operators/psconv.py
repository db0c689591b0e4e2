"""Poly-scale convolution (Li et al., ECCV 2020)."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from nas_recalib.operators._checks import require, require_channels, require_convolution, whole_numbers
from nas_recalib.operators._dilated import dilated_conv2d
from nas_recalib.operators._lattice import Lattice, Term
from nas_recalib.operators.psconv_triton import poly_scale, usable


class PSConv2d(nn.Module):
    """Convolution whose kernels have different dilations, laid out in a cyclic lattice.

    Within each group the input and the output channels fall into t = len(pattern) consecutive blocks, b(i) =
    i // (C / t), and the kernel from input channel k to output channel c has dilation D(c, k) =
    pattern[(b(k) - b(c)) mod t] (eq. 3). This is the paper's lattice with its channels relabelled (appendix
    B). It has the weights and the multiply-accumulates of nn.Conv2d: kernels that share a dilation are
    gathered into grouped convolutions, and their outputs are summed. For the backward pass it keeps about
    three maps of the input's size, where nn.Conv2d keeps one.

    Args:
        in_channels: Channels of the input, a multiple of groups x t.
        out_channels: Channels of the output, a multiple of groups x t.
        kernel_size: Side of the square kernels, odd.
        stride: Stride of the convolution.
        groups: Groups as in nn.Conv2d; the lattice stands in each. Where every input channel is a group of
            its own (depthwise), the pattern runs across the groups: D(c, c) = pattern[b(c)] (appendix A).
        pattern: Dilations, one for each block of channels.
        vary: Where dilations vary: from input to input and output to output ("both"), with the input channel
            alone ("in": D = pattern[b(k)]) or with the output channel alone ("out": D = pattern[b(c)]); the
            paper's table 5. Depthwise, an output channel has one input, and only "both" is allowed.

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
    ) -> None:
        super().__init__()
        dilations = whole_numbers("psconv", "pattern", pattern, "a list of dilations of at least 1")
        require(vary in ("both", "in", "out"), "psconv", "vary", vary, "both, in or out")
        depthwise = groups == in_channels > 1
        require(vary == "both" or not depthwise, "psconv", "vary", vary, "both, for a depthwise convolution")
        shape = (in_channels, out_channels, kernel_size, stride, 1 if depthwise else groups)
        require_convolution("psconv", *shape, parts=len(dilations), parts_are="len(pattern)")
        divides = f"a multiple of groups = {groups}"
        require(out_channels % groups == 0, "psconv", "out_channels", out_channels, divides)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        self.pattern = dilations
        self.vary = vary
        self.depthwise = depthwise
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self._lattice = Lattice(tuple(_terms(dilations, vary)), len(dilations), groups, stride)

    def forward(self, x: Tensor) -> Tensor:
        require_channels("psconv", x, self.in_channels)
        t = len(self.pattern)
        if len(set(self.pattern)) == 1:
            return dilated_conv2d(x, self.weight, self.stride, self.pattern[0], self.groups)
        if self.depthwise:
            blocks = zip(x.chunk(t, 1), self.weight.chunk(t), self.pattern, strict=True)
            each = [dilated_conv2d(a, w, self.stride, d, self.groups // t) for a, w, d in blocks]
            return torch.cat(each, dim=1)
        if usable(x, self.weight, self.pattern, self.groups):
            return poly_scale(x, self.weight, self.pattern, self.vary, self.stride, self.groups)
        return self._lattice.convolve(x, self.weight)

    def dilation_matrix(self) -> Tensor:
        """Dilation of every kernel: (out_channels, in_channels), 0 where groups leave no kernel."""
        t = len(self.pattern)
        if self.depthwise:
            rows = torch.tensor(self.pattern).repeat_interleave(self.groups // t)
            kernels: Tensor = rows[:, None, None].expand(-1, self.out_channels // self.groups, 1)
            diagonal: Tensor = torch.block_diag(*kernels)
            return diagonal
        block_in = torch.arange(self.in_channels // self.groups) // (self.in_channels // self.groups // t)
        block_out = torch.arange(self.out_channels // self.groups) // (self.out_channels // self.groups // t)
        if self.vary == "both":
            index = (block_in[None, :] - block_out[:, None]) % t
        elif self.vary == "in":
            index = block_in[None, :].expand(len(block_out), -1)
        else:
            index = block_out[:, None].expand(-1, len(block_in))
        lattice: Tensor = torch.block_diag(*[torch.tensor(self.pattern)[index]] * self.groups)
        return lattice

    def extra_repr(self) -> str:
        pattern = "-".join(map(str, self.pattern))
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"groups={self.groups}, pattern={pattern}, vary={self.vary}"
        )


def _terms(pattern: tuple[int, ...], vary: str) -> Iterator[Term]:
    """The lattice as terms, their outputs in order where they can be; those of the last, its inputs.

    What is in order need not be moved before the rest is added to it, forward as backward.
    """
    found = []
    for dilation in sorted(set(pattern)):
        places = {i for i, d in enumerate(pattern) if d == dilation}
        found += [(dilation, shift, step) for shift, step in _cosets(places, len(pattern))]
    for dilation, shift, step in found:
        if vary == "in":
            yield Term(dilation, ((0, shift),), 1, step)
        elif vary == "out":
            yield Term(dilation, ((shift, 0),), step, 1)
        else:
            back = shift if (dilation, shift, step) == found[-1] else 0
            yield Term(
                dilation,
                tuple(((j - back) % step, (j - back + shift) % step) for j in range(step)),
                step,
                step,
            )


def _cosets(places: set[int], t: int) -> Iterator[tuple[int, int]]:
    """Splits places into progressions shift::step of Z_t (cosets of its subgroups), the longest first.

    Blocks whose distance lies in one coset exchange channels among themselves alone: that is one grouped
    convolution with `step` bundles.
    """
    left = set(places)
    for step in (s for s in range(1, t + 1) if t % s == 0):
        for shift in range(step):
            coset = set(range(shift, t, step))
            if coset <= left:
                left -= coset
                yield shift, step
