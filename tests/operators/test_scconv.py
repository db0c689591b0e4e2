"""SCConv: defaults, weights, locality and refusals; test_references.py has its equations."""

import pytest
import torch
from torch import nn

from nas_recalib.operators import SCConv2d


def test_defaults_are_the_papers_r_and_the_released_upsampling(normal, make):
    x = normal(2, 8, 8, 8)
    explicit = make(SCConv2d, 8, 8, 3, 1, 1, r=4, pooling="avg", identity=True, upsample="nearest")
    torch.testing.assert_close(make(SCConv2d, 8, 8)(x), explicit(x))


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
