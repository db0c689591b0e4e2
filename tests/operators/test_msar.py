"""MS-SAR: clamping, width, locality and refusals; test_references.py has its equations."""

import pytest
import torch

from nas_recalib.operators import MSSAR


def test_clamp_changes_nothing_on_a_map_that_is_large_enough(normal, make):
    x = normal(2, 6, 7, 4)
    assert torch.equal(make(MSSAR, 6, clamp=True)(x), make(MSSAR, 6)(x))


def test_without_clamp_a_region_needs_a_position(normal, make):
    with pytest.raises(ValueError, match=r"msar: scales = \(1, 2, 4\) is not within a 3x8 map"):
        make(MSSAR, 6)(normal(2, 6, 3, 8))


def test_moving_an_image_within_its_region_moves_no_weight(normal, make):
    """Regional weights depend only on a region's mean, sliding ones also on positions within the region."""
    x = normal(1, 6, 8, 8)
    moved = x.clone()
    moved[:, :, :4, :4] = moved[:, :, :4, :4].flip(2, 3)
    for strategy, same in (("regional", True), ("sliding", False), ("sliding-l1", False)):
        module = make(MSSAR, 6, (2,), strategy=strategy)
        weights, after = module(x) / x, module(moved) / moved
        assert torch.allclose(after, weights) is same


@pytest.mark.parametrize(
    ("channels", "scales", "reduction", "norm", "hidden"),
    [
        (12, (1, 2, 4), 1, "both", 4),
        (9, (1,), 1, "both", 9),
        (2, (1, 2, 4), 1, "both", 1),
        (16, (1, 2, 4), 3, "both", 2),
        (32, (1, 2, 4), 3, "both", 4),
        (64, (1, 2, 4), 3, "both", 7),
        (256, (1, 2, 4), 16, "both", 5),
        (8, (1, 2, 4), 16, "both", 1),
        (32, (1, 2, 4), 1, "both", 11),
        (32, (1, 2, 4), 1, "hidden", 10),
        (64, (1, 2, 4), 3, "hidden", 7),
    ],
)
@pytest.mark.parametrize("share", [False, True])
def test_width_is_channels_over_reduction_and_scales(channels, scales, reduction, norm, hidden, share):
    """Section 3.5: D' = D / L, two matrices a scale (or one pair for all), norms over D' and over D."""
    module = MSSAR(channels, scales, reduction=reduction, norm=norm, share=share)
    second = 2 * channels if norm == "both" else 0
    expected = (1 if share else len(scales)) * (2 * channels * hidden + 2 * hidden + second)
    assert sum(p.numel() for p in module.parameters()) == expected


def test_training_needs_two_values_a_channel(normal, make):
    module = make(MSSAR, 6).train()
    with pytest.raises(ValueError, match="msar: training needs a batch of at least 2 images"):
        module(normal(1, 6, 8, 8))
    assert module(normal(2, 6, 8, 8)).isfinite().all()
    assert module.eval()(normal(1, 6, 8, 8)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels = 0 is not at least 1"),
        ({"scales": ()}, r"scales = \(\) is not a list of scales"),
        ({"scales": (1, 0)}, r"scales = \(1, 0\) is not a list of scales of at least 1"),
        ({"strategy": "global"}, "strategy = 'global' is not regional, sliding or sliding-l1"),
        ({"hidden": 0}, "hidden = 0 is not at least 1"),
        ({"reduction": 0}, "reduction = 0 is not at least 1"),
        ({"reduction": 2, "hidden": 3}, "reduction = 2 is not 1, its default, where hidden = 3 is given"),
        ({"norm": "none"}, "norm = 'none' is not both or hidden"),
        ({"source_channels": 0}, "source_channels = 0 is not at least 1"),
    ],
)
def test_names_the_argument_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"^msar: {message}"):
        MSSAR(**{"channels": 6, **arguments})


def test_refuses_a_source_of_other_channels(normal, make):
    module = make(MSSAR, 6, source_channels=10)
    with pytest.raises(ValueError, match=r"msar: expected \(N, 10, H, W\), got \(2, 6, 8, 8\)"):
        module(normal(2, 6, 8, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_l1_ball_is_averaged_without_losing_digits_in_half_precision(make, normal, dtype):
    module = make(MSSAR, 8, (1,), strategy="sliding-l1", dtype=torch.float32)
    x = (8 * (normal(2, 8, 56, 56, dtype=torch.float32).relu() + 1)).to(dtype)
    (half,), (full,) = module._windows(x), module._windows(x.float())
    assert half.dtype == dtype
    assert ((half.float() - full) / full).abs().max() < torch.finfo(dtype).eps
