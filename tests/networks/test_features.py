"""Feature maps of networks, and training of torchvision's detectors on them."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from examples import FEW_BACKBONES, soaked
from torch import nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from nas_recalib.architecture import Architecture, build
from nas_recalib.networks import FeatureMaps, backbone_names, freeze_norms, get_backbone, pyramid
from nas_recalib.operators import BlockChoice

BOTTLENECKS = (256, 512, 1024, 2048)
CHANNELS = {
    **dict.fromkeys(["resnet18", "resnet34"], (64, 128, 256, 512)),
    **dict.fromkeys(["resnet50", "resnet101", "resnet152", "resnet50-v1", "resnet152-v1"], BOTTLENECKS),
    **dict.fromkeys(["resnext50-32x4d", "resnext101-32x4d", "resnext50-2x40d"], BOTTLENECKS),
    "wrn18-2": (128, 256, 512, 1024),
    **dict.fromkeys(["resnet20", "resnet32", "resnet56", "resnet110"], (16, 32, 64)),
    **dict.fromkeys(["resnext29-8x64d", "resnext29-16x64d"], (256, 512, 1024)),
    "resnet164": (64, 128, 256),
    "wrn22-10": (160, 320, 640),
    "densenet100": (24 + 16 * 12, 108 + 16 * 12, 150 + 16 * 12),
    "densenet190": (80 + 31 * 40, 660 + 31 * 40, 950 + 31 * 40),
    "shufflenet-g3": (24, 240, 480, 960),
}
FAST = {
    "min_size": 128, "max_size": 128, "rpn_pre_nms_top_n_train": 50, "rpn_post_nms_top_n_train": 20,
    "box_batch_size_per_image": 8, "rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 5,
}  # fmt: skip


def mixed(name):
    texts = ("psconv+ab", "scconv+msar", "se", "psconv(pattern=1-2)+ab-plus", "vanilla")
    blocks = get_backbone(name).blocks()
    return Architecture.of(name, {block: texts[i % 5] for i, block in enumerate(blocks)})


def shallow(make, name, choice="vanilla"):
    """One block a stage."""
    shape = get_backbone(name)
    shape = replace(shape, depths=(1,) * len(shape.depths))
    choices = dict.fromkeys(shape.blocks(), BlockChoice.parse(choice))
    return make(shape.build, choices, 10, 3, dtype=torch.float32)


def classifier(network):
    return network.classifier if hasattr(network, "classifier") else network.fc


def stages(name):
    """The modules whose outputs a classifier's pass shows as the maps, all but the last."""
    if name.startswith("densenet"):
        return ["features.denseblock1", "features.denseblock2"]
    if name.startswith("shufflenet"):
        return ["maxpool", "stage2", "stage3"]
    return ["layer1", "layer2", "layer3"][: len(CHANNELS[name]) - 1]


def test_every_backbone_is_here():
    assert set(CHANNELS) == set(backbone_names())


