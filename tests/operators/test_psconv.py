"""PSConv: any pattern, precisions, gradients, costs and refusals; test_references.py has its equations."""

import copy
from itertools import product

import pytest
import torch
from examples import examples, soaked
from hypothesis import given
from hypothesis import strategies as st
from references import psconv, psconv_lattice
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.operators import PSConv2d, _lattice


@pytest.fixture(params=["terms", "dense"])
def way(request, monkeypatch):
    """Run a lattice by its terms, or by full convolutions with zeros in them."""
    monkeypatch.setattr(_lattice, "_dense_is_faster", lambda *_: request.param == "dense")


@examples(25)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=8), st.sampled_from(["both", "in", "out"]), st.data())
def test_any_pattern_is_equation_3(pattern, vary, data):
    t = len(pattern)
    shapes = list(product((1, 2), (1, 2), (1, 3), (1, 2)))
    groups, multiple, kernel, stride = data.draw(st.sampled_from(shapes))
    inputs = 2 * groups * t
    outputs = multiple * inputs
    module = PSConv2d(inputs, outputs, kernel, stride, groups, pattern=tuple(pattern), vary=vary).double()
    dilations = psconv_lattice(outputs, inputs, pattern, groups=groups, vary=vary, layout="blocks")
    assert torch.equal(module.dilation_matrix(), torch.block_diag(*torch.tensor(dilations).chunk(groups)))
    generator = torch.Generator().manual_seed(t)
    with torch.no_grad():
        module.weight.normal_(generator=generator)
        x = torch.randn(1, inputs, 5, 4, generator=generator, dtype=torch.float64)
        expected = psconv(x, module.weight, dilations, stride=stride, groups=groups)
        lattice = module._lattice
        for convolve in (lattice.convolve, lattice.sum_of_terms, lattice.sum_of_dense):
            torch.testing.assert_close(convolve(x, module.weight), expected)
        torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("pattern", [(1, 2), (1, 2, 1, 1), (1, 2, 1, 4), (1, 2, 4), (1, 1, 2, 2, 1, 4)])
