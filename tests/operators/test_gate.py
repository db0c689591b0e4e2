"""Fused product of a map and its gate, compared with the plain formula."""

import gc
import weakref

import pytest
import torch
from torch.nn import functional as F

from nas_recalib.operators import MSSAR, AccuracyBooster, PSConv2d, SqueezeExcite
from nas_recalib.operators._gate import averages, multiply, recalibrate, repeat

SIZES = [(8, 8), (12, 4), (7, 9), (14, 14), (3, 2), (1, 1)]


def straight(x, grids, mix, residual=None):
    """Return the product with every grid pooled from the map itself and upsampled by torch."""
    height, width = x.shape[-2:]
    pooled = [F.adaptive_avg_pool2d(x, (min(k, height), min(k, width))) for k in grids]
    weights = sum(mix(index, F.interpolate(p, size=(height, width))) for index, p in enumerate(pooled))
    return x * weights + (0 if residual is None else residual)


def mix(index, pooled):
    return torch.sigmoid((index + 1) * pooled.flip(1))


def weigh(pooled):
    maps = [mix(index, p) for index, p in enumerate(pooled)]
    common = max(m.shape[-2] for m in maps), max(m.shape[-1] for m in maps)
    return sum(repeat(m, common) for m in maps)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("grids", [(1,), (4,), (1, 2, 4), (4, 1), (1, 3)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_formula(normal, size, grids, with_residual, memory_format):
    x, residual, g = (normal(3, 5, *size).contiguous(memory_format=memory_format) for _ in range(3))
    inputs = [t.requires_grad_() for t in ((x, residual) if with_residual else (x,))]
    results = [f(inputs[0], grids, m, *inputs[1:]) for f, m in ((recalibrate, weigh), (straight, mix))]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(y, inputs, g, retain_graph=True) for y in results))
    assert results[0].is_contiguous(memory_format=memory_format)


def test_large_maps_are_summed_in_parts(normal):
    x, g = (normal(5, 8, 64, 96).requires_grad_() for _ in range(2))
    fused, expected = (recalibrate(x, (1, 2), weigh), straight(x, (1, 2), mix))
    torch.testing.assert_close(torch.autograd.grad(fused, x, g), torch.autograd.grad(expected, x, g))


@pytest.mark.parametrize("build", [AccuracyBooster, SqueezeExcite, MSSAR])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_the_gradient_can_be_differentiated(normal, make, build, size):
    module = make(build, 6).train()
    x, residual = (normal(2, 6, *size).requires_grad_() for _ in range(2))
    call = lambda x, residual: module(x, residual=residual)  # noqa: E731
    assert torch.autograd.gradgradcheck(call, (x, residual), fast_mode=True)


def test_gradients_may_be_computed_twice(normal, make):
    module, x = make(MSSAR, 6), normal(2, 6, 8, 8).requires_grad_()
    y = module(x)
    first, again = (torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, again)


def test_a_loss_on_the_weights_alone_reaches_the_map(normal, make):
    module, x = make(AccuracyBooster, 6), normal(2, 6, 8, 8).requires_grad_()
    seen = []
    module.norm.register_forward_hook(lambda _, inputs, weights: seen.append(weights))
    module(x)
    expected = torch.autograd.grad(module.norm(module.conv(x.mean((2, 3), keepdim=True))).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(seen[0].sum(), x), expected)


@pytest.mark.parametrize("frozen", ["map", "module"])
def test_what_needs_no_gradient_gets_none(normal, make, frozen):
    module, x = make(AccuracyBooster, 6), normal(2, 6, 8, 8).requires_grad_(frozen == "module")
    module.requires_grad_(frozen == "map")
    module(x).sum().backward()
    assert (x.grad is None) == (frozen == "map")
    assert all((p.grad is None) == (frozen == "module") for p in module.parameters())


def test_a_residual_of_another_type_is_added(normal, make):
    module = make(AccuracyBooster, 6, dtype=torch.float32)
    x, residual = normal(2, 6, 8, 8, dtype=torch.float32), normal(2, 6, 8, 8)
    torch.testing.assert_close(module(x, residual=residual), module(x) + residual)


