"""ResNets of every kind: torchvision's checkpoints fit, parameters and MACs are those that papers print."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torchvision
from examples import soaked
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck
from torchvision.models.resnet import ResNet as TorchvisionResNet

from nas_recalib.architecture import Architecture, build
from nas_recalib.networks import backbone_names, get_backbone
from nas_recalib.operators import AccuracyBooster, BlockChoice, PSConv2d
from nas_recalib.space import SearchSpace

TORCHVISION = {
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet50": torchvision.models.resnet50,
    "resnet101": torchvision.models.resnet101,
    "resnet152": torchvision.models.resnet152,
    "resnext50-32x4d": torchvision.models.resnext50_32x4d,
    "resnext101-32x4d": partial(TorchvisionResNet, Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4),
    "resnext50-2x40d": partial(TorchvisionResNet, Bottleneck, [3, 4, 6, 3], groups=2, width_per_group=40),
}
CIFAR = ["resnet20", "resnet32", "resnet56", "resnet110"]
RESNEXT_29 = ["resnext29-8x64d", "resnext29-16x64d"]
NAMES = [*TORCHVISION, "wrn18-2", *CIFAR, *RESNEXT_29]
CHOICES = [
    "vanilla", "scconv", "scconv(r=2)", "scconv(pooling=max, upsample=bilinear)", "psconv",
    "psconv(pattern=1-2)", "psconv(vary=in)", "msar", "msar(strategy=sliding, share=yes)", "ab",
    "ab(groups=4)", "ab-plus", "se",
]  # fmt: skip


def cost(backbone, choice="vanilla"):
    return Architecture.of(backbone, choice).cost()


def test_an_unknown_name_is_refused():
    assert set(NAMES) < set(backbone_names())
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet51'; allowed: resnet18, .*resnet110"):
        get_backbone("resnet51")


@pytest.mark.parametrize("name", soaked(TORCHVISION, ("resnet18", "resnet50", "resnext50-32x4d")))
def test_all_vanilla_is_torchvisions(normal, make, name):
    theirs = make(TORCHVISION[name], dtype=torch.float32)
    with torch.device("meta"):
        ours = get_backbone(name).build(Architecture.of(name, "vanilla").blocks, 1000, 3).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    x = normal(2, 3, 64, 64, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.isfinite().all()
        torch.testing.assert_close(ours(x), expected)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_resnets_are_as_deep_as_their_name(make, name):
    network = make(build, Architecture.of(name, "vanilla"), dtype=torch.float32)
    kernels = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert f"resnet{len(kernels) + 1}" == name
    assert (network.fc.in_features, network.fc.out_features) == (64, 10)


@pytest.mark.parametrize(("name", "groups", "weights"), [(RESNEXT_29[0], 8, 34.4), (RESNEXT_29[1], 16, 68.1)])
def test_resnext_29_has_the_layers_and_weights_of_its_paper(name, groups, weights):
    """Xie et al. (CVPR 2017), section 5.3 and table 7, whose parameters are those of layers without norms."""
    with torch.device("meta"):
        network = get_backbone(name).build(Architecture.of(name, "vanilla").blocks, 10, 3)
    main = [m for key, m in network.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in key]
    assert len(main) + 1 == 29
    assert (network.conv1.stride, type(network.maxpool)) == ((1, 1), nn.Identity)
    assert [(m.out_channels, m.groups) for m in main if m.kernel_size == (3, 3)] == [
        (64, 1), *[(64 * groups * 2**stage, groups) for stage in range(3) for _ in range(3)]
    ]  # fmt: skip
    assert [network.get_submodule(f"layer{i}")[-1].bn3.num_features for i in (1, 2, 3)] == [256, 512, 1024]
    counted = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    assert round(counted / 1e6, 1) == weights


# Multiply-accumulates as printed: PSConv (ECCV 2020), table 2; MS-SAR (ECCV 2018), tables 2 and 5; Accuracy
# Booster (WACV 2020), table 4. Those of SCNet (CVPR 2020), table 1, are its authors' for the network they
# released, with a digit more; its ResNeXt-101's are the table's.
@pytest.mark.parametrize(
    ("name", "choice", "unit", "digits", "printed"),
    [
        ("resnet50", "vanilla", 1e9, 3, 4.089),
        ("resnet50", "psconv", 1e9, 3, 4.089),
        ("resnet50", "scconv", 1e9, 2, 3.93),
        ("resnet101", "scconv", 1e9, 2, 7.17),
        ("resnet101", "vanilla", 1e9, 1, 7.8),
        ("resnet18", "vanilla", 1e9, 2, 1.81),
        ("resnet34", "vanilla", 1e9, 2, 3.66),
        ("resnet20", "vanilla", 1e6, 1, 40.8),
        ("resnet32", "vanilla", 1e6, 1, 69.1),
        ("resnet56", "vanilla", 1e6, 1, 125.7),
        ("wrn18-2", "vanilla", 1e9, 3, 6.696),
        ("wrn18-2", "ab", 1e9, 3, 6.696),
        ("wrn18-2", "se", 1e9, 3, 6.696),
        ("wrn18-2", "ab-plus", 1e9, 3, 6.698),
        ("resnext101-32x4d", "vanilla", 1e9, 1, 8.0),
    ],
)
def test_macs_are_those_printed(name, choice, unit, digits, printed):
    assert round(cost(name, choice).macs / unit, digits) == printed


# Parameters as printed in table 2 of PSConv, of MS-SAR and of Accuracy Booster (WACV 2020), table 1 of SCNet.
@pytest.mark.parametrize(
    ("name", "choice", "digits", "printed"),
    [
        ("resnet50", "vanilla", 3, 25.557),
        ("resnet50", "psconv", 3, 25.557),
        ("resnet50", "scconv", 2, 25.56),
        ("resnet101", "scconv", 2, 44.57),
        ("resnet50", "se", 2, 28.09),
        ("resnet101", "se", 1, 49.3),
        ("resnet50", "scconv+se", 1, 28.1),
        ("resnet101", "scconv+se", 1, 49.3),
        ("resnet20", "vanilla", 2, 0.27),
        ("wrn18-2", "vanilla", 2, 45.62),
        ("wrn18-2", "se", 2, 45.97),
        ("resnext101-32x4d", "vanilla", 2, 44.18),
        ("resnext101-32x4d", "se", 2, 48.96),
        ("resnext101-32x4d", "scconv", 1, 44.2),
        ("resnext50-32x4d", "vanilla", 1, 25.0),
        ("resnext50-32x4d", "scconv", 1, 25.0),
        ("resnext50-2x40d", "vanilla", 1, 25.4),
    ],
)
def test_parameters_are_those_printed(name, choice, digits, printed):
    assert round(cost(name, choice).params / 1e6, digits) == printed


def msar_choices(name):
    """Return the forms of MS-SAR in the backbone's own space beside vanilla convolutions."""
    positions = SearchSpace.load(name).positions
    return {choice for p in positions for choice in p.choices if str(choice).startswith("vanilla+msar")}


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("resnet20", 0.2857, 40.9),
        ("resnet32", 0.4889, 69.3),
        ("resnet56", 0.8954, 126.0),
        pytest.param("resnext50-32x4d", 27.6389, None, marks=pytest.mark.soak),
    ],
)
def test_all_msar_of_a_family_has_the_parameters_that_are_printed(name, params, macs):
    """Tables 2 and 5 of MS-SAR print 0.28, 0.48 and 0.89, these cut off, and 27.6."""
    (choice,) = msar_choices(name)
    found = Architecture.of(name, choice).cost()
    assert round(found.params / 1e6, 4) == params
    assert macs in (None, round(found.macs / 1e6, 1))


