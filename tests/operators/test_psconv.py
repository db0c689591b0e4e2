"""PSConv against equation 3 of its paper (Li et al., ECCV 2020), written out as loops."""

import copy
from itertools import product

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nas_recalib.operators import PSConv2d, _lattice

DENSE_IS_QUICKER = _lattice._dense_is_quicker


@pytest.fixture(autouse=True, params=["by its lattice", "by dense convolutions where it can be"])
def way(request, monkeypatch):
    dense = request.param != "by its lattice"
    monkeypatch.setattr(_lattice, "_dense_is_quicker", lambda lattice, x, weight: dense and not x.is_meta)


def lattice(in_channels, out_channels, groups, pattern, vary):
    """D(c, k) by its definition; 0 where output channel c and input channel k are of different groups."""
    t, ins, outs = len(pattern), in_channels // groups, out_channels // groups

    def dilation(c, k):
        if c // outs != k // ins:
            return 0
        block_out, block_in = c % outs // (outs // t), k % ins // (ins // t)
        return {
            "both": pattern[(block_in - block_out) % t],
            "in": pattern[block_in],
            "out": pattern[block_out],
        }[vary]

    return [[dilation(c, k) for k in range(in_channels)] for c in range(out_channels)]


def equation_3(x, weight, dilations, stride):
    """H(c, x, y) = sum over k, i, j of G(c, k, i, j) F(k, x + i D(c, k), y + j D(c, k)), every stride-th."""
    height, width = x.shape[-2:]
    half, kernels = weight.shape[-1] // 2, weight.shape[1]
    reach = half * max(map(max, dilations))
    padded = F.pad(x, [reach] * 4)
    maps = []
    for c, row in enumerate(dilations):
        total = 0
        for k, d in enumerate(row):
            for i, j in product(range(-half, half + 1), repeat=2) if d else ():
                top, left = reach + i * d, reach + j * d
                seen = padded[:, k, top : top + height : stride, left : left + width : stride]
                total = total + weight[c, k % kernels, i + half, j + half] * seen
        maps.append(total)
    return torch.stack(maps, dim=1)


def check(x, module):
    dilations = lattice(module.in_channels, module.out_channels, module.groups, module.pattern, module.vary)
    assert module.dilation_matrix().tolist() == dilations
    torch.testing.assert_close(module(x), equation_3(x, module.weight, dilations, module.stride))


@pytest.mark.parametrize("vary", ["both", "in", "out"])
@pytest.mark.parametrize("pattern", [(1, 2), (1, 2, 1, 1), (1, 2, 1, 4), (1, 2, 4), (3, 3)])
@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (2, 1)])
def test_is_equation_3(normal, make, pattern, vary, groups, stride):
    t = len(pattern)
    module = make(PSConv2d, 2 * t, 4 * t, 3, stride, groups, pattern=pattern, vary=vary)
    check(normal(2, 2 * t, 7, 6), module)


@examples(25)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=8), st.sampled_from(["both", "in", "out"]), st.data())
def test_is_equation_3_for_any_pattern(pattern, vary, data):
    t = len(pattern)
    shapes = list(product((1, 2), (1, 2), (1, 3), (1, 2)))
    groups, outputs, kernel, stride = data.draw(st.sampled_from(shapes))
    inputs = 2 * groups * t
    module = PSConv2d(inputs, outputs * inputs, kernel, stride, groups, pattern=tuple(pattern), vary=vary)
    generator = torch.Generator().manual_seed(t)
    with torch.no_grad():
        module.double().weight.normal_(generator=generator)
        check(torch.randn(1, inputs, 5, 4, generator=generator, dtype=torch.float64), module)


@pytest.mark.parametrize("vary", ["both", "in", "out"])
@pytest.mark.parametrize("pattern", [(1, 2), (1, 2, 1, 1), (1, 2, 1, 4), (1, 2, 4), (1, 1, 2, 2, 1, 4)])
@pytest.mark.parametrize(("groups", "stride", "size"), [(1, 1, (6, 7)), (2, 2, (5, 8)), (1, 2, (3, 9))])
@pytest.mark.parametrize("by_bundle", [False, True])
def test_its_own_backward_pass_is_that_of_its_terms(
    normal, make, monkeypatch, pattern, vary, groups, stride, size, by_bundle
):
    if by_bundle:
        monkeypatch.setattr(_lattice, "_LANES", 1)
        monkeypatch.setattr(_lattice, "_WORTH", 1)
    t = len(pattern)
    monkeypatch.setattr(_lattice, "_dense_is_quicker", lambda *_: False)
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


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize(
    ("channels", "groups"), [(16, 1), (32, 1), (64, 1), (80, 1), (96, 1), (160, 1), (24, 24), (64, 4)]
)
def test_bfloat16_gradients_on_large_maps_are_right(normal, make, channels, groups, autocast):
    """Where a CPU's own, of dilated convolutions with few channels a group, are not."""
    module = make(PSConv2d, channels, channels, groups=groups, dtype=torch.float32)
    x, g = (normal(4, channels, 32, 32, dtype=torch.float32) for _ in range(2))
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = torch.autograd.grad(module(x), (x, module.weight), g)
    lower = module if autocast else copy.deepcopy(module).bfloat16()
    images = x if autocast else x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = lower(images)
    assert y.dtype == torch.bfloat16
    for told, right in zip(
        torch.autograd.grad(y, (images, lower.weight), g.bfloat16()), expected, strict=True
    ):
        assert (told.float() - right).norm() < 0.02 * right.norm()


def test_weights_are_never_cast_but_by_autocast(normal, make):
    for x in (normal(1, 8, 6, 6), torch.ones(1, 8, 6, 6, dtype=torch.int64), normal(1, 8, 6, 6).bfloat16()):
        with pytest.raises(RuntimeError, match=r"type|scalar"):
            make(PSConv2d, 8, 8, dtype=torch.float32)(x)


@pytest.mark.parametrize("needs", ["input", "weight"])
def test_gradients_that_are_not_needed_are_not_made(normal, make, needs):
    module, x = make(PSConv2d, 8, 8), normal(2, 8, 6, 6).requires_grad_(needs == "input")
    module.requires_grad_(needs == "weight")
    module(x).sum().backward()
    assert (x.grad is None, module.weight.grad is None) == (needs == "weight", needs == "input")


def test_the_gradient_can_be_differentiated(normal, make):
    module, x = make(PSConv2d, 8, 8), normal(2, 8, 6, 6).requires_grad_()
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
    normal, make, monkeypatch, channels, groups, pattern, dtype, dense, training
):
    monkeypatch.setattr(_lattice, "_dense_is_quicker", DENSE_IS_QUICKER)
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
