"""Cases: the shapes that the networks have, every choice where it belongs, and misfits refused at once."""

import pytest
import torch

from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.operators import BlockChoice
from nas_recalib.timing.cases import CHOICES, SETS, SIZES, blocks, layers, list_cases, networks

BACKBONES = {"imagenet": "resnet50", "cifar": "resnet20"}
VANILLA = BlockChoice()


def inputs(sizes):
    """Shape of every module's input in the whole network, (C, H, W), by name."""
    backbone = get_backbone(BACKBONES[sizes])
    shapes = {}
    with torch.device("meta"):
        network = backbone.build(dict.fromkeys(backbone.blocks(), VANILLA), backbone.num_classes, 3)
        for name, module in network.named_modules():
            module.register_forward_pre_hook(
                lambda _, given, name=name: shapes.__setitem__(name, tuple(given[0].shape[1:]))
            )
        network(torch.empty(1, 3, backbone.input_size, backbone.input_size))
    return shapes


@pytest.mark.parametrize("sizes", SIZES)
def test_layers_are_those_of_the_network_3x3_convolutions(sizes):
    there = inputs(sizes)
    stages = range(1, len(layers(sizes)) + 1)
    assert [place.shape for place in layers(sizes)] == [there[f"layer{s}.1.conv2"] for s in stages]


@pytest.mark.parametrize("sizes", SIZES)
def test_blocks_are_those_of_the_network(sizes):
    there = inputs(sizes)
    names = [f"layer{stage}.1" for stage in range(1, len(layers(sizes)) + 1)]
    assert [place.name for place in blocks(sizes)] == [f"{BACKBONES[sizes]} {name}" for name in names]
    assert [place.shape for place in blocks(sizes)] == [there[name] for name in names]


@pytest.mark.parametrize("sizes", SIZES)
def test_a_network_takes_the_choice_at_every_block(sizes):
    (place,) = networks(sizes)
    with torch.device("meta"):
        network = place.build(BlockChoice.parse("psconv+ab"))
    count = len(get_backbone(BACKBONES[sizes]).blocks())
    assert sum(type(module).__name__ == "AccuracyBooster" for module in network.modules()) == count
    assert place.shape == inputs(sizes)[""]


@pytest.mark.parametrize("kind", ["layers", "blocks"])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_place_keeps_its_shape_whatever_it_is_given(kind, sizes):
    for case in list_cases(kind, sizes):
        with torch.device("meta"):
            assert case.place.build(case.choice)(torch.empty(case.input_shape)).shape == case.input_shape


def test_everything_is_timed_by_default():
    cases = list_cases()
    assert {(case.place.set, case.place.sizes) for case in cases} == {(a, b) for a in SETS for b in SIZES}
    for kind in ("blocks", "networks"):
        for sizes in SIZES:
            chosen = {c.choice for c in cases if (c.place.set, c.place.sizes) == (kind, sizes)}
            assert chosen == {BlockChoice.parse(text) for text in CHOICES[sizes]}
    alone = {str(case.choice) for case in cases if case.place.set == "layers"}
    assert alone == {"scconv", "psconv", "psconv(pattern=1-2)"}, "a layer has no recalibration"


@pytest.mark.parametrize(
    ("which", "sizes", "mode", "batches"),
    [
        ("layers", "imagenet", "train", [32]),
        ("blocks", "cifar", "forward", [128]),
        ("networks", "cifar", "forward", [128]),
        ("networks", "imagenet", "forward", [1, 8, 32]),
        ("networks", "imagenet", "train", [32]),
    ],
)
def test_batches(which, sizes, mode, batches):
    sizes_used = [case.batch for case in list_cases(which, sizes, ["psconv"], mode=mode)]
    assert list(dict.fromkeys(sizes_used)) == batches
    cases = list_cases(which, sizes, ["psconv"], mode=mode, batch_size=3)
    assert {case.input_shape[0] for case in cases} == {3}


def test_a_choice_given_twice_is_timed_once():
    assert len(list_cases("blocks", "cifar", ["ab", "vanilla+ab", "ab(groups=1)", "ab-plus"])) == 3 * 2


def test_vanilla_can_be_timed_against_itself():
    assert {case.choice for case in list_cases("layers", "cifar", ["vanilla"])} == {VANILLA}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"which": "layer"}, "set: 'layer' is not one of layers, blocks, networks, all"),
        ({"sizes": "mnist"}, "sizes: 'mnist' is not one of imagenet, cifar, all"),
        ({"mode": "backward"}, "mode: 'backward' is not one of forward, train"),
        ({"choices": ["psconvv"]}, "choice: unknown operator 'psconvv'; allowed: vanilla"),
        ({"which": "layers", "choices": ["psconv", "ab"]}, "choice: vanilla+ab recalibrates a block"),
        (
            {"which": "blocks", "sizes": "cifar", "choices": ["ab(groups=3)"]},
            "choice: blocks, resnet20 layer1.1, batch 128, vanilla+ab(groups=3): ab: groups = 3",
        ),
        (
            {"which": "blocks", "sizes": "imagenet", "choices": ["msar(scales=8)"]},
            "choice: blocks, resnet50 layer4.1, batch 32, vanilla+msar(scales=8): msar: scales",
        ),
        (
            {"which": "blocks", "sizes": "cifar", "choices": ["ab"], "mode": "train", "batch_size": 1},
            "ab: training needs a batch of at least 2 images",
        ),
    ],
)
def test_what_cannot_be_timed_is_refused_before_anything_is(given, named):
    with pytest.raises(InputError) as caught:
        list_cases(**given)
    assert named in str(caught.value)