@pytest.mark.parametrize(
    "name",
    soaked(["resnet18", "resnet20", "resnet50", "resnet101", "resnext50-32x4d"], ["resnet18", "resnet20"]),
)
def test_all_msar_costs_at_most_a_hundredth_of_the_multiply_accumulates(name):
    (choice,) = msar_choices(name)
    assert cost(name).macs < Architecture.of(name, choice).cost().macs <= 1.01 * cost(name).macs


@pytest.mark.parametrize(
    ("name", "choice", "params", "macs"),
    [
        ("resnet50-v1", "vanilla", 25.56, 3.858),
        ("resnet50-v1", "se", 28.09, 3.860),
        ("resnet50-v1", "cbam", 28.09, 3.864),
        ("resnet50-v1", "ab", 25.60, 3.858),
        ("resnet152-v1", "vanilla", 60.19, 11.282),
    ],
)
def test_resnets_with_an_early_stride(name, choice, params, macs):
    """Table 2 of Accuracy Booster; its AB has 25.57M without the norms, its ResNet-152 11.30G."""
    found = Architecture.of(name, choice).cost()
    assert (round(found.params / 1e6, 2), round(found.macs / 1e9, 3)) == (params, macs)


def test_resnet_50_to_the_last_digit():
    assert (cost("resnet50").macs, cost("resnet50").params) == (4_089_184_256, 25_557_032)