@pytest.mark.parametrize("name", soaked(CHANNELS, (*FEW_BACKBONES, "densenet100", "wrn18-2")))
def test_every_backbone_has_maps_at_its_strides(name):
    with torch.device("meta"):
        network = get_backbone(name).build(Architecture.of(name, "vanilla").blocks, 10, 3)
        features = FeatureMaps(network)
        maps = features(torch.empty(2, 3, 64, 96))
    strides = [4, 8, 16, 32] if len(CHANNELS[name]) == 4 else [1, 2, 4]
    assert (features.strides, features.channels) == (strides, list(CHANNELS[name]))
    expected = [(2, c, 64 // s, 96 // s) for c, s in zip(CHANNELS[name], strides, strict=True)]
    assert [tuple(m.shape) for m in maps.values()] == expected
    assert list(maps) == [str(i) for i in range(len(strides))]


@pytest.mark.parametrize("name", soaked(CHANNELS, (*FEW_BACKBONES, "densenet100", "wrn18-2")))
def test_maps_are_those_that_the_classifiers_pass_sees(normal, make, name):
    """The last is what is averaged and classified."""
    network = shallow(make, name, "ab")
    seen = []
    for stage in stages(name):
        hook = network.get_submodule(stage).register_forward_hook
        hook(lambda _, inputs, output: seen.append(output.clone()))
    x = normal(2, 3, 32, 32, dtype=torch.float32)
    with torch.no_grad():
        logits = network(x)
        *maps, last = FeatureMaps(network)(x).values()
        torch.testing.assert_close(maps, seen[: len(maps)])
        torch.testing.assert_close(classifier(network)(last.mean((2, 3))), logits)
        assert (last >= 0).all()


@pytest.mark.parametrize("name", ["resnet18", "resnet164", "densenet100", "shufflenet-g3"])
def test_weights_and_their_names_are_the_networks(make, name):
    network, other = shallow(make, name, "scconv+msar"), shallow(make, name, "scconv+msar")
    features = FeatureMaps(network)
    own = dict(network.named_parameters())
    assert all(parameter is own[key] for key, parameter in features.named_parameters())
    head = {f"{key}.{part}" for key in ("fc", "classifier") for part in ("weight", "bias")}
    assert own.keys() - dict(features.named_parameters()).keys() == head & own.keys()

    trained = {key: tensor + 1 for key, tensor in other.state_dict().items()}
    missing, unexpected = features.load_state_dict(trained, strict=False)
    assert (missing, set(unexpected)) == ([], head & own.keys())
    assert all(torch.equal(tensor, trained[key]) for key, tensor in features.state_dict().items())


@pytest.mark.parametrize(
    ("name", "strides", "kept", "dropped"),
    [("resnet18", (16, 8), "layer3", "layer4"), ("densenet100", [2], "features.denseblock2", "transition2")],
)
def test_some_strides_need_some_of_the_network(normal, make, name, strides, kept, dropped):
    network = shallow(make, name)
    some, every = FeatureMaps(network, strides), FeatureMaps(network)
    x = normal(1, 3, 32, 32, dtype=torch.float32)
    expected = [m for m, stride in zip(every(x).values(), every.strides, strict=True) if stride in strides]
    maps = some(x)
    assert list(maps) == [str(i) for i in range(len(strides))]
    torch.testing.assert_close(list(maps.values()), expected)
    names = dict(some.named_modules())
    assert kept in names
    assert not any(dropped in key for key in names)
    assert (some.strides, some.channels) == (sorted(strides), [m.shape[1] for m in expected])


@pytest.mark.parametrize(
    ("name", "strides", "message"),
    [
        ("resnet18", (2, 4), r"strides = \(2, 4\) are not all among 4, 8, 16, 32$"),
        ("resnet20", (4, 8, 16, 32), r"strides = \(4, 8, 16, 32\) are not all among 1, 2, 4$"),
        ("resnet20", (), r"strides = \(\) are not all among 1, 2, 4$"),
    ],
)
def test_refuses_strides_that_a_network_does_not_have(make, name, strides, message):
    with pytest.raises(ValueError, match=f"^feature maps: {message}"):
        FeatureMaps(shallow(make, name), strides)


def test_refuses_other_networks():
    with pytest.raises(ValueError, match=r"^feature maps: Conv2d has no attribute 'maps'"):
        pyramid(nn.Conv2d(3, 8, 3))


@pytest.mark.soak
def test_maps_compile_as_one_graph(normal, make):
    features = FeatureMaps(shallow(make, "densenet100", "psconv+ab"))
    torch.compiler.reset()
    x = normal(1, 3, 32, 32, dtype=torch.float32)
    compiled = torch.compile(features, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), features(x))


def test_all_vanilla_with_a_pyramid_is_torchvisions(normal, make):
    theirs = make(partial(resnet_fpn_backbone, backbone_name="resnet18", weights=None), dtype=torch.float32)
    for norm in (m for m in theirs.modules() if isinstance(m, FrozenBatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.5, 2)
    ours = pyramid(freeze_norms(build(Architecture.of("resnet18", "vanilla"), seed=1)))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert ours.out_channels == theirs.out_channels
    x = normal(1, 3, 96, 64, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["resnet20", "shufflenet-g3"])
def test_a_pyramid_stands_on_every_network(normal, make, name):
    backbone = pyramid(shallow(make, name), 16)
    maps = backbone(normal(1, 3, 64, 64, dtype=torch.float32))
    sides = [64, 32, 16, 8] if name == "resnet20" else [16, 8, 4, 2, 1]
    assert list(maps) == [*(str(i) for i in range(len(sides) - 1)), "pool"]
    assert [tuple(m.shape) for m in maps.values()] == [(1, 16, side, side) for side in sides]


@pytest.fixture
def frozen(make):
    """A trained network, a copy whose norms are frozen, and the trained weights."""
    network, other = (make(build, mixed("resnet50"), seed=seed, dtype=torch.float32) for seed in (0, 1))
    other.load_state_dict(network.state_dict())
    return network, freeze_norms(other), network.state_dict()


def test_frozen_norms_stay_as_they_were_trained(normal, frozen):
    network, other, trained = frozen
    assert not any(isinstance(m, nn.BatchNorm2d) for m in other.modules())
    x = normal(1, 3, 128, 128, dtype=torch.float32)
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(other.train()(x), expected, rtol=1e-3, atol=1e-3)
    other(x).logsumexp(1).sum().backward()
    torch.optim.SGD(other.parameters(), 1e-3).step()
    left = {key for key, tensor in other.state_dict().items() if torch.equal(tensor, trained[key])}
    buffers = {key for key in trained if key.endswith(("running_mean", "running_var"))}
    norms = {key.rpartition(".")[0] for key in buffers}
    assert left >= buffers | {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")}
    assert "layer1.0.conv2.weight" not in left
    assert "layer1.0.recalibration.conv.weight" not in left


def test_state_dicts_fit_before_and_after_freezing(frozen):
    network, other, trained = frozen
    other.load_state_dict(trained, strict=True)
    network.load_state_dict(other.state_dict(), strict=True)
    lost = trained.keys() - other.state_dict().keys()
    assert all(key.endswith("num_batches_tracked") for key in lost)


def test_freezing_keeps_what_a_norm_is(normal):
    plain = nn.BatchNorm2d(4, eps=0.1, affine=False).double()
    nn.init.uniform_(plain.running_var, 0.5, 2)
    without_statistics = nn.BatchNorm2d(4, track_running_stats=False)
    x = normal(2, 4, 3, 3)
    expected = plain.eval()(x)
    module = nn.Sequential(plain, without_statistics.double())
    assert freeze_norms(module) is module
    torch.testing.assert_close(module[0](x), expected)
    assert module[1] is without_statistics


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(
    ("construct", "own"),
    soaked(
        [(FasterRCNN, set()), (MaskRCNN, {"loss_mask"}), (KeypointRCNN, {"loss_keypoint"})],
        [(FasterRCNN, set())],
    ),
)
def test_torchvisions_detectors_train(normal, construct, own, images):
    """A step by a batch of one or two, in float32; then boxes come out."""
    torch.manual_seed(0)
    network = freeze_norms(build(mixed("resnet50")))
    detector = construct(pyramid(network, 32), num_classes=2, **FAST).train()
    pictures = [normal(3, 96, 128, dtype=torch.float32).sigmoid() for _ in range(images)]
    target = {
        "boxes": torch.tensor([[10.0, 10, 60, 70], [30, 20, 100, 90]]),
        "labels": torch.ones(2, dtype=torch.int64),
        "masks": torch.ones(2, 96, 128, dtype=torch.uint8),
        "keypoints": torch.full((2, 17, 3), 50.0),
    }
    losses = detector(pictures, [target] * images)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"} | own
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    body = {key: p for key, p in network.named_parameters() if not key.startswith("fc.")}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in body.values())
    learning = ["conv1.weight", "layer1.0.conv2.weight", "layer1.0.recalibration.conv.weight"]
    learning += [f"layer1.1.conv2.{k}.weight" for k in ("k1", "k2.0", "k3.0", "k4")]
    learning += ["layer1.1.recalibration.weights.2.3.weight", "layer1.2.recalibration.squeeze.weight"]
    before = {key: body[key].detach().clone() for key in learning}
    torch.optim.SGD(detector.parameters(), 1e-2).step()
    assert all(not torch.equal(body[key], before[key]) for key in learning)
    with torch.no_grad():
        found = detector.eval()(pictures)
    assert len(found) == images
    assert all(f["boxes"].isfinite().all() and f["boxes"].shape[1] == 4 for f in found)


def test_norms_that_are_not_frozen_need_two_images(normal):
    backbone = pyramid(build(Architecture.of("resnet18", "ab"))).train()
    x = normal(2, 3, 64, 64, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"^ab: training needs a batch of at least 2 images"):
        backbone(x[:1])
    assert all(m.isfinite().all() for m in backbone(x).values())


def test_a_pyramid_may_have_poly_scale_convolutions():
    """PSConv, footnote 4: it replaces the 3x3 convolutions of the pyramid, too, in their places."""
    network = build(Architecture.of("resnet18", "psconv"))
    plain, poly = pyramid(network, 16), pyramid(network, 16, convolution="psconv")
    convolutions = [block[0].operator for block in poly.fpn.layer_blocks]
    assert [type(c).__name__ for c in convolutions] == ["PSConv2d"] * 4
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in poly.parameters())
    x = torch.rand(1, 3, 64, 64)
    maps = poly(x)
    assert {name: m.shape for name, m in maps.items()} == {name: m.shape for name, m in plain(x).items()}
    sum(m.sum() for m in maps.values()).backward()
    assert all(block[0].bias.grad is not None for block in poly.fpn.layer_blocks)
    with pytest.raises(ValueError, match="unknown convolution 'ab'; allowed: vanilla"):
        pyramid(network, convolution="ab")
