"""Squeeze-and-excitation: width and refusals; test_references.py has its equations."""

import pytest

from nas_recalib.operators import SqueezeExcite


@pytest.mark.parametrize(("channels", "r", "hidden"), [(64, 16, 4), (64, 4, 16), (8, 16, 1)])
def test_its_two_layers_meet_at_channels_over_r(channels, r, hidden):
    parameters = sum(p.numel() for p in SqueezeExcite(channels, r).parameters())
    assert parameters == 2 * channels * hidden + hidden + channels


def test_trains_on_a_single_image(normal, make):
    """It has no batch norm, which a batch of one would leave without a variance."""
    assert make(SqueezeExcite, 12).train()(normal(1, 12, 5, 5)).isfinite().all()


@pytest.mark.parametrize(
    ("channels", "r", "message"),
    [(0, 16, "channels = 0 is not at least 1"), (12, 0, "r = 0 is not at least 1")],
)
def test_names_the_argument_that_is_wrong(channels, r, message):
    with pytest.raises(ValueError, match=f"^se: {message}"):
        SqueezeExcite(channels, r)