@pytest.mark.parametrize(("name", "printed"), [("resnext50-32x4d", 8.5), ("resnext50-2x40d", 8.3)])
def test_resnexts_operations_are_those_that_scnet_prints(name, printed):
    """Table 1, FLOPs: two for a multiply-accumulate, and two for every output of a convolution."""
    outputs = []
    with torch.device("meta"):
        network = get_backbone(name).build(Architecture.of(name, "vanilla").blocks, 1000, 3).eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, inputs, output: outputs.append(output.numel()))
        network(torch.empty(1, 3, 224, 224))
    assert round(2 * (cost(name).macs + sum(outputs)) / 1e9, 1) == printed


def test_ab_plus_adds_what_its_paper_prints():
    """Table 2: 20.1M parameters and 0.020G multiply-accumulates over ResNet-50; AB adds 0.000G."""
    plus = cost("resnet50", "ab-plus") - cost("resnet50")
    weights = 3 * 256**2 + 4 * 512**2 + 6 * 1024**2 + 3 * 2048**2
    assert plus.macs == weights
    assert (round(plus.params / 1e6, 1), round(plus.macs / 1e9, 3)) == (20.1, 0.020)
    assert round((cost("resnet50", "ab") - cost("resnet50")).macs / 1e9, 3) == 0


@pytest.mark.parametrize(
    ("name", "block", "replaced"),
    [
        ("resnet18", "layer2.0", ["conv1", "conv2"]),
        ("resnet50", "layer2.0", ["conv2"]),
        ("resnext29-8x64d", "layer2.0", ["conv2"]),
    ],
)
def test_a_choice_takes_the_3x3_convolutions_of_its_block_alone(name, block, replaced):
    choices = {**Architecture.of(name, "vanilla").blocks, block: BlockChoice.parse("psconv+ab")}
    with torch.device("meta"):
        network = get_backbone(name).build(choices, 10, 3)
    found = [key for key, module in network.named_modules() if isinstance(module, PSConv2d | AccuracyBooster)]
    assert found == [f"{block}.{part}" for part in (*replaced, "recalibration")]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50-32x4d"])
@pytest.mark.parametrize("block", ["layer2.0", "layer2.1"])
def test_recalibration_stands_before_the_sum(normal, make, name, block):
    """With a recalibration of zero, only the shortcut remains."""
    network = make(build, Architecture.of(name, "ab"), dtype=torch.float32)
    module = network.get_submodule(block)
    module.recalibration = type("Zero", (nn.Module,), {"forward": lambda _, x: 0 * x})()
    x = normal(1, module.conv1.in_channels, 8, 8, dtype=torch.float32)
    shortcut = x if module.downsample is None else module.downsample(x)
    torch.testing.assert_close(module(x), shortcut.relu())


@pytest.mark.parametrize("choice", ["vanilla", "psconv", "scconv"])
def test_a_choice_keeps_the_groups_of_its_block(choice):
    """In every group of 4 channels, or of 2 in each half of scconv's."""
    with torch.device("meta"):
        network = get_backbone("resnext50-32x4d").build(
            Architecture.of("resnext50-32x4d", choice).blocks, 10, 3
        )
    weights = [(name, p.shape) for name, p in network.layer1[0].conv2.named_parameters() if p.dim() == 4]
    expected = (64, 2, 3, 3) if choice == "scconv" else (128, 4, 3, 3)
    assert {tuple(shape) for _, shape in weights} == {expected}


