"""Every operator against its reference: outputs, running statistics and all gradients, to 1e-12."""

import pytest
import torch
from references import (
    Norm,
    learned_mask,
    psconv,
    psconv_depthwise_lattice,
    psconv_lattice,
    psconv_learned,
    scconv,
)
from references_gates import (
    Layer,
    ab,
    averaged,
    cbam,
    combined,
    fine_grained,
    ge_theta,
    msar,
    msar_hidden,
    se,
    single_fully_connected,
)
from torch import nn

from nas_recalib.operators import (
    CBAM,
    MSSAR,
    AccuracyBooster,
    BoosterDesign,
    GatherExcite,
    LearnedPSConv2d,
    PSConv2d,
    SCConv2d,
    SqueezeExcite,
    _lattice,
)

C = 4
TRAINING = pytest.mark.parametrize("training", [False, True])


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def check(module, reference, *inputs):
    """Compare a call of a module with reference(norm, *inputs), norm giving a batch norm's reference.

    The reference reads the module's own parameters, so that both have gradients of the same tensors.
    """
    norms = {}

    def norm(layer):
        statistics = (layer.running_mean.clone(), layer.running_var.clone())
        return norms.setdefault(layer, Norm(layer.weight, layer.bias, *statistics, layer.eps, layer.momentum))

    wanted = [t.requires_grad_() for t in inputs] + list(module.parameters())
    expected = reference(norm, *inputs)
    if not module.training:
        with torch.no_grad():
            same(module(*inputs), expected)
    found = module(*inputs)
    same(found, expected)
    generator = torch.Generator().manual_seed(1)
    g = torch.randn(expected.shape, generator=generator, dtype=expected.dtype)
    same(*(torch.autograd.grad(y, wanted, g) for y in (found, expected)))
    assert set(norms) == {m for m in module.modules() if isinstance(m, nn.BatchNorm2d)}
    for layer, copy in norms.items():
        same((layer.running_mean, layer.running_var), (copy.running_mean, copy.running_var))


@pytest.fixture(params=["terms", "dense"])
def way(request, monkeypatch):
    """Run a lattice by its terms, or by full convolutions with zeros in them."""
    monkeypatch.setattr(_lattice, "_dense_is_faster", lambda *_: request.param == "dense")


@pytest.mark.parametrize("vary", ["both", "in", "out"])
@pytest.mark.parametrize(
    ("pattern", "inputs", "outputs", "kernel", "stride", "groups"),
    [
        ((1, 2, 1, 4), 8, 4, 3, 1, 1),
        ((1, 2, 1, 4), 8, 16, 3, 2, 2),
        ((1, 3, 2), 3, 6, 5, 2, 1),
        ((2, 2), 4, 4, 3, 1, 2),
        ((1, 2, 1, 4), 6, 5, 3, 1, 1),  # t does not divide the channels: blocks of 2, 2, 1, 1
        ((1, 2, 3), 8, 10, 3, 2, 2),
        ((1, 2, 1, 4), 8, 6, 3, 1, 1),
    ],
)
def test_psconv(normal, make, way, pattern, inputs, outputs, kernel, stride, groups, vary):
    module = make(PSConv2d, inputs, outputs, kernel, stride, groups, pattern=pattern, vary=vary)
    lattice = psconv_lattice(outputs, inputs, pattern, groups=groups, vary=vary, layout="blocks")

    def reference(_, x):
        return psconv(x, module.weight, lattice, stride=stride, groups=groups)

    check(module, reference, normal(2, inputs, 7, 6))
    matrix = torch.block_diag(*torch.tensor(lattice).chunk(groups))
    assert torch.equal(module.dilation_matrix(), matrix)


@pytest.mark.parametrize(
    ("depthwise", "layout", "channels"),
    [("interleaved", "cyclic", 8), ("interleaved", "cyclic", 6), ("blocks", "blocks", 8)],
)
@pytest.mark.parametrize(("multiplier", "stride"), [(1, 1), (1, 2), (2, 2)])
def test_psconv_depthwise(normal, make, depthwise, layout, channels, multiplier, stride):
    pattern, outputs = (1, 2, 1, 4), multiplier * channels
    options = {"pattern": pattern, "depthwise": depthwise}
    module = make(PSConv2d, channels, outputs, 3, stride, channels, **options)
    lattice = psconv_depthwise_lattice(outputs, channels, pattern, layout=layout)

    def reference(_, x):
        return psconv(x, module.weight, lattice, stride=stride, groups=channels)

    check(module, reference, normal(2, channels, 7, 6))
    assert module.dilation_matrix().sum(1).tolist() == [row[0] for row in lattice]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("outputs", "stride", "groups"), [(6, 1, 1), (12, 2, 1), (12, 1, 2)])