@pytest.mark.parametrize(
    ("by_bundle", "vary", "groups", "stride", "size"),
    [
        (by_bundle, vary, groups, stride, size)
        if not by_bundle or (vary == "both" and groups == 1)  # the others are not split, and run as they did
        else pytest.param(by_bundle, vary, groups, stride, size, marks=pytest.mark.soak)
        for by_bundle in (False, True)
        for vary in ("both", "in", "out")
        for groups, stride, size in [(1, 1, (6, 7)), (2, 2, (5, 8)), (1, 2, (3, 9))]
    ],
)
def test_its_own_backward_pass_is_that_of_its_terms(
    normal, make, monkeypatch, pattern, vary, groups, stride, size, by_bundle
):
    if by_bundle:
        monkeypatch.setattr(_lattice, "_LANES", 1)
        monkeypatch.setattr(_lattice, "_WORTH", 1)
    t = len(pattern)
    monkeypatch.setattr(_lattice, "_dense_is_faster", lambda *_: False)
    module = make(PSConv2d, 2 * t * groups, t * groups, 3, stride, groups, pattern=pattern, vary=vary)
    x = normal(2, 2 * t * groups, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    lattice = module._lattice
    split = len(lattice._fastest(x, module.weight).terms) > len(lattice.terms)
    assert split == (by_bundle and groups == 1 and vary == "both")
    ways = (lattice.convolve, lattice.sum_of_dense)
    expected = lattice.sum_of_terms(x, module.weight)
    g = normal(*expected.shape)
    gradients = torch.autograd.grad(expected, (x, module.weight), g)
    for y in (way(x, module.weight) for way in ways):
        torch.testing.assert_close(y, expected)
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(torch.autograd.grad(y, (x, module.weight), g), gradients)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(
    ("channels", "groups"),
    soaked(
        [(16, 1), (32, 1), (64, 1), (80, 1), (96, 1), (160, 1), (24, 24), (64, 4)],
        [(16, 1), (64, 1), (24, 24), (64, 4)],
    ),
)
def test_bfloat16_gradients_on_large_maps_are_right(normal, make, channels, groups, autocast):
    """A CPU's own gradients of dilated convolutions with few channels per group are not."""
    module = make(PSConv2d, channels, channels, groups=groups, dtype=torch.float32)
    x, g = (normal(4, channels, 32, 32, dtype=torch.float32) for _ in range(2))
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = torch.autograd.grad(module(x), (x, module.weight), g)
    lower = module if autocast else copy.deepcopy(module).bfloat16()
    images = x if autocast else x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = lower(images)
    assert y.dtype == torch.bfloat16
    gradients = torch.autograd.grad(y, (images, lower.weight), g.bfloat16())
    for gradient, right in zip(gradients, expected, strict=True):
        assert (gradient.float() - right).norm() < 0.02 * right.norm()


@pytest.mark.usefixtures("way")
def test_weights_are_never_cast_but_by_autocast(normal, make):
    for x in (normal(1, 8, 6, 6), torch.ones(1, 8, 6, 6, dtype=torch.int64), normal(1, 8, 6, 6).bfloat16()):
        with pytest.raises(RuntimeError, match=r"type|scalar"):
            make(PSConv2d, 8, 8, dtype=torch.float32)(x)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("needs", ["input", "weight"])
def test_gradients_that_are_not_needed_are_not_made(normal, make, needs):
    module, x = make(PSConv2d, 8, 8), normal(2, 8, 6, 6).requires_grad_(needs == "input")
    module.requires_grad_(needs == "weight")
    module(x).sum().backward()
    assert (x.grad is None, module.weight.grad is None) == (needs == "weight", needs == "input")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("channels", soaked([4, 8], [4]))
def test_the_gradient_can_be_differentiated(normal, make, channels):
    module, x = make(PSConv2d, channels, channels), normal(2, channels, 6, 6).requires_grad_()
    assert torch.autograd.gradgradcheck(module, (x,), fast_mode=True)
    weight = module.weight
    assert torch.autograd.gradgradcheck(lambda w: functional_call(module, {"weight": w}, (x,)), (weight,))


def test_rows_and_columns_mix_scales_evenly():
    """Section 3.2: no row and no column of D has one dilation alone."""
    matrix = PSConv2d(8, 16).dilation_matrix()
    for line in (*matrix, *matrix.T):
        assert sorted(line.tolist()) == sorted((1, 2, 1, 4) * (len(line) // 4))


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 2, 2)])
def test_a_pattern_of_ones_is_a_vanilla_convolution(normal, make, kernel, stride, groups):
    vanilla = make(nn.Conv2d, 16, 8, kernel, stride, kernel // 2, groups=groups, bias=False)
    module = make(PSConv2d, 16, 8, kernel, stride, groups, pattern=(1, 1, 1, 1))
    module.load_state_dict(vanilla.state_dict())
    x = normal(2, 16, 9, 7)
    torch.testing.assert_close(module(x), vanilla(x))


def test_loads_a_vanilla_checkpoint_into_any_pattern(make):
    vanilla = make(nn.Conv2d, 16, 8, 3, bias=False)
    module = make(PSConv2d, 16, 8)
    module.load_state_dict(vanilla.state_dict(), strict=True)
    assert torch.equal(module.weight, vanilla.weight)


@pytest.mark.parametrize("vary", ["both", "in", "out"])
@pytest.mark.parametrize("pattern", [(1, 2), (1, 2, 1, 1), (1, 2, 1, 4), (1, 2, 3, 4), (1, 1, 2, 2, 1, 4)])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_costs_what_a_vanilla_convolution_costs(count, pattern, vary, stride, groups):
    vanilla = count(lambda: nn.Conv2d(24, 48, 3, stride, 1, groups=groups, bias=False), 24, 14, 14)
    options = {"pattern": pattern, "vary": vary}
    assert count(lambda: PSConv2d(24, 48, 3, stride, groups, **options), 24, 14, 14) == vanilla


@pytest.mark.parametrize(
    ("channels", "groups", "pattern", "dtype", "dense"),
    [
        (28, 1, (1, 2, 1, 4), torch.float32, True),
        (32, 1, (1, 2, 1, 4), torch.float32, False),
        (16, 1, (1, 2), torch.float32, False),
        (16, 1, (1, 2), torch.bfloat16, True),
        (32, 1, (1, 2, 1, 4), torch.bfloat16, False),
        (28, 7, (1, 2, 1, 4), torch.float32, False),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_zeros_are_multiplied_by_where_narrow_blocks_train_and_nowhere_else(
    normal, make, channels, groups, pattern, dtype, dense, training
):
    module = make(PSConv2d, channels, channels, 3, 1, groups, pattern=pattern, dtype=dtype)
    with torch.set_grad_enabled(training), FlopCounterMode(display=False) as counter:
        module(normal(1, channels, 6, 6, dtype=dtype))
    times = len(set(pattern)) if dense and training else 1
    assert counter.get_total_flops() == times * 2 * 36 * module.weight.numel()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 9, "groups": 2}, "in_channels = 9 is not a positive multiple of groups = 2"),
        ({"out_channels": 0}, "out_channels = 0 is not"),
        ({"groups": 4}, "in_channels = 8 is not at least 16, for 4 dilations"),
        ({"out_channels": 3}, "out_channels = 3 is not at least 4, for 4 dilations"),
        ({"groups": 0}, "groups = 0 is not at least 1"),
        ({"kernel_size": 2}, "kernel_size = 2 is not an odd number"),
        ({"stride": 0}, "stride = 0 is not at least 1"),
        ({"pattern": ()}, r"pattern = \(\) is not a list of dilations"),
        ({"pattern": (1, 0)}, r"pattern = \(1, 0\) is not a list of dilations of at least 1"),
        ({"pattern": (1, True)}, r"pattern = \(1, True\) is not"),
        ({"pattern": 2}, "pattern = 2 is not a list of dilations"),
        ({"stride": (2, 2)}, r"stride = \(2, 2\) is not a whole number"),
        ({"pattern": (1, 1.5)}, r"pattern = \(1, 1.5\) is not"),
        (
            {"out_channels": 12, "groups": 8, "pattern": (1, 2)},
            "out_channels = 12 is not a positive multiple of groups = 8",
        ),
        ({"groups": 8, "vary": "in"}, "vary = 'in' is not both, for a depthwise convolution"),
        ({"groups": 8, "pattern": (1,) * 8 + (2,)}, "in_channels = 8 is not at least 9, for 9 dilations"),
        (
            {"groups": 8, "pattern": (1, 2, 4), "depthwise": "blocks"},
            r"in_channels = 8 is not a multiple of len\(pattern\) = 3, which depthwise = blocks needs",
        ),
        ({"depthwise": "both"}, "depthwise = 'both' is not interleaved or blocks"),
        ({"vary": "all"}, "vary = 'all' is not both, in or out"),
    ],
)
def test_names_the_argument_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"^psconv: {message}"):
        PSConv2d(**{"in_channels": 8, "out_channels": 8, **arguments})
