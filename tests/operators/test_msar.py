"""MS-SAR against equations 1 and 2 of its paper (Wang et al., ECCV 2018), position by position."""

import math

import pytest
import torch

from nas_recalib.operators import MSSAR


def positions(place, length, strategy, scale, reach):
    """The set S of one position along one axis: the region it falls in, or the square window around it."""
    if strategy == "sliding":
        return slice(max(place - reach, 0), place + reach + 1)
    regions = min(scale, length)
    region = place * regions // length
    return slice(region * length // regions, math.ceil((region + 1) * length / regions))


def perceive(mean, pair):
    """sigma_2[Omega_2 sigma_1[Omega_1 y]] of equation 1, for the means (N, D) of one position."""
    reduce, norm, _, expand, *second, _ = pair
    hidden = normalise(mean @ reduce.weight[:, :, 0, 0].T, norm)
    logits = hidden.clamp(min=0) @ expand.weight[:, :, 0, 0].T
    return 1 / (1 + torch.exp(-(normalise(logits, second[0]) if second else logits)))


def normalise(x, norm):
    return (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias


def mean_of(source, row, column, strategy, scale):
    """Means (N, D) over the set S of one position."""
    height, width = source.shape[2:]
    if strategy == "sliding-l1":
        distance = math.sqrt(height * width) / scale
        near = [
            source[:, :, h, w]
            for h in range(height)
            for w in range(width)
            if abs(h - row) + abs(w - column) <= distance
        ]
        return torch.stack(near).mean(0)
    reach = math.floor(math.sqrt(height * width) / scale)
    rows = positions(row, height, strategy, scale, reach)
    return source[:, :, rows, positions(column, width, strategy, scale, reach)].mean((2, 3))


def equation_2(x, source, module, scales, strategy, share):
    height, width = source.shape[2:]
    y = torch.empty_like(x)
    for row in range(height):
        for column in range(width):
            z = []
            for index, scale in enumerate(scales):
                mean = mean_of(source, row, column, strategy, scale)
                z.append(perceive(mean, module.weights[0 if share else index]))
            y[:, :, row, column] = x[:, :, row, column] * sum(z) / len(scales)
    return y


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("norm", ["both", "hidden"])
@pytest.mark.parametrize("strategy", ["regional", "sliding", "sliding-l1"])
@pytest.mark.parametrize("scales", [(1,), (4,), (1, 2, 4), (2, 3)])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (4, 12), (5, 9)])
def test_is_equation_2(normal, make, size, scales, strategy, norm, share):
    module = make(MSSAR, 6, scales, strategy=strategy, norm=norm, share=share)
    x = normal(2, 6, *size)
    torch.testing.assert_close(module(x), equation_2(x, x, module, scales, strategy, share))


@pytest.mark.parametrize("strategy", ["regional", "sliding"])
def test_weights_may_come_from_another_tensor(normal, make, strategy):
    """Multi-stage recalibration, section 3.4."""
    module = make(MSSAR, 6, (1, 2), strategy=strategy, source_channels=10)
    x, source = normal(2, 6, 6, 4), normal(2, 10, 6, 4)
    expected = equation_2(x, source, module, (1, 2), strategy, share=False)
    torch.testing.assert_close(module(x, source), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 8), (2, 5)])
def test_clamp_makes_every_position_of_a_small_map_a_region(normal, make, size):
    module = make(MSSAR, 6, (1, 2, 4), clamp=True)
    x = normal(2, 6, *size)
    torch.testing.assert_close(module(x), equation_2(x, x, module, (1, 2, 4), "regional", share=False))


def test_clamp_changes_nothing_on_a_map_that_is_large_enough(normal, make):
    x = normal(2, 6, 7, 4)
    assert torch.equal(make(MSSAR, 6, clamp=True)(x), make(MSSAR, 6)(x))


def test_without_clamp_a_region_needs_a_position(normal, make):
    with pytest.raises(ValueError, match=r"msar: scales = \(1, 2, 4\) is not within a 3x8 map"):
        make(MSSAR, 6)(normal(2, 6, 3, 8))


def test_moving_an_image_within_its_region_moves_no_weight(normal, make):
    """Regional weights see a region's mean alone, sliding ones also where in the region things are."""
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