def test_psconv_learned(normal, make, outputs, stride, groups, clip):
    options = {"dilations": (1, 3), "clip": clip}
    module = make(LearnedPSConv2d, 6 * groups, outputs, 3, stride, groups, **options)
    with torch.no_grad():
        for factor in module.factors:
            factor.copy_(normal(*factor.shape) + 0.7)

    def reference(_, x):
        mask = learned_mask(list(module.factors), clip=clip).repeat(groups, 1)
        return psconv_learned(x, module.weight, mask, (1, 3), stride=stride, groups=groups)

    check(module, reference, normal(2, 6 * groups, 7, 6))
    dilations = 1 + 2 * learned_mask(list(module.factors), clip=clip).long()
    assert torch.equal(module.dilation_matrix(), torch.block_diag(*[dilations] * groups))


@TRAINING
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (2, 5)])
@pytest.mark.parametrize(
    ("outputs", "stride", "groups", "r", "ceil", "pooling", "identity", "upsample"),
    [
        (8, 1, 1, 4, False, "avg", True, "nearest"),
        (8, 1, 1, 4, True, "avg", True, "nearest"),
        (8, 1, 2, 2, False, "avg", False, "bilinear"),
        (12, 2, 1, 3, False, "max", True, "bilinear"),
        (12, 2, 1, 3, True, "max", True, "bilinear"),
        (8, 2, 4, 1, False, "avg", True, "nearest"),
    ],
)
def test_scconv(normal, make, size, outputs, stride, groups, r, ceil, pooling, identity, upsample, training):
    options = {"r": r, "ceil": ceil, "pooling": pooling, "identity": identity, "upsample": upsample}
    module = make(SCConv2d, 8, outputs, 3, stride, groups, **options).train(training)
    kernels = (module.k1.weight, module.k2[0].weight, module.k3[0].weight, module.k4.weight)

    def reference(norm, x):
        norms = (norm(module.k2[1]), norm(module.k3[1]))
        return scconv(x, kernels, norms, training=training, stride=stride, groups=groups, **options)

    check(module, reference, normal(2, 8, *size))


