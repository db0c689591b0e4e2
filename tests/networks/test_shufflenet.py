"""ShuffleNet against its paper's description, unit by unit, and the complexity that others print for it."""

import pytest
import torch
from torch.nn import functional as F

from nas_recalib.architecture import Architecture, build
from nas_recalib.networks import get_backbone
from nas_recalib.networks.shufflenet import shuffle
from nas_recalib.operators import BlockChoice

NAME = "shufflenet-g3"
CHOICES = ["vanilla", "msar", "msar(strategy=sliding)", "ab(groups=8)", "ab-plus", "se"]
UNITS = {2: (4, 240, 28), 3: (8, 480, 14), 4: (4, 960, 7)}  # stage: units, channels, side of the map


def cost(choice="vanilla"):
    return Architecture.of(NAME, choice).cost()


def unit(make, name, choice):
    return make(get_backbone(NAME).blocks()[name].build, BlockChoice.parse(choice))


def test_blocks_are_named_by_stage():
    names = [f"stage{stage}.{index}" for stage, (units, *_) in UNITS.items() for index in range(units)]
    assert list(get_backbone(NAME).blocks()) == names


def test_complexity_is_that_of_the_papers_table_1():
    """1x1 convolutions in 3 groups but for the first, depthwise 3x3 on a quarter of the channels."""
    macs, params, width = 24 * 27 * 112**2 + 960 * 1000, 24 * 27 + 2 * 24 + 960 * 1000 + 1000, 24
    for stage, (units, channels, side) in UNITS.items():
        for index in range(units):
            outer, branch = (2 * side, channels - width) if index == 0 else (side, channels)
            groups = 1 if (stage, index) == (2, 0) else 3
            middle = channels // 4
            first, last = width * middle // groups, middle * branch // 3
            macs += first * outer**2 + (9 * middle + last) * side**2
            params += first + 9 * middle + last + 2 * (middle + middle + branch)
            width = channels
    assert (cost().macs, cost().params) == (macs, params) == (137_460_672, 1_865_728)


def test_accuracy_booster_adds_what_its_paper_prints():
    """Table 7 (WACV 2020): from 1.80M parameters to 1.82M and 6.70M; AB-Plus has 145.3M MACs, AB 140.5M."""
    ab, plus = cost("ab") - cost(), cost("ab-plus") - cost()
    assert round(1.80 + ab.params / 1e6, 2) == 1.82
    assert round(1.80 + plus.params / 1e6, 2) == 6.70
    assert (plus - ab).macs / 1e6 == pytest.approx(145.3 - 140.5, abs=0.1)


def test_shuffle_deals_channels_out(normal):
    x = normal(2, 12, 3, 3)
    dealt = shuffle(x, 3)
    for group in range(3):
        for index in range(4):
            assert torch.equal(dealt[:, 3 * index + group], x[:, 4 * group + index])


def figure_2(module, x, stride):
    """A unit as its paper draws it: one convolution a group, one a channel, means of what lies in the map."""

    def norm(y, n):
        y = (y - n.running_mean[:, None, None]) / (n.running_var[:, None, None] + n.eps).sqrt()
        return y * n.weight[:, None, None] + n.bias[:, None, None]

    def grouped(y, weight, **options):
        groups = y.shape[1] // weight.shape[1]
        pairs = zip(y.chunk(groups, 1), weight.chunk(groups, 0), strict=True)
        return torch.cat([F.conv2d(part, kernels, **options) for part, kernels in pairs], 1)

    y = norm(grouped(x, module.conv1.weight), module.bn1).clamp(min=0)
    n = y.shape[1] // 3
    y = y[:, [group * n + index for index in range(n) for group in range(3)]]
    y = norm(grouped(y, module.conv2.weight, stride=stride, padding=1), module.bn2)
    y = module.recalibration(norm(grouped(y, module.conv3.weight), module.bn3))
    if stride == 1:
        return (x + y).clamp(min=0)
    ninth = torch.full((x.shape[1], 1, 3, 3), 1 / 9, dtype=x.dtype)
    return torch.cat((F.conv2d(x, ninth, None, 2, 1, groups=x.shape[1]), y), 1).clamp(min=0)