@pytest.mark.parametrize(("name", "strides"), [("resnet18", (4, 8, 16, 32)), ("resnet20", (1, 2, 4))])
def test_torchvision_extracts_the_maps_of_every_stage(normal, make, name, strides):
    """Its extractors call children one after the other, in the order they were registered."""
    network = make(build, Architecture.of(name, "ab"), dtype=torch.float32)
    network.bn1.weight.data.neg_()  # where it turns the order of values, a pooling before it is seen
    stages = {f"layer{i}": str(i) for i in range(1, len(strides) + 1)}
    seen = []
    for stage in stages:
        network.get_submodule(stage).register_forward_hook(lambda _, inputs, output: seen.append(output))
    x = normal(1, 3, 64, 64, dtype=torch.float32)
    network(x)
    expected = list(seen)
    maps = list(IntermediateLayerGetter(network, stages)(x).values())
    assert [64 // m.shape[-1] for m in maps] == list(strides)
    for ours, theirs in zip(expected, maps, strict=True):
        torch.testing.assert_close(theirs, ours)


@pytest.mark.parametrize(("name", "smaller"), [("resnet18", 4), ("resnet20", 1)])
def test_stems(normal, make, name, smaller):
    network = make(build, Architecture.of(name, "vanilla"), in_channels=4, num_classes=7, dtype=torch.float32)
    sizes = []
    network.layer1.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    assert network(normal(2, 4, 64, 64, dtype=torch.float32)).shape == (2, 7)
    assert sizes == [64 // smaller]


@pytest.mark.parametrize("name", soaked(NAMES, ("resnet18", "resnet50", "resnet20", "resnext29-8x64d")))
def test_a_proxy_network_keeps_blocks_and_parameter_names(name):
    backbone = get_backbone(name)
    scaled = backbone.scaled(0.25)
    assert list(scaled.blocks()) == list(backbone.blocks())
    choices = Architecture.of(name, "scconv+msar").blocks
    with torch.device("meta"):
        full, small = (b.build(choices, 10, 3).state_dict() for b in (backbone, scaled))
    assert list(small) == list(full)
    assert sum(p.numel() for p in small.values()) < sum(p.numel() for p in full.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_proxy_network_of_width_one_has_the_channels_of_the_full_network(name):
    backbone = get_backbone(name)
    assert backbone.scaled(1) == replace(backbone, stem="small", clamp=True)


@pytest.mark.parametrize("width", [0.01, 0.1, 0.125, 0.3, 0.5, 0.7, 1.5])
def test_a_proxy_networks_groups_are_as_wide_as_the_full_networks(width):
    for name in NAMES:
        full, scaled = get_backbone(name), get_backbone(name).scaled(width)
        assert all(c % 8 == 0 for c in (*scaled.channels, *scaled.outputs, scaled.stem_channels))
        if full.groups > 1:
            assert [c / scaled.groups for c in scaled.channels] == [c / full.groups for c in full.channels]
            assert abs(scaled.groups - full.groups * width) <= 1 or scaled.groups <= 2


@pytest.mark.parametrize(
    ("name", "choice"),
    soaked(
        [(n, choice) for n in ("resnet20", "resnet18", "resnet50", "resnext50-32x4d") for choice in CHOICES],
        [
            *(("resnet20", choice) for choice in CHOICES),
            *(("resnext50-32x4d", choice) for choice in ("scconv", "psconv", "msar", "ab")),
        ],
    ),
)
def test_a_proxy_network_trains_on_small_images(normal, make, name, choice):
    scaled = get_backbone(name).scaled(0.125)
    network = make(scaled.build, Architecture.of(name, choice).blocks, 10, 3, dtype=torch.float32).train()
    for size in (8, 16, 32):
        network.zero_grad()
        network(normal(2, 3, size, size, dtype=torch.float32)).logsumexp(1).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_whole_network_compiles_as_one_graph(normal, make):
    names = Architecture.of("resnet20", "vanilla").blocks
    mixed = dict(zip(names, ("psconv+ab", "scconv+msar", "se"), strict=False))
    architecture = Architecture.of("resnet20", {**names, **mixed})
    network = make(build, architecture, dtype=torch.float32)
    torch.compiler.reset()
    x = normal(2, 3, 32, 32, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))
