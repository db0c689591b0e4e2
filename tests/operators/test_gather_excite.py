"""Gather-excite: defaults, extents, costs and refusals; test_references.py has its equations."""

import pytest
import torch
from torch import nn

from nas_recalib.architecture import Architecture
from nas_recalib.operators import BlockChoice, GatherExcite, build_recalibration
from nas_recalib.operators.catalog import parse_part

C = 6


def test_defaults_are_extent_8_and_the_excitation_of_se(normal, make):
    x = normal(2, 32, 16, 16)
    explicit = make(GatherExcite, 32, 16, "mlp", extent=8)
    torch.testing.assert_close(make(GatherExcite, 32)(x), explicit(x))


@pytest.mark.parametrize("extent", [2, 4, 8])
def test_a_chain_sees_what_the_papers_pooling_of_its_extent_sees(make, extent):
    """2 extent - 1 rows around every extent-th row, as a window of that side with that stride does."""
    module = make(GatherExcite, 1, 1, "none", extent=extent)
    for part in module.gather:  # so that no ReLU hides a row
        if isinstance(part, nn.Conv2d):
            nn.init.ones_(part.weight)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.zeros_(part.running_mean)
            nn.init.ones_(part.bias)
    x = torch.full((1, 1, 48, 48), 0.1, dtype=torch.float64, requires_grad=True)
    gathered = module.gather(x)
    assert gathered.shape[-1] == 48 // extent
    gathered[0, 0, 3, 3].backward()
    seen = x.grad[0, 0].any(1).nonzero().flatten().tolist()
    assert seen == list(range(3 * extent - (extent - 1), 3 * extent + extent))


@pytest.mark.parametrize("excitation", ["mlp", "ab", "none"])
@pytest.mark.parametrize(
    ("gather", "convolutions", "weights", "macs", "points"),
    [
        ({"extent": 2}, 1, 9, 9 * 7**2, 7**2),
        ({"extent": 4}, 2, 9 * 2, 9 * (7**2 + 4**2), 4**2),
        ({}, 3, 9 * 3, 9 * (7**2 + 4**2 + 2**2), 2**2),
        ({"size": 14}, 1, 14**2, 14**2, 1),
    ],
)
def test_costs_in_closed_form(count, excitation, gather, convolutions, weights, macs, points):
    """48 channels of 14x14; weights and multiply-accumulates of a gather are for each channel."""
    per_point, rest = {"mlp": (2 * 48 * 3, 48 + 3), "ab": (48, 2 * 48), "none": (0, 0)}[excitation]
    expected = (48 * macs + per_point * points, 48 * (weights + 2 * convolutions) + per_point + rest)
    assert count(lambda: GatherExcite(48, 16, excitation, **gather), 48, 14, 14) == expected


