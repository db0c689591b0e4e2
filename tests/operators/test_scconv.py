"""SCConv against equations 2 to 5 of its paper (Liu et al., CVPR 2020), its pooling and resizing as loops."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas_recalib.operators import SCConv2d


def pool(x, r, how):
    """One value a window of r x r (the whole side of a smaller map); what no window covers is dropped."""
    height, width = min(r, x.shape[2]), min(r, x.shape[3])
    rows = []
    for top in range(0, x.shape[2] - height + 1, height):
        windows = [
            x[:, :, top : top + height, left : left + width].flatten(2)
            for left in range(0, x.shape[3] - width + 1, width)
        ]
        rows.append(torch.stack([w.mean(2) if how == "avg" else w.amax(2) for w in windows], dim=-1))
    return torch.stack(rows, dim=2)


def resize(x, size, how):
    """Repetition, or linear interpolation between the centres of cells, edges held, axis by axis."""
    for axis, length in zip((2, 3), size, strict=True):
        cells = x.shape[axis]
        lines = []
        for i in range(length):
            if how == "nearest":
                lines.append(x.select(axis, i * cells // length))
                continue
            place = min(max((i + 0.5) * cells / length - 0.5, 0), cells - 1)
            low = math.floor(place)
            high = min(low + 1, cells - 1)
            lines.append(x.select(axis, low) * (low + 1 - place) + x.select(axis, high) * (place - low))
        x = torch.stack(lines, dim=axis)
    return x


def normalise(x, norm):
    mean, variance, scale, shift = (
        v.view(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (variance + norm.eps).sqrt() * scale + shift


def equations_2_to_5(x, module, stride, groups, r, pooling, identity, upsample):
    def convolve(x, convolution, stride=1):
        return F.conv2d(x, convolution.weight, stride=stride, padding=1, groups=groups)

    x1, x2 = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
    t1 = pool(x1, r, pooling)
    context = resize(normalise(convolve(t1, module.k2[0]), module.k2[1]), x1.shape[2:], upsample)
    gate = 1 / (1 + torch.exp(-(x1 + context if identity else context)))
    y1 = convolve(normalise(convolve(x1, module.k3[0]), module.k3[1]) * gate, module.k4, stride)
    return torch.cat((y1, convolve(x2, module.k1, stride)), dim=1)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 2), (3, 10), (1, 1)])
@pytest.mark.parametrize(
    ("outputs", "stride", "groups", "r", "pooling", "identity", "upsample"),
    [
        (8, 1, 1, 4, "avg", True, "nearest"),
        (8, 1, 1, 4, "avg", True, "bilinear"),
        (8, 1, 1, 2, "avg", False, "nearest"),
        (8, 1, 1, 1, "avg", True, "nearest"),
        (8, 1, 1, 2, "max", True, "bilinear"),
        (12, 2, 1, 4, "avg", True, "nearest"),
        (4, 2, 2, 3, "max", False, "bilinear"),
    ],
)
def test_is_equations_2_to_5(normal, make, size, outputs, stride, groups, r, pooling, identity, upsample):
    options = {"r": r, "pooling": pooling, "identity": identity, "upsample": upsample}
    module = make(SCConv2d, 8, outputs, 3, stride, groups, **options)
    x = normal(2, 8, *size)
    torch.testing.assert_close(module(x), equations_2_to_5(x, module, stride, groups, **options))


def test_defaults_are_the_papers_r_and_the_released_upsampling(normal, make):
    x = normal(2, 8, 8, 8)
    told = make(SCConv2d, 8, 8, 3, 1, 1, r=4, pooling="avg", identity=True, upsample="nearest")
    torch.testing.assert_close(make(SCConv2d, 8, 8)(x), told(x))


@pytest.mark.parametrize("groups", [1, 2])
def test_weighs_as_much_as_the_convolution_it_replaces(groups):
    """Section 3.1.1: K splits into four portions of C/2 x C/2 kernels; K2's and K3's norms are extra."""
    module = SCConv2d(16, 16, groups=groups)
    norms = 2 * 2 * (16 // 2)
    vanilla = nn.Conv2d(16, 16, 3, groups=groups, bias=False)
    assert sum(p.numel() for p in module.parameters()) == vanilla.weight.numel() + norms


def test_each_half_of_the_input_reaches_its_own_half_of_the_output(normal, make):
    module, x = make(SCConv2d, 8, 8), normal(1, 8, 8, 8)
    other = x.clone()
    other[:, :4] += 1
    changed = (module(other) != module(x)).flatten(2).any(2)
    assert changed.tolist() == [[True] * 4 + [False] * 4]


def test_training_needs_two_values_a_channel(normal, make):
    module = make(SCConv2d, 8, 8).train()
    with pytest.raises(ValueError, match="scconv: training needs a batch of at least 2 images"):
        module(normal(1, 8, 4, 4))
    assert module(normal(2, 8, 4, 4)).isfinite().all()
    assert module(normal(1, 8, 8, 8)).isfinite().all()
    assert module.eval()(normal(1, 8, 4, 4)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 7}, "in_channels = 7 is not a positive multiple of groups x 2 halves = 2"),
        (
            {"out_channels": 6, "groups": 2},
            "out_channels = 6 is not a positive multiple of groups x 2 halves = 4",
        ),
        ({"out_channels": 0}, "out_channels = 0 is not"),
        ({"kernel_size": 4}, "kernel_size = 4 is not an odd number"),
        ({"stride": 0}, "stride = 0 is not at least 1"),
        ({"groups": 0}, "groups = 0 is not at least 1"),
        ({"r": 0}, "r = 0 is not a whole number of at least 1"),
        ({"pooling": "sum"}, "pooling = 'sum' is not avg or max"),
        ({"upsample": "cubic"}, "upsample = 'cubic' is not nearest or bilinear"),
    ],
)
def test_names_the_argument_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"^scconv: {message}"):
        SCConv2d(**{"in_channels": 8, "out_channels": 8, **arguments})
