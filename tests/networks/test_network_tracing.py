"""Networks with every operator pass torch.fx, torch.jit.trace and torch.export, also without a classifier."""

import warnings
from dataclasses import replace
from itertools import cycle, islice

import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from nas_recalib import Architecture, build
from nas_recalib.networks import FeatureMaps, get_backbone
from nas_recalib.operators import BlockChoice

# Every operator of the spaces that come with the package, and the others.
CHOICES = [
    "scconv+msar", "psconv+ab", "psconv(pattern=1-2)+ab-plus", "scconv(r=2)+se", "psconv(pattern=1-2-1-1)+ge",
    "psconv-learned+ab-design(design=O)", "vanilla+msar(strategy=sliding)",
]  # fmt: skip
DEPTHS = {"resnet20": (3, 2, 2), "resnet164": (2, 2, 3), "shufflenet-g3": (2, 2, 3), "densenet100": (3, 3, 3)}


ELSEWHERE = {
    "densenet100": [*CHOICES, "scconv+msar-multi"],
    "shufflenet-g3": [choice for choice in CHOICES if "learned" not in choice],  # which fits no such groups
}


def network(name, num_classes=10, depths=None):
    shape = replace(get_backbone(name).scaled(0.25), depths=depths or DEPTHS[name])
    choices = ELSEWHERE.get(name, CHOICES)
    blocks = dict(zip(shape.blocks(), islice(cycle(choices), len(shape.blocks())), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = shape.build({key: BlockChoice.parse(c) for key, c in blocks.items()}, num_classes, 3)
        for norm in (m for m in built.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return built.double()


@pytest.mark.parametrize("name", DEPTHS)
def test_torchvision_extracts_features(normal, name):
    whole = network(name)
    maps = FeatureMaps(whole)
    nodes = {m.module: str(index) for index, m in enumerate(whole.maps)}
    extractor = create_feature_extractor(whole, nodes)
    for training in (True, False):
        whole.train(training)
        maps.train(training)
        extractor.train(training)
        for images, height, width in ((2, 24, 24), (3, 17, 30)):
            x = normal(images, 3, height, width)
            expected, got = maps(x), extractor(x)
            assert got.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(got[key], value, rtol=0, atol=0)
    sum(y.sum() for y in got.values()).backward()
    assert all(p.grad is not None for p in maps.parameters())


def test_extracted_features_can_be_those_of_an_operator(normal):
    whole = network("resnet20").eval()
    extractor = create_feature_extractor(whole, ["layer1.0.conv1", "layer2.1.recalibration"])
    x, seen = normal(2, 3, 16, 16), {}
    for key in ("layer1.0.conv1", "layer2.1.recalibration"):
        whole.get_submodule(key).register_forward_hook(lambda m, i, y, key=key: seen.update({key: y}))
    whole(x)
    torch.testing.assert_close(extractor(x), seen, rtol=0, atol=0)


def test_an_extractor_of_a_densenet_still_refuses_small_images(normal):
    extractor = create_feature_extractor(network("densenet100"), ["features.denseblock1"])
    with pytest.raises(ValueError, match="densenet100: an image of 3x3 pixels is smaller than 4x4"):
        extractor(normal(2, 3, 3, 3))


@pytest.mark.parametrize(
    ("name", "depths", "gradients"),
    [
        ("resnet20", (1, 1, 1), True),
        *(
            pytest.param(name, None, grad, marks=pytest.mark.soak)
            for name in DEPTHS
            for grad in (True, False)
        ),
    ],
)
def test_jit_traces_for_other_images_than_it_saw(normal, name, depths, gradients):
    whole = network(name, depths=depths).eval()
    with torch.set_grad_enabled(gradients), warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(whole, (normal(2, 3, 32, 32),))
    for x in (normal(3, 3, 32, 32), normal(1, 3, 33, 42)):
        torch.testing.assert_close(traced(x), whole(x))


@pytest.mark.parametrize("name", DEPTHS)
def test_no_classes_leave_the_features(normal, name):
    headless, whole = network(name, num_classes=0).eval(), network(name).eval()
    classifier = whole.classifier if name == "densenet100" else whole.fc
    assert set(whole.state_dict()) - set(headless.state_dict()) == {
        key for key in whole.state_dict() if key.startswith(("classifier.", "fc."))
    }
    headless.load_state_dict(whole.state_dict(), strict=False)
    x = normal(2, 3, 16, 16)
    features = headless(x)
    assert features.shape == (2, classifier.in_features)
    torch.testing.assert_close(classifier(features), whole(x))
    with pytest.raises(ValueError, match="num_classes: -1 is not at least 0"):
        network(name, num_classes=-1)


def test_build_takes_no_classes_and_refuses_less(normal):
    architecture = Architecture.of("resnet20", "scconv+ab")
    assert build(architecture, num_classes=0)(normal(2, 3, 8, 8).float()).shape == (2, 64)
    assert build(architecture).fc.out_features == 10
    with pytest.raises(ValueError, match="num_classes: -3 is not a whole number from 0"):
        build(architecture, num_classes=-3)


@pytest.mark.soak
@pytest.mark.parametrize("name", DEPTHS)
def test_export_takes_images_of_any_number_height_and_width(normal, name):
    whole = network(name).eval()
    dynamic = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(whole, (normal(2, 3, 72, 72),), dynamic_shapes=dynamic).module()
    for x in (normal(3, 3, 72, 72), normal(4, 3, 81, 93)):
        torch.testing.assert_close(exported(x), whole(x))
