"""Each zero-cost proxy compared with a naive implementation of its definition, and with its theory."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples import FEW_BACKBONES, soaked
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from nas_recalib.networks import backbone_names, get_backbone
from nas_recalib.networks.backbone import FeatureMap
from nas_recalib.operators import AccuracyBooster, BlockChoice, SCConv2d
from nas_recalib.proxy.scores import score_names, score_network

STEP = 1e-6
LABELS = torch.tensor([0, 2, 1])
LAYERS = ["stem.0", "block.conv", "block.gate.conv", "fc"]
CHOICES = [
    "psconv+ab", "scconv+msar", "psconv(pattern=1-2)+ge", "se", "scconv(r=2)+ab-plus",
    "ge(excitation=ab)", "psconv+ab-design(design=N)",
]  # fmt: skip


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.gate = AccuracyBooster(channels)

    def forward(self, x):
        return F.relu(self.sum(x))

    def sum(self, x):
        return self.gate(self.norm(self.conv(x))) + x


class Small(nn.Module):
    """A ReLU in place after a convolution and one as a function, a gate, a shortcut, biases."""

    def __init__(self, channels=4, classes=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.block = Block(channels)
        self.fc = nn.Linear(channels, classes)
        self.maps = [FeatureMap("block", channels, 1)]

    def forward(self, x):
        return self.fc(self.block(self.stem(x)).mean((2, 3)))


@pytest.fixture
def network(make):
    return make(Small).train()


@pytest.fixture
def images(normal):
    return normal(3, 3, 5, 5)


@pytest.fixture
def score(images):
    def compute(name, network, images=images, labels=LABELS, **options):
        return score_network(name, network, images, labels, **options)

    return compute


def loss(network, images, **replaced):
    parameters = {**dict(network.named_parameters()), **replaced}
    with torch.no_grad():
        return F.cross_entropy(functional_call(network, parameters, images), LABELS).item()


@pytest.fixture
def slopes(network, images):
    """Gradients of the loss by differences: one weight moved at a time."""
    found = {}
    for key in [f"{layer}.weight" for layer in LAYERS]:
        weight = network.get_parameter(key).detach()
        found[key] = torch.zeros_like(weight)
        for index in np.ndindex(weight.shape):
            step = torch.zeros_like(weight)
            step[index] = STEP
            up, down = (loss(network, images, **{key: w}) for w in (weight + step, weight - step))
            found[key][index] = (up - down) / (2 * STEP)
    return found


def test_snip_is_what_the_loss_owes_each_weight(network, score, slopes):
    expected = sum((network.get_parameter(key) * slope).abs().sum() for key, slope in slopes.items())
    assert score("snip", network) == pytest.approx(expected.item(), rel=1e-5)


def test_grad_norm_adds_up_the_layers_norms(network, score, slopes):
    expected = sum(math.sqrt(slope.square().sum()) for slope in slopes.values())
    assert score("grad_norm", network) == pytest.approx(expected, rel=1e-5)


def test_fisher_is_half_the_squared_slope_of_each_channels_factor(network, images, score):
    """Theis et al.'s derivation: sum_ij A g is the loss's slope in a factor on one channel of one image."""
    total = 0.0
    for layer in LAYERS:
        module, channels = network.get_submodule(layer), len(network.get_submodule(layer).weight)
        for n, c in np.ndindex(len(images), channels):
            ends = []
            for factor in (1 + STEP, 1 - STEP):

                def scale(_, __, output, n=n, c=c, factor=factor):
                    output = output.clone()
                    output[n, c] *= factor
                    return output

                hook = module.register_forward_hook(scale)
                ends.append(loss(network, images))
                hook.remove()
            total += ((ends[0] - ends[1]) / (2 * STEP)) ** 2 / (2 * len(images))
    assert score("fisher", network) == pytest.approx(total, rel=1e-5)


def test_fisher_looks_at_channels_before_they_are_overwritten(network, score):
    values = []
    for inplace in (False, True):
        network.stem[1] = nn.ELU(inplace=inplace)
        values.append(score("fisher", network))
    assert values[0] == values[1] > 0


@pytest.mark.parametrize("name", ["snip", "grad_norm", "fisher"])
def test_without_a_gradient_there_is_nothing(make, score, name):
    assert score(name, make(Small, classes=1), labels=torch.zeros(3, dtype=torch.int64)) == 0


def test_jacob_cov_is_that_of_the_whole_jacobian(network, images, score):
    jacobian = torch.autograd.functional.jacobian(network, images)  # (N, classes, N, C, H, W)
    correlations = np.corrcoef(jacobian.sum((0, 1)).flatten(1).numpy())
    values = np.linalg.eigvals(correlations)
    expected = -sum(math.log(v + 1e-5) + 1 / (v + 1e-5) for v in values)
    assert score("jacob_cov", network) == pytest.approx(expected, rel=1e-9)


def test_jacob_cov_falls_where_images_are_the_same(network, images, score):
    same = images[:1].repeat(3, 1, 1, 1)
    assert score("jacob_cov", network, same) < -1e5 < score("jacob_cov", network)


def test_jacob_cov_of_a_network_that_sees_nothing_is_no_number(network, score):
    nn.init.zeros_(network.fc.weight)
    assert math.isnan(score("jacob_cov", network))


def codes(network, images):
    first = network.stem[0](images)
    second = network.block.sum(first.relu())
    return [[bit for z in (first, second) for bit in (z[n] > 0).flatten().tolist()] for n in range(3)]


def test_naswot_is_the_determinant_of_what_codes_share(network, images, score):
    bits = codes(network, images)
    kernel = [[sum(a == b for a, b in zip(one, other, strict=True)) for other in bits] for one in bits]
    assert len({tuple(row) for row in kernel}) == 3
    assert score("naswot", network) == pytest.approx(np.linalg.slogdet(kernel)[1], rel=1e-6)


def test_naswot_knows_images_but_not_their_order(network, images, score):
    assert score("naswot", network, images.flip(0)) == pytest.approx(score("naswot", network))
    same = images[:1].repeat(3, 1, 1, 1)
    nothing = math.log(3 * 2 * 4 * 25) + 2 * math.log(1e-5)
    assert score("naswot", network, same) == pytest.approx(nothing, rel=1e-6)
    twice = score("naswot", network, images[[0, 1, 1]])
    assert nothing < twice < score("naswot", network)


RELUS = [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, torch.Tensor.relu, torch.relu_]


@pytest.mark.parametrize("relu", RELUS)
def test_naswot_sees_a_relu_however_it_is_written(make, score, relu):
    def build(relu):
        network = make(nn.Sequential, nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 3))
        nn.init.constant_(network[0].weight, 0.1)
        network[0].forward = lambda x: relu(F.conv2d(x, network[0].weight))
        return network

    assert score("naswot", build(relu)) == score("naswot", build(nn.ReLU()))
    assert score("naswot", build(relu)) != score("naswot", build(lambda x: x))


def flow(network, without=None):
    """What flows through absolute weights, written down as one formula."""
    weight = {key: network.get_submodule(key).weight.detach().abs() * (key != without) for key in LAYERS}
    first = F.conv2d(torch.ones(1, 3, 5, 5, dtype=torch.float64), weight["stem.0"], padding=1)
    second = F.conv2d(first, weight["block.conv"], padding=1) + first
    return (second.mean((2, 3)) @ weight["fc"].T).sum().item()


def test_synflow_is_what_each_layer_contributes(network, score):
    """R is linear in each layer's weights, so that sum w dR/dw over a layer is R - R without it."""
    expected = sum(flow(network) - flow(network, without=layer) for layer in LAYERS)
    assert score("synflow", network) == pytest.approx(math.log(expected), rel=1e-12)


