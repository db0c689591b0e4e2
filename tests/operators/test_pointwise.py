"""Pointwise convolution as a matrix product, compared with torch's own 1x1 convolution."""

import pytest
import torch
from torch import nn

from nas_recalib.operators._functional import Pointwise


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (2, 3)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_is_a_convolution(normal, make, count, size, groups, bias, memory_format):
    ours = make(Pointwise, 6, 12, groups, bias=bias)
    theirs = make(nn.Conv2d, 6, 12, 1, groups=groups, bias=bias)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = normal(3, 6, *size).contiguous(memory_format=memory_format).requires_grad_()
    results = [module(x) for module in (ours, theirs)]
    torch.testing.assert_close(*results)
    g = normal(*results[0].shape)
    gradients = [
        torch.autograd.grad(y, (x, *m.parameters()), g) for y, m in zip(results, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*gradients)
    same = (
        (lambda: Pointwise(6, 12, groups, bias=bias)),
        (lambda: nn.Conv2d(6, 12, 1, groups=groups, bias=bias)),
    )
    assert count(same[0], 6, *size) == count(same[1], 6, *size)
