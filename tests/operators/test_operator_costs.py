"""MACs and parameters of every operator, counted on meta tensors, against closed forms to the digit."""

from functools import partial

import pytest
from examples import soaked

from nas_recalib.operators import MSSAR, AccuracyBooster, PSConv2d, SCConv2d, SqueezeExcite

MAPS = [(56, 56), (14, 14), (7, 9)]
CONVOLUTIONS = [(64, 64, 1, 1), (64, 128, 2, 1), (96, 48, 1, 2), (96, 96, 2, 4)]


@pytest.mark.parametrize(("height", "width"), MAPS)
@pytest.mark.parametrize(("inputs", "outputs", "stride", "groups"), CONVOLUTIONS)
@pytest.mark.parametrize("vary", ["both", "in", "out"])
def test_psconv(count, height, width, inputs, outputs, stride, groups, vary):
    """Section 3.2: those of the convolution it replaces."""
    weights = 9 * inputs * outputs // groups
    macs = weights * -(-height // stride) * -(-width // stride)
    build = partial(PSConv2d, inputs, outputs, 3, stride, groups, vary=vary)
    assert count(build, inputs, height, width) == (macs, weights)


@pytest.mark.parametrize(("height", "width"), MAPS)
@pytest.mark.parametrize(("inputs", "outputs", "stride", "groups"), CONVOLUTIONS)
@pytest.mark.parametrize("r", [1, 2, 4, 9])
@pytest.mark.parametrize(("pooling", "identity"), [("avg", True), ("max", False)])
def test_scconv(count, height, width, inputs, outputs, stride, groups, r, pooling, identity):
    """K3 runs at full size, K2 on r x r pooled maps, K1 and K4 with the stride."""
    inner, outer = 9 * (inputs // 2) ** 2 // groups, 9 * inputs * outputs // 4 // groups
    pooled = (height // min(r, height)) * (width // min(r, width))
    strided = -(-height // stride) * -(-width // stride)
    macs = inner * (height * width + pooled) + 2 * outer * strided
    shape = (inputs, outputs, 3, stride, groups)
    build = partial(SCConv2d, *shape, r=r, pooling=pooling, identity=identity)
    assert count(build, inputs, height, width) == (macs, 2 * inner + 2 * outer + 2 * inputs)


@pytest.mark.parametrize(("height", "width"), MAPS)
@pytest.mark.parametrize("channels", soaked([64, 100], [100]))
@pytest.mark.parametrize("scales", [(1,), (1, 2, 4), (2, 2), (1, 3, 5, 7)])
@pytest.mark.parametrize("hidden", [None, 5])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    ("strategy", "norm"), [("regional", "both"), ("sliding", "both"), ("regional", "hidden")]
)
def test_msar(count, height, width, channels, scales, hidden, share, strategy, norm):
    """Two 1x1 convolutions for every region of a scale; sliding, for every position (section 3.2)."""
    inner = hidden or (round(channels / len(scales)) if norm == "both" else channels // len(scales))
    pair = 2 * channels * inner
    visits = sum(scale**2 if strategy == "regional" else height * width for scale in scales)
    pairs = 1 if share else len(scales)
    second = 2 * channels if norm == "both" else 0
    build = partial(MSSAR, channels, scales, strategy=strategy, hidden=hidden, norm=norm, share=share)
    assert count(build, channels, height, width) == (pair * visits, pairs * (pair + 2 * inner + second))


@pytest.mark.parametrize(("height", "width"), MAPS)
@pytest.mark.parametrize(("channels", "groups"), [(256, None), (256, 16), (256, 1), (100, 10)])
def test_ab(count, height, width, channels, groups):
    """One 1x1 convolution of the averages and its norm (section 3)."""
    weights = channels**2 // (groups or channels)
    build = partial(AccuracyBooster, channels, groups)
    assert count(build, channels, height, width) == (weights, weights + 2 * channels)


@pytest.mark.parametrize(("height", "width"), MAPS)
@pytest.mark.parametrize(("channels", "r", "hidden"), [(256, 16, 16), (100, 16, 6), (8, 16, 1)])
def test_se(count, height, width, channels, r, hidden):
    """Two 1x1 convolutions of the averages, with biases."""
    weights = 2 * channels * hidden
    build = partial(SqueezeExcite, channels, r)
    assert count(build, channels, height, width) == (weights, weights + hidden + channels)
