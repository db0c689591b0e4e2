"""Poly-scale convolution with learned dilations (Li et al., ECCV 2020, section 4.2)."""

import math
from itertools import zip_longest

import torch
from torch import Tensor, nn

from nas_recalib.operators._checks import require, require_channels, require_convolution, whole_numbers
from nas_recalib.operators._dilated import dilated_conv2d
from nas_recalib.operators._functional import named_attributes


class LearnedPSConv2d(nn.Module):
    """Convolution in which a learned binary mask gives every kernel one of two dilations.

    The mask is the Kronecker product of small matrices, 1 where an entry is positive and 0 elsewhere;
    gradients pass straight through that step (the straight-through estimator). It starts as the static
    lattice of the pattern (small, large). The paper cites XNOR-Net for the estimator, which stops the
    gradient of entries beyond 1 and -1, without saying whether it does so itself; `clip` chooses.

    Kernels are applied at both dilations, masked, so that this form has twice the multiply-accumulates of
    nn.Conv2d; the paper's own form costs more than a vanilla convolution, too.

    Args:
        in_channels: Channels of the input, a multiple of 2 x groups.
        out_channels: Channels of the output, a multiple of 2 x groups.
        kernel_size: Side of the square kernels, odd.
        stride: Stride of the convolution.
        groups: Groups as in nn.Conv2d, which share one mask.
        dilations: The small and the large dilation; 1 and 2 in the paper.
        clip: Whether an entry of the mask's matrices beyond 1 or -1 has no gradient, as in XNOR-Net.

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
        dilations: tuple[int, ...] = (1, 2),
        clip: bool = False,
    ) -> None:
        super().__init__()
        allowed = "a small and a large dilation, like 1-2"
        dilations = whole_numbers("psconv-learned", "dilations", dilations, allowed)
        ascending = len(dilations) == 2 and dilations[0] < dilations[1]
        require(ascending, "psconv-learned", "dilations", dilations, allowed)
        shape = (in_channels, out_channels, kernel_size, stride, groups)
        require_convolution("psconv-learned", *shape, parts=2, parts_are="2 halves")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        self.dilations = dilations
        self.clip = clip
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        rows, columns = _primes(out_channels // groups // 2), _primes(in_channels // groups // 2)
        halves = torch.tensor([[-0.5, 0.5], [0.5, -0.5]])
        rest = [torch.full(size, 0.5) for size in zip_longest(rows, columns, fillvalue=1)]
        self.factors = nn.ParameterList(nn.Parameter(factor) for factor in (halves, *rest))

    def mask(self) -> Tensor:
        """Return a mask (out_channels, in_channels / groups): 1 where a kernel has the large dilation."""
        product = torch.ones(1, 1, dtype=self.weight.dtype, device=self.weight.device)
        for factor in self.factors:
            binary = (factor > 0).to(factor.dtype)
            passed = factor.clamp(-1, 1) if self.clip else factor
            hard = binary.detach() + passed - passed.detach()
            # torch.kron, written out because exporters to ONNX do not support it.
            product = (product[:, None, :, None] * hard[None, :, None, :]).flatten(2, 3).flatten(0, 1)
        return product.repeat(self.groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        require_channels("psconv-learned", x, self.in_channels)
        large = self.weight * self.mask()[:, :, None, None]
        halves = zip((self.weight - large, large), self.dilations, strict=True)
        small, wide = (dilated_conv2d(x, w, self.stride, d, self.groups) for w, d in halves)
        return small + wide

    def dilation_matrix(self) -> Tensor:
        """Return each kernel's dilation, (out_channels, in_channels), 0 where groups leave no kernel."""
        small, large = self.dilations
        group = torch.where(self.mask()[: self.out_channels // self.groups] > 0, large, small)
        matrix: Tensor = torch.block_diag(*[group] * self.groups)
        return matrix

    def extra_repr(self) -> str:
        names = ("kernel_size", "stride", "groups", "dilations", "clip")
        return f"{self.in_channels}, {self.out_channels}, {named_attributes(self, *names)}"


def _primes(number: int) -> list[int]:
    """Return the prime factors of a number in descending order."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors[::-1]
