"""Squeeze-and-excitation against section 3 of its paper (Hu et al., CVPR 2018)."""

import pytest
import torch

from nas_recalib.operators import SqueezeExcite


@pytest.mark.parametrize("r", [1, 3, 16])
def test_is_its_paper(normal, make, r):
    """x_c sigmoid(W2 relu(W1 z)) with z the channels' averages (equations 2 to 4)."""
    module = make(SqueezeExcite, 12, r)
    x = normal(2, 12, 5, 6)
    (w1, b1), (w2, b2) = ((c.weight[:, :, 0, 0], c.bias) for c in (module.squeeze, module.excite))
    averages = x.flatten(2).mean(2)
    scale = 1 / (1 + torch.exp(-((averages @ w1.T + b1).clamp(min=0) @ w2.T + b2)))
    torch.testing.assert_close(module(x), x * scale[:, :, None, None])


@pytest.mark.parametrize(("channels", "r", "hidden"), [(64, 16, 4), (64, 4, 16), (8, 16, 1)])
def test_its_two_layers_meet_at_channels_over_r(channels, r, hidden):
    parameters = sum(p.numel() for p in SqueezeExcite(channels, r).parameters())
    assert parameters == 2 * channels * hidden + hidden + channels


def test_trains_on_a_single_image(normal, make):
    """It has no batch norm, so that nothing speaks against a batch of one."""
    assert make(SqueezeExcite, 12).train()(normal(1, 12, 5, 5)).isfinite().all()


@pytest.mark.parametrize(
    ("channels", "r", "message"),
    [(0, 16, "channels = 0 is not at least 1"), (12, 0, "r = 0 is not at least 1")],
)
def test_names_the_argument_that_is_wrong(channels, r, message):
    with pytest.raises(ValueError, match=f"^se: {message}"):
        SqueezeExcite(channels, r)