def test_synflow_needs_neither_data_nor_signs_nor_norms(network, images, score):
    before = score("synflow", network)
    for p in (network.stem[0].weight, network.fc.weight):
        p.data.mul_(torch.where(torch.rand(p.shape) < 0.5, -1.0, 1.0))
    for module in (network.block.norm, network.block.gate.norm):
        nn.init.normal_(module.running_mean)
        nn.init.uniform_(module.weight, 3, 4)
    nn.init.normal_(network.block.gate.conv.weight)
    nn.init.normal_(network.fc.bias)
    assert score("synflow", network, 2 * images[:1] + 1) == pytest.approx(before, rel=1e-12)


def test_synflow_knows_nothing_of_what_is_gated_by(make, score):
    """K2 of a self-calibrated convolution speaks through a sigmoid alone, K3 and K4 do not."""
    network = make(nn.Sequential, nn.Conv2d(3, 4, 1), SCConv2d(4, 6), nn.Flatten())
    before = score("synflow", network)
    for k, changes in ((network[1].k2[0], False), (network[1].k3[0], True), (network[1].k4, True)):
        k.weight.data *= 0.9
        assert (score("synflow", network) != before) is changes


def chain(depth, gain=1.0):
    layers = [nn.Conv2d(3 if i == 0 else 4, 4, 1, bias=False) for i in range(depth)]
    for layer in layers:
        nn.init.uniform_(layer.weight, 0.1, 0.4)
        layer.weight.data *= gain
    return nn.Sequential(*layers, nn.Flatten())