def scales_of(module, norm):
    pairs = [
        (Layer(first.weight, None, norm(middle)), Layer(second.weight, None, *map(norm, last)))
        for first, middle, _, second, *last, _ in module.weights
    ]
    return pairs * (len(module.scales) // len(pairs))


@TRAINING
@pytest.mark.parametrize("norm", ["both", "hidden"])
@pytest.mark.parametrize(("scales", "share"), [((1, 2, 4), False), ((2, 3), False), ((1, 2, 4), True)])
@pytest.mark.parametrize(
    ("strategy", "reading", "size"),
    [
        ("regional", "regional", (8, 8)),
        ("regional", "regional", (7, 9)),
        ("regional", "regional", (3, 5)),
        ("sliding", "square", (3, 6)),
        ("sliding-l1", "ball", (5, 3)),
    ],
)
def test_msar(normal, make, size, strategy, reading, scales, norm, share, training):
    options = {"strategy": strategy, "norm": norm, "share": share}
    module = make(MSSAR, C, scales, **options, clamp=True).train(training)

    def reference(norm, x):  # the function that gives a norm's reference
        return msar(x, scales_of(module, norm), scales, strategy=reading, training=training)

    check(module, reference, normal(2, C, *size))


@TRAINING
@pytest.mark.parametrize(
    ("strategy", "reading"), [("regional", "regional"), ("sliding", "square"), ("sliding-l1", "ball")]
)
def test_msar_multi_stage(normal, make, strategy, reading, training):
    module = make(MSSAR, C, (1, 2), strategy=strategy, hidden=3, source_channels=7).train(training)

    def reference(norm, x, source):
        weights = scales_of(module, norm)
        return msar(x, weights, (1, 2), strategy=reading, training=training, source=source)

    check(module, reference, normal(2, C, 5, 4), normal(2, 7, 5, 4))


@TRAINING
@pytest.mark.parametrize("size", [(8, 8), (5, 7)])
@pytest.mark.parametrize("groups", [12, 6, 3, 1])
def test_ab(normal, make, groups, size, training):
    module = make(AccuracyBooster, 12, groups).train(training)

    def reference(norm, x):
        layer = Layer(module.conv.weight, None, norm(module.norm))
        return ab(x, layer, groups=groups, training=training)

    check(module, reference, normal(3, 12, *size))


@pytest.mark.parametrize("size", [(8, 8), (5, 7)])
@pytest.mark.parametrize("r", [1, 5, 16])
def test_se(normal, make, r, size):
    module = make(SqueezeExcite, 12, r)
    squeeze, excite = (Layer(c.weight, c.bias) for c in (module.squeeze, module.excite))
    check(module, lambda _, x: se(x, squeeze, excite), normal(2, 12, *size))


@pytest.mark.parametrize("channels", [16, 32, 64, 256, 512, 1024, 2048])
@pytest.mark.parametrize("reduction", [1, 3, 16])
def test_msar_width(channels, reduction):
    (first, *_) = MSSAR(channels, reduction=reduction).weights[0]
    assert first.out_channels == msar_hidden(channels, 3 * reduction)


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 2)])
@pytest.mark.parametrize(("r", "kernel"), [(1, 7), (5, 3)])
def test_cbam(normal, make, r, kernel, size):
    module = make(CBAM, 12, r, kernel_size=kernel)
    squeeze, excite = (Layer(c.weight, c.bias) for c in (module.squeeze, module.excite))
    check(module, lambda _, x: cbam(x, squeeze, excite, module.spatial.weight), normal(2, 12, *size))


@TRAINING
@pytest.mark.parametrize("excitation", ["mlp", "ab", "none"])
@pytest.mark.parametrize(
    ("options", "size"),
    [({"extent": 2}, (7, 9)), ({"extent": 4}, (8, 8)), ({"extent": 8}, (7, 9)), ({"size": 5}, (5, 5))],
)
def test_ge(normal, make, options, size, excitation, training):
    module = make(GatherExcite, C, 2, excitation, **options).train(training)

    def reference(norm, x):
        convolutions = [m for m in module.gather if isinstance(m, nn.Conv2d)]
        norms = [norm(m) for m in module.gather if isinstance(m, nn.BatchNorm2d)]
        gather = list(zip([m.weight for m in convolutions], norms, strict=True))
        layers = {
            "mlp": lambda: [Layer(module.excite[i].weight, module.excite[i].bias) for i in (0, 2)],
            "ab": lambda: [Layer(module.excite[0].weight, None, norm(module.excite[1]))],
            "none": list,
        }[excitation]()
        groups = C if excitation == "ab" else 1
        return ge_theta(x, gather, layers, training=training, whole="size" in options, groups=groups)

    check(module, reference, normal(3, C, *size))


AVERAGED, FINE, COMBINED = ("E", "F", "G", "H"), ("I", "J", "K", "L", "dw3-bn", "dw9-bn"), ("M", "N", "O")


def booster_design(letter, module, norm, x):
    training = module.training
    last = None if module.norm is None else norm(module.norm)
    spatial = getattr(module.spatial, "weight", None)
    pointwise = getattr(module.pointwise, "weight", None)
    layer = None if pointwise is None else Layer(pointwise, None, last)
    if letter in AVERAGED:
        return averaged(x, spatial, last, training=training)
    if letter in FINE:
        return fine_grained(x, spatial, None, last, training=training)
    if letter in COMBINED:
        return combined(x, spatial, layer, training=training)
    return single_fully_connected(x, layer) if letter == "B" else ab(x, layer, groups=C)


@TRAINING
@pytest.mark.parametrize("letter", ["B", *AVERAGED, *FINE, *COMBINED, "no-bn"])
def test_booster_designs(normal, make, letter, training):
    side = 5 if letter in ("G", "H") else None
    module = make(BoosterDesign, C, letter, side).train(training)
    x = normal(3, C, 5, 5 if side else 6)
    check(module, lambda norm, x: booster_design(letter, module, norm, x), x)