def over_stages(convolution="vanilla", excitation="mlp"):
    """ResNet-50 with a gather over the whole map in every block."""
    sizes = {"layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7}
    blocks = Architecture.of("resnet50", "vanilla").blocks
    choices = {
        name: f"{convolution}+ge(excitation={excitation}, size={sizes[name.split('.')[0]]})"
        for name in blocks
    }
    return Architecture.of("resnet50", {name: BlockChoice.parse(text) for name, text in choices.items()})


def test_ge_scnet_50_has_the_parameters_printed():
    """Table 3 of SCNet (CVPR 2020), 31.1M, is GE-theta: with squeeze-and-excitation's layers it is 33.6M."""
    assert round(over_stages("scconv", "none").cost().params / 1e6, 1) == 31.1
    assert round(over_stages("scconv", "mlp").cost().params / 1e6, 1) == 33.6


def test_a_whole_resnet_50_costs_its_closed_form():
    """C H W weights and as many multiply-accumulates a block, the norm's 2 C, and what SE adds."""
    points = 3 * 256 * 56**2 + 4 * 512 * 28**2 + 6 * 1024 * 14**2 + 3 * 2048 * 7**2
    channels = 3 * 256 + 4 * 512 + 6 * 1024 + 3 * 2048
    se, ge = Architecture.of("resnet50", "se").cost(), over_stages().cost()
    assert (ge.macs - se.macs, ge.params - se.params) == (points, points + 2 * channels)


# Table 8 of Accuracy Booster (WACV 2020): ResNeXt-101 32x4d, of 44,177,704 parameters without. It counts C a
# gather, where the norm of the authors' released network has 2 C. It prints 57.92M and 53.23M, the latter cut
# off as its table 2 cuts off 45.677M.
@pytest.mark.parametrize(("excitation", "millions"), [("mlp", 57.919), ("ab", 53.239)])
def test_parameters_in_resnext_101_are_those_printed_but_for_the_norm(excitation, millions):
    stages = [(256, 56, 3), (512, 28, 4), (1024, 14, 23), (2048, 7, 3)]
    with torch.device("meta"):
        operators = [(GatherExcite(c, 16, excitation, size=size), blocks) for c, size, blocks in stages]
    added = sum(blocks * p.numel() for module, blocks in operators for p in module.parameters())
    channels = sum(c * blocks for c, _, blocks in stages)
    assert round((44_177_704 + added - channels) / 1e6, 3) == millions


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (7, 9)])
def test_clamp_averages_or_repeats_a_map_of_another_size(normal, make, size):
    module, plain = (make(GatherExcite, C, 2, size=4, clamp=clamp) for clamp in (True, False))
    fits, x = normal(2, C, 4, 4), normal(2, C, *size)
    assert torch.equal(module(fits), plain(fits))
    rows, columns = ([slice(i * n // 4, -(-(i + 1) * n // 4)) for i in range(4)] for n in size)
    cells = torch.stack([x[:, :, r, c].mean((2, 3)) for r in rows for c in columns], dim=-1)
    resized = cells.unflatten(-1, (4, 4))
    torch.testing.assert_close(module(x) / x, (plain(resized) / resized)[:, :, :1, :1].expand_as(x))


@pytest.mark.parametrize("size", [(8, 8), (4, 5), (2, 2)])
def test_refuses_a_map_that_is_not_of_its_size(normal, make, size):
    module = make(GatherExcite, C, size=4)
    height, width = size
    with pytest.raises(ValueError, match=f"^ge: size = 4 is not the side of a {height}x{width} map$"):
        module(normal(2, C, height, width))


@pytest.mark.parametrize("excitation", ["mlp", "ab", "none"])
@pytest.mark.parametrize(("gather", "side", "enough"), [({}, 8, 9), ({"extent": 2}, 2, 3)])
def test_training_needs_two_values_a_channel(normal, make, excitation, gather, side, enough):
    module = make(GatherExcite, C, 2, excitation, **gather).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"^ge: training needs a batch of at least 2 images"):
        module(normal(1, C, side, side))
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    assert module(normal(2, C, side, side)).isfinite().all()
    assert module(normal(1, C, side, enough)).isfinite().all()
    assert module.eval()(normal(1, C, side, side)).isfinite().all()


@pytest.mark.parametrize("clamp", [False, True])
def test_a_gather_over_the_whole_map_needs_two_images(normal, make, clamp):
    module = make(GatherExcite, C, size=4, clamp=clamp).train()
    with pytest.raises(ValueError, match=r"^ge: training needs a batch of at least 2 images"):
        module(normal(1, C, 4, 4))
    assert module(normal(2, C, 4, 4)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels = 0 is not at least 1"),
        ({"r": 0}, "r = 0 is not at least 1"),
        ({"excitation": "se"}, "excitation = 'se' is not mlp, ab or none"),
        ({"extent": 3}, "extent = 3 is not 2, 4 or 8"),
        ({"extent": 0}, "extent = 0 is not 2, 4 or 8"),
        ({"size": 0}, "size = 0 is not at least 1"),
        ({"extent": 8, "size": 56}, "extent = 8 is not for a gather of size = 56"),
    ],
)
def test_names_the_argument_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"^ge: {message}"):
        GatherExcite(**{"channels": C, **arguments})


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("ge(extent=8, r=16, excitation=mlp)", "ge"),
        ("ge(extent=4, r=8)", "ge(extent=4, r=8)"),
        ("ge(r=8, excitation=ab)", "ge(excitation=ab)"),
        ("ge(size=56, excitation=none, r=2)", "ge(excitation=none, size=56)"),
    ],
)
def test_what_builds_the_same_operator_is_the_same_choice(written, canonical):
    assert str(parse_part(written, "recalibration")) == canonical
    assert parse_part(written, "recalibration") == parse_part(canonical, "recalibration")


def test_different_choices_build_different_operators():
    choices = ["ge", "ge(r=8)", "ge(extent=4)", "ge(excitation=ab)", "ge(excitation=none)", "ge(size=8)"]
    built = [build_recalibration(parse_part(text, "recalibration"), 32) for text in choices]
    assert len({tuple(p.shape for p in module.parameters()) for module in built}) == len(choices)


def test_a_proxy_gathers_over_its_smaller_maps(normal):
    part = parse_part("ge(size=56)", "recalibration")
    x = normal(2, C, 8, 8, dtype=torch.float32)
    assert build_recalibration(part, C, clamp=True)(x).shape == x.shape
    with pytest.raises(ValueError, match="ge: size = 56 is not the side of a 8x8 map"):
        build_recalibration(part, C)(x)