@pytest.mark.parametrize("choice", ["vanilla", "ab", "msar"])
@pytest.mark.parametrize("name", ["stage2.0", "stage2.1", "stage3.0"])
def test_a_unit_is_figure_2(normal, make, name, choice):
    spec = get_backbone(NAME).blocks()[name]
    module = unit(make, name, choice)
    x = normal(2, spec.in_channels, 9, 8)
    y = module(x)
    assert y.shape == (2, spec.out_channels, *((9, 8) if spec.stride == 1 else (5, 4)))
    torch.testing.assert_close(y, figure_2(module, x, spec.stride))


@pytest.mark.parametrize(("name", "channels"), [("stage2.0", 216), ("stage2.1", 240), ("stage4.0", 480)])
def test_recalibration_is_of_the_branch_alone(make, name, channels):
    assert unit(make, name, "ab").recalibration.channels == channels


def test_costs_follow_images_and_classes(count):
    backbone = get_backbone(NAME)
    blocks = {block: ("ab-plus", "msar", "se")[i % 3] for i, block in enumerate(backbone.blocks())}
    architecture = Architecture.of(NAME, blocks, input_size=130, num_classes=7)
    whole = count(lambda: backbone.build(architecture.blocks, 7, 3), 3, 130, 130)
    assert vars(architecture.cost()) == dict(zip(("macs", "params"), whole, strict=True))


def test_stems(normal, make):
    backbone = get_backbone(NAME)
    vanilla = Architecture.of(NAME, "vanilla").blocks
    for shape, smaller in ((backbone, 4), (backbone.scaled(1), 1)):
        network = make(shape.build, vanilla, 7, 4, dtype=torch.float32)
        sizes = []
        network.stage2.register_forward_pre_hook(lambda _, inputs, sizes=sizes: sizes.append(inputs[0].shape))
        assert network(normal(2, 4, 64, 64, dtype=torch.float32)).shape == (2, 7)
        assert sizes == [(2, 24, 64 // smaller, 64 // smaller)]


@pytest.mark.parametrize("width", [0.05, 0.25, 0.5, 0.7, 1, 1.6])
def test_a_proxy_networks_channels_divide_as_those_of_the_full_network(width):
    """By groups and by 8 in every branch, by groups and by 4 in its middle."""
    backbone = get_backbone(NAME)
    scaled = backbone.scaled(width)
    assert scaled.blocks().keys() == backbone.blocks().keys()
    for spec in scaled.blocks().values():
        assert spec.branch_channels > 0
        assert spec.branch_channels % 24 == 0
        assert spec.out_channels // 4 % 12 == 0
        assert spec.out_channels % 4 == 0
    if width == 1:
        assert (scaled.channels, scaled.stem_channels) == (backbone.channels, backbone.stem_channels)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_proxy_network_trains_on_small_images(normal, make, choice):
    scaled = get_backbone(NAME).scaled(0.2)
    network = make(scaled.build, Architecture.of(NAME, choice).blocks, 10, 3, dtype=torch.float32).train()
    for size in (8, 13):
        network.zero_grad()
        network(normal(2, 3, size, size, dtype=torch.float32)).logsumexp(1).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_proxy_network_keeps_parameter_names():
    backbone = get_backbone(NAME)
    choices = Architecture.of(NAME, "ab").blocks
    with torch.device("meta"):
        full, small = (b.build(choices, 10, 3).state_dict() for b in (backbone, backbone.scaled(0.25)))
    assert list(small) == list(full)


@pytest.mark.soak
def test_a_whole_network_compiles_as_one_graph(normal, make):
    blocks = {**Architecture.of(NAME, "vanilla").blocks, "stage2.0": "msar", "stage4.1": "ab"}
    network = make(build, Architecture.of(NAME, blocks), dtype=torch.float32)
    torch.compiler.reset()
    x = normal(1, 3, 32, 32, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))


def test_convolution_weights_are_drawn_as_he_et_al():
    kernels = build(Architecture.of(NAME, "vanilla")).stage4.get_submodule("1.conv3").weight
    assert kernels.std().item() == pytest.approx((2 / 960) ** 0.5, rel=0.02)
