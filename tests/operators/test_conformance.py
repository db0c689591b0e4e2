"""What every operator owes its user, whatever it computes."""

import copy
import io
import pickle

import pytest
import torch
from torch.func import functional_call

from nas_recalib.operators import (
    MSSAR,
    AccuracyBooster,
    BoosterDesign,
    GatherExcite,
    PSConv2d,
    SCConv2d,
    SqueezeExcite,
)

C = 12
OPERATORS = {
    "psconv": lambda: PSConv2d(C, C),
    "psconv grouped, strided": lambda: PSConv2d(C, 2 * C, stride=2, groups=2, pattern=(1, 3, 2)),
    "psconv depthwise": lambda: PSConv2d(C, C, groups=C),
    "psconv in": lambda: PSConv2d(C, C, vary="in"),
    "psconv out": lambda: PSConv2d(C, C, vary="out"),
    "scconv": lambda: SCConv2d(C, C),
    "scconv max, bilinear": lambda: SCConv2d(C, 2 * C, 3, 2, r=3, pooling="max", upsample="bilinear"),
    "scconv without identity": lambda: SCConv2d(C, C, groups=2, r=2, identity=False),
    "scconv depthwise": lambda: SCConv2d(C, C, groups=C),
    "msar": lambda: MSSAR(C),
    "msar sliding, shared": lambda: MSSAR(C, (1, 3), strategy="sliding", hidden=5, share=True),
    "ab": lambda: AccuracyBooster(C),
    "ab between": lambda: AccuracyBooster(C, groups=3),
    "ab-plus": lambda: AccuracyBooster(C, groups=1),
    "se": lambda: SqueezeExcite(C, r=3),
    "ge": lambda: GatherExcite(C, r=3),
    "ge ab": lambda: GatherExcite(C, excitation="ab", extent=4),
    "ge none": lambda: GatherExcite(C, excitation="none", extent=2),
    "ge of a size": lambda: GatherExcite(C, r=3, size=8, clamp=True),
    "ab-design H": lambda: BoosterDesign(C, "H", size=4, clamp=True),
    "ab-design I": lambda: BoosterDesign(C, "I"),
    "ab-design O": lambda: BoosterDesign(C, "O"),
    "ab-design dw9-bn": lambda: BoosterDesign(C, "dw9-bn"),
}


@pytest.fixture(params=OPERATORS.values(), ids=OPERATORS.keys())
def operator(request, make):
    return make(request.param)


@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_input_and_parameters(operator, normal, training):
    operator.train(training)
    names, parameters = zip(*operator.named_parameters(), strict=True)

    def call(x, *values):
        return functional_call(operator, dict(zip(names, values, strict=True)), (x,))

    x = normal(3, C, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(call, (x, *parameters), fast_mode=True)


def test_one_module_takes_maps_of_every_size(operator, normal):
    channels, side = operator(normal(1, C, 8, 8)).shape[1:3]
    for height, width in ((4, 4), (7, 9), (16, 8)):
        shape = operator(normal(2, C, height, width)).shape
        assert tuple(shape) == (2, channels, -(-height * side // 8), -(-width * side // 8))


def test_channels_last_gives_the_same_numbers(operator, normal):
    x = normal(2, C, 8, 8)
    torch.testing.assert_close(operator(x.to(memory_format=torch.channels_last)), operator(x))
    last = copy.deepcopy(operator).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), operator(x))


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast_stays_near_float32(operator, normal, training):
    operator = operator.float().train(training)
    x = normal(4, C, 8, 8, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = operator(x)
    exact = operator(x)
    assert (y - exact).norm() < 0.03 * exact.norm()
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in (x, *operator.parameters()))


def test_copies_compute_the_same(operator, normal):
    x = normal(2, C, 8, 8)
    for twin in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert torch.equal(twin(x), operator(x))


def test_state_dict_is_all_there_is_to_restore(operator, normal):
    x = normal(2, C, 8, 8)
    file = io.BytesIO()
    torch.save(operator.state_dict(), file)
    file.seek(0)
    blank = copy.deepcopy(operator)
    for tensor in blank.state_dict().values():
        tensor.zero_()
    assert not torch.equal(blank(x), operator(x))
    blank.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(blank(x), operator(x))


@pytest.mark.parametrize("training", [False, True])
def test_compiles_as_one_graph(operator, normal, training):
    torch.compiler.reset()
    operator.train(training)
    compiled = torch.compile(operator, backend="eager", fullgraph=True)
    for size in (8, 6):  # the second size makes the compiler treat sizes as symbols
        x = normal(2, C, size, size)
        torch.testing.assert_close(compiled(x), operator(x))


def test_exports(operator, normal):
    x = normal(2, C, 8, 8)
    exported = torch.export.export(operator, (x,)).module()
    torch.testing.assert_close(exported(x), operator(x))


@pytest.mark.parametrize("shape", [(2, C + 1, 8, 8), (C, 8, 8)])
def test_refuses_an_input_of_another_shape(operator, normal, shape):
    with pytest.raises(ValueError, match=rf"expected \(N, {C}, H, W\), got \({shape[0]}, {shape[1]}"):
        operator(normal(*shape))


def test_leaves_its_input_alone(operator, normal):
    x = normal(2, C, 8, 8)
    before = x.clone()
    operator(x)
    assert torch.equal(x, before)