@pytest.mark.parametrize("gain", [1e-15, 1e-3, 1.0, 7.0, 1e9, 1e15])
def test_synflow_of_a_chain_is_its_layers_times_their_product(make, score, gain):
    """From an R of 1e-450 to one of 1e450, for which there is no float64."""
    network = make(chain, 30, gain)
    product = torch.ones(1, 3, 5, 5, dtype=torch.float64)
    shift = 0.0
    for layer in network[:-1]:
        product = layer(product).detach()
        shift += math.log(product.max())
        product /= product.max()
    expected = math.log(30) + math.log(product.sum()) + shift
    assert score("synflow", network) == pytest.approx(expected, rel=1e-12)


def test_synflow_of_no_and_of_too_much_flow_is_infinite(make, score):
    blocked = make(chain, 3)
    nn.init.zeros_(blocked[1].weight)
    assert score("synflow", blocked) == -math.inf
    assert score("synflow", make(chain, 30, 1e30)) == math.inf


class Plain(nn.Module):
    """Two layers without padding or shortcuts, for which the Zen-Score is a formula."""

    def __init__(self, widths, gate=False):
        super().__init__()
        one, two = widths
        self.first = nn.Sequential(nn.Conv2d(3, one, 3), nn.BatchNorm2d(one))
        self.second = nn.Sequential(nn.ReLU(), nn.Conv2d(one, two, 1, bias=False), nn.BatchNorm2d(two))
        self.gate = AccuracyBooster(two) if gate else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(two, 3)
        self.maps = [FeatureMap("relu", two, 1)]


@pytest.mark.parametrize("widths", [(64, 64), (128, 32), (32, 128)])
@pytest.mark.parametrize("gate", [False, True])
def test_zen_is_how_far_a_change_spreads(make, normal, score, widths, gate):
    """Each layer passes 0.01 e on, times the square root of its inputs; a ReLU stops half of it."""
    one, two = widths
    x = normal(16, 3, 12, 12)
    expected = math.log(0.01) + math.log(10 * 10 * (3 * 9) * (one / 2) * (two / 2)) / 2
    assert score("zen", make(Plain, widths, gate), x) == pytest.approx(expected, abs=0.08)


def test_zen_draws_weights_of_its_own(make, images, score):
    """Only shapes count: not the weights, the norms or the images that are there."""
    network = make(Plain, (8, 8))
    before = score("zen", network)
    for parameter in network.parameters():
        parameter.data.mul_(-3).add_(1)
    assert score("zen", network, images.exp()) == before


def test_sizes_are_counted(network, score):
    conv, norm, gate = 4 * 4 * 9, 2 * 4, 4 + 2 * 4
    assert score("params", network) == (3 * 4 * 9 + 4) + conv + norm + gate + (4 * 3 + 3)
    assert score("macs", network) == 25 * (3 * 4 * 9 + conv) + 4 + 4 * 3


@pytest.mark.parametrize("name", soaked(backbone_names(), (*FEW_BACKBONES, "densenet100")))
def test_every_score_of_every_backbone_is_finite(make, normal, name):
    """With every operator somewhere, one block a stage, on images of 8 pixels."""
    scaled = get_backbone(name).scaled(0.125)
    scaled = replace(scaled, depths=(1,) * len(scaled.depths))
    start = backbone_names().index(name)
    choices = {
        block: BlockChoice.parse(CHOICES[(start + i) % len(CHOICES)])
        for i, block in enumerate(scaled.blocks())
    }
    network = make(scaled.build, choices, 3, 3, dtype=torch.float32)
    x = normal(3, 3, 8, 8, dtype=torch.float32)
    scores = {score: score_network(score, network, x, LABELS) for score in score_names()}
    assert all(math.isfinite(value) for value in scores.values()), scores
    assert min(scores[key] for key in ("snip", "grad_norm", "fisher", "macs", "params")) > 0


@pytest.mark.parametrize("name", soaked(["resnet164", "densenet100"], ["resnet164"]))
def test_depth_does_not_take_scores_out_of_range(make, normal, name):
    scaled = get_backbone(name).scaled(0.1)
    choices = dict.fromkeys(scaled.blocks(), BlockChoice.parse("scconv+ab"))
    network = make(scaled.build, choices, 3, 3, dtype=torch.float32)
    x = normal(3, 3, 8, 8, dtype=torch.float32)
    for score in ("synflow", "fisher"):
        assert math.isfinite(score_network(score, network, x, LABELS))