@pytest.mark.parametrize("build", [AccuracyBooster, SqueezeExcite, MSSAR])
def test_a_residual_is_added(normal, make, build):
    module, (x, residual) = make(build, 6), (normal(2, 6, 8, 8) for _ in range(2))
    torch.testing.assert_close(module(x, residual=residual), module(x) + residual)


@pytest.mark.parametrize("size", SIZES)
def test_averages_are_those_of_adaptive_pooling(normal, size):
    x = normal(2, 3, *size)
    for k, pooled in zip((1, 2, 4, 3), averages(x, (1, 2, 4, 3)), strict=True):
        torch.testing.assert_close(pooled, F.adaptive_avg_pool2d(x, (min(k, size[0]), min(k, size[1]))))


def test_weights_of_any_grid_multiply(normal):
    x = normal(2, 3, 6, 6)
    for side in (1, 2, 4, 6):
        weights = normal(2, 3, side, side)
        torch.testing.assert_close(multiply(x, weights), x * F.interpolate(weights, size=(6, 6)))


def test_half_precision_averages_do_not_overflow():
    x = torch.full((1, 2, 64, 64), 100.0, dtype=torch.float16)
    assert (averages(x, (1,))[0] == 100).all()


@pytest.mark.parametrize("create_graph", [False, True])
def test_no_memory_leaks_where_only_gradients_of_the_module_are_computed(normal, make, create_graph):
    """The gradient of the map is then never computed, and the weights deferred to it must be released."""
    module, kept = make(AccuracyBooster, 6), []
    for _ in range(5):
        x = normal(2, 6, 8, 8).requires_grad_()
        y = module(2 * x)
        kept.append(weakref.ref(y.grad_fn))
        torch.autograd.grad(y.sum(), list(module.parameters()), create_graph=create_graph)
        del x, y
    gc.collect()
    assert not any(ref() for ref in kept)


@pytest.mark.parametrize("build", [AccuracyBooster, SqueezeExcite, MSSAR, PSConv2d])
def test_functions_of_a_module_can_be_transformed(normal, make, build):
    module = make(build, 8, *((8,) if build is PSConv2d else ()))
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    x = normal(3, 8, 8, 8)

    def loss(parameters, image):
        return torch.func.functional_call(module, parameters, (image[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    whole = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    for found, expected in zip(each.values(), whole, strict=True):
        torch.testing.assert_close(found.sum(0), expected)


@pytest.mark.parametrize("build", [AccuracyBooster, SqueezeExcite, MSSAR])
def test_an_empty_batch_passes(normal, make, build):
    module, x = make(build, 6), normal(0, 6, 8, 8).requires_grad_()
    module(x).sum().backward()
    assert x.grad.shape == (0, 6, 8, 8)


@pytest.mark.parametrize("shape", [(2, 6, 4, 4), (2, 6, 1, 1), (1, 6, 8, 8), (6, 8, 8)])
@pytest.mark.parametrize(("build", "name"), [(AccuracyBooster, "ab"), (SqueezeExcite, "se"), (MSSAR, "msar")])
def test_a_residual_of_another_shape_is_refused(normal, make, build, name, shape):
    with pytest.raises(ValueError, match=rf"^{name}: expected a residual \(2, 6, 8, 8\), got"):
        make(build, 6)(normal(2, 6, 8, 8), residual=normal(*shape))


@pytest.mark.parametrize("size", [8, 74, 82, 94, 110])
@pytest.mark.parametrize("k", [2, 4, 12])
def test_a_weight_is_repeated_over_its_region_alone(size, k):
    """torch's own nearest upsampling takes the middle row of 82 from the first of two cells."""
    cells = torch.arange(k * k, dtype=torch.float32).view(1, 1, k, k)
    y = repeat(cells, (size, size))
    row = torch.arange(size) * k // size
    if size % k == 0:
        assert torch.equal(y[0, 0], cells[0, 0][row][:, row])
    traced = torch.jit.trace(lambda x: repeat(x, (size, size)), cells)
    assert torch.equal(traced(cells)[0, 0], cells[0, 0][row][:, row])
