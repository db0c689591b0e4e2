"""The Accuracy Booster's ablations: costs, sizes and refusals; test_references.py has their equations."""

from typing import get_args

import pytest
import torch
from torch import nn

from nas_recalib.operators import AccuracyBooster, BoosterDesign, build_recalibration
from nas_recalib.operators.booster_designs import DesignName
from nas_recalib.operators.catalog import parse_part

C = 6
S = 5
DESIGNS = get_args(DesignName)
SIZED = ("G", "H")
NORMED = ("F", "N", "O", "dw3-bn", "dw9-bn")


def design(letter, **options):
    return BoosterDesign(C, letter, S if letter in SIZED else None, **options)


# Sections 7.2 to 7.4, for C channels of S x S ("adds W x H x C x C parameters" for H); a norm adds 2 C.
# Multiply-accumulates are the weights, times the positions that the first convolution stands at.
@pytest.mark.parametrize(
    ("letter", "spatial", "positions", "pointwise"),
    [
        ("E", 0, 0, 0),
        ("F", 0, 0, 0),
        ("G", S * S * C, 1, 0),
        ("H", S * S * C * C, 1, 0),
        ("I", 3 * 3 * C * C, S * S, 0),
        ("J", 3 * 3 * C, S * S, 0),
        ("K", 7 * 7 * C * C, S * S, 0),
        ("L", 7 * 7 * C, S * S, 0),
        ("M", 7 * 7 * C, S * S, 0),
        ("N", 7 * 7 * C, S * S, C),
        ("O", 7 * 7 * C, S * S, C * C),
        ("dw3-bn", 3 * 3 * C, S * S, 0),
        ("dw9-bn", 9 * 9 * C, S * S, 0),
        ("no-bn", 0, 0, C),
    ],
)
def test_costs_in_closed_form(count, letter, spatial, positions, pointwise):
    norm = 2 * C if letter in NORMED else 0
    expected = (spatial * positions + pointwise, spatial + pointwise + norm)
    assert count(lambda: design(letter), C, S, S) == expected


def test_ab_is_no_bn_and_a_norm(normal, make):
    bare, ab = make(design, "no-bn"), make(AccuracyBooster, C)
    ab.norm = nn.Identity()
    ab.conv.weight.data = bare.pointwise.weight.data
    x = normal(2, C, S, S)
    torch.testing.assert_close(bare(x), ab(x))


@pytest.mark.parametrize("letter", sorted(set(DESIGNS) - set(SIZED)))
def test_takes_maps_of_every_size(normal, make, letter):
    module = make(design, letter)
    for shape in ((2, C, 1, 1), (1, C, 3, 4), (2, C, 16, 9)):
        assert module(normal(*shape)).shape == shape


@pytest.mark.parametrize("letter", SIZED)
def test_a_kernel_of_the_whole_map_takes_maps_of_its_size_alone(normal, make, letter):
    module = make(design, letter)
    for height, width in ((4, 5), (5, 6), (10, 10)):
        with pytest.raises(
            ValueError, match=f"^ab-design: size = 5 is not the side of a {height}x{width} map$"
        ):
            module(normal(2, C, height, width))
    clamped = make(design, letter, clamp=True)
    x = normal(2, C, S, S)
    assert torch.equal(clamped(x), module(x))
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(clamped(doubled), module(x).repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize(("letter", "side"), [("F", 5), ("N", 5), ("O", 5), ("dw3-bn", 1), ("dw9-bn", 1)])
def test_a_norm_needs_two_values_a_channel_in_training(normal, make, letter, side):
    module = make(design, letter).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"^ab-design: training needs a batch of at least 2 images"):
        module(normal(1, C, side, side))
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    assert module(normal(2, C, side, side)).isfinite().all()
    assert module.eval()(normal(1, C, side, side)).isfinite().all()


@pytest.mark.parametrize("letter", sorted(set(DESIGNS) - set(NORMED)))
def test_without_a_norm_one_image_is_enough(normal, make, letter):
    assert make(design, letter).train()(normal(1, C, S, S)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0, "design": "E"}, "channels = 0 is not at least 1"),
        ({"design": "D"}, "design = 'D' is not one of B, E, F, G, .*, O, dw3-bn, dw9-bn, no-bn$"),
        ({"design": "G"}, "size = None is not the side of the map, which design G needs$"),
        ({"design": "H", "size": 0}, "size = 0 is not the side of the map, which design H needs$"),
        ({"design": "E", "size": 8}, "size = 8 is not an argument of design E$"),
        ({"design": "M", "size": 8}, "size = 8 is not an argument of design M$"),
    ],
)
def test_names_the_argument_that_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=f"^ab-design: {message}"):
        BoosterDesign(**{"channels": C, **arguments})


@pytest.mark.parametrize("letter", DESIGNS)
def test_every_design_can_be_written(normal, letter):
    text = f"ab-design(design={letter}, size=32)" if letter in SIZED else f"ab-design(design={letter})"
    part = parse_part(text, "recalibration")
    assert str(part) == text
    x = normal(2, 4, 6, 6, dtype=torch.float32)
    assert build_recalibration(part, 4, clamp=True)(x).shape == x.shape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ab-design", "ab-design needs an argument 'design', one of B, E, F, .*, no-bn$"),
        ("ab-design(design=e)", "ab-design: design=e is not one of B, E, F, "),
        ("ab-design(design=G)", "ab-design: size = None is not the side of the map, which design G needs"),
        ("ab-design(design=J, size=8)", "ab-design: size = 8 is not an argument of design J"),
    ],
)
def test_says_what_is_wrong_with_a_choice(text, message):
    with pytest.raises(ValueError, match=message):
        parse_part(text, "recalibration")
