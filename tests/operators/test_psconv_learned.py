"""Learned poly-scale convolution: its mask, training, costs and refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas_recalib.operators import LearnedPSConv2d, PSConv2d


def scramble(module, generator):
    with torch.no_grad():
        for factor in module.factors:
            factor.copy_(torch.randn(factor.shape, generator=generator) + 0.7)
    return module


def test_starts_as_the_static_lattice(normal, make):
    learned, static = make(LearnedPSConv2d, 8, 16), make(PSConv2d, 8, 16, pattern=(1, 2))
    static.weight = learned.weight
    assert torch.equal(learned.dilation_matrix(), static.dilation_matrix())
    x = normal(2, 8, 7, 7)
    torch.testing.assert_close(learned(x), static(x))


def test_the_mask_is_a_kronecker_product_of_small_matrices(make):
    module = make(LearnedPSConv2d, 12, 20)
    assert [tuple(f.shape) for f in module.factors] == [(2, 2), (5, 3), (2, 2)]
    scramble(module, torch.Generator().manual_seed(0))
    expected = torch.ones(1, 1, dtype=torch.float64)
    for factor in module.factors:
        expected = torch.kron(expected, (factor > 0).double())
    assert torch.equal(module.mask(), expected)


def test_gradients_pass_straight_through_the_step(normal, make):
    """The gradient of a factor is that of the product of the binary factors."""
    module = scramble(make(LearnedPSConv2d, 4, 4), torch.Generator().manual_seed(2))
    binaries = [(f > 0).double().requires_grad_() for f in module.factors]
    product = torch.ones(1, 1, dtype=torch.float64)
    for binary in binaries:
        product = torch.kron(product, binary)
    g = normal(4, 4)
    expected = torch.autograd.grad(product, binaries, g)
    torch.testing.assert_close(torch.autograd.grad(module.mask(), tuple(module.factors), g), expected)


def test_training_moves_the_mask(normal, make):
    module = make(LearnedPSConv2d, 4, 4).train()
    before = module.dilation_matrix()
    target = make(PSConv2d, 4, 4, pattern=(2, 1))
    target.weight = nn.Parameter(module.weight.detach().clone())
    optimizer = torch.optim.SGD(module.factors.parameters(), lr=0.5)
    for _ in range(40):
        x = normal(4, 4, 8, 8)
        loss = F.mse_loss(module(x), target(x).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not torch.equal(module.dilation_matrix(), before)


def test_costs_two_convolutions(count):
    macs, params = count(lambda: nn.Conv2d(12, 20, 3, 1, 1, bias=False), 12, 8, 8)
    assert count(lambda: LearnedPSConv2d(12, 20), 12, 8, 8) == (2 * macs, params + 4 + 15 + 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 9}, r"in_channels = 9 is not a positive multiple of groups x 2 halves = 2"),
        ({"dilations": (1,)}, r"dilations = \(1,\) is not a small and a large dilation"),
        ({"dilations": (2, 2)}, r"dilations = \(2, 2\) is not"),
        ({"dilations": (0, 2)}, r"dilations = \(0, 2\) is not"),
        ({"stride": 0}, "stride = 0 is not at least 1"),
    ],
)
def test_names_the_argument_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"^psconv-learned: {message}"):
        LearnedPSConv2d(**{"in_channels": 8, "out_channels": 8, **arguments})


def test_bfloat16_gradients_on_large_maps_are_right(normal, make):
    """A CPU's own gradients of dilated convolutions with few channels per group are not."""
    module = make(LearnedPSConv2d, 8, 8, groups=2, dtype=torch.float32)
    x, g = (normal(4, 8, 32, 32, dtype=torch.float32) for _ in range(2))
    x = x.contiguous(memory_format=torch.channels_last)
    (right,) = torch.autograd.grad(module(x), module.weight, g)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    (gradient,) = torch.autograd.grad(y, module.weight, g.bfloat16())
    assert (gradient - right).norm() < 0.02 * right.norm()
