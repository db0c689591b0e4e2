"""DenseNets: torchvision's dense blocks with a small stem, at the complexity that the MS-SAR paper prints."""

import pytest
import torch
import torchvision
from examples import soaked
from torch import nn

from nas_recalib.architecture import Architecture, build
from nas_recalib.networks import get_backbone
from nas_recalib.operators import MSSAR, AccuracyBooster, BlockChoice, PSConv2d

NAMES = ["densenet100", "densenet190"]
CHOICES = [
    "scconv", "psconv", "psconv(pattern=1-2)+msar-multi", "msar-multi", "msar-multi(strategy=sliding)",
    "msar", "ab", "ab-plus", "se",
]  # fmt: skip


def cost(backbone, choice="vanilla", **sizes):
    return Architecture.of(backbone, choice, **sizes).cost()


# Multiply-accumulates of the two transitions (table 1 of Huang et al.), which the MS-SAR paper leaves out.
TRANSITIONS = {
    "densenet100": 216 * 108 * 32**2 + 300 * 150 * 16**2,
    "densenet190": 1320 * 660 * 32**2 + 1900 * 950 * 16**2,
}


@pytest.mark.parametrize("size", [32, 21])
def test_all_vanilla_is_torchvisions_with_another_stem(normal, make, size):
    def with_small_stem():
        shape = {"growth_rate": 12, "block_config": (16, 16, 16), "num_init_features": 24}
        network = torchvision.models.DenseNet(**shape, num_classes=10)
        network.features.conv0 = nn.Conv2d(3, 24, 3, 1, 1, bias=False)
        for name in ("norm0", "relu0", "pool0"):
            setattr(network.features, name, nn.Identity())
        return network

    theirs = make(with_small_stem, dtype=torch.float32)
    ours = build(Architecture.of("densenet100", "vanilla"), seed=1).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = normal(2, 3, size, size, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours(x), expected)


# Parameters and multiply-accumulates in table 2 of MS-SAR (ECCV 2018); DenseNet-100 has 0.8M, DenseNet-190
# 25.6M parameters for ten classes in table 2 of Huang et al. (2017). MS-SAR prints those for 100 classes.
@pytest.mark.parametrize(
    ("name", "classes", "unit", "digits", "printed"),
    [
        ("densenet100", 10, 1e6, 1, 0.8),
        ("densenet190", 10, 1e6, 1, 25.6),
        ("densenet100", 100, 1e6, 2, 0.80),
        ("densenet190", 100, 1e6, 1, 25.8),
    ],
)
def test_parameters_are_those_printed(name, classes, unit, digits, printed):
    assert round(cost(name, num_classes=classes).params / unit, digits) == printed


# MS-SAR, table 2 (below) and table 3: the printed counts leave out the transitions.
@pytest.mark.parametrize(
    ("name", "choice", "unit", "digits", "printed"),
    soaked(
        [
            ("densenet190", "vanilla", 1e9, 2, 7.95),
            ("densenet190", "msar-multi", 1e9, 2, 7.98),
            ("densenet100", "vanilla", 1e6, 1, 252.5),
            ("densenet100", "msar-multi(scales=1)", 1e6, 1, 252.6),
            ("densenet100", "msar-multi(scales=2)", 1e6, 1, 253.0),
            ("densenet100", "msar-multi(scales=4)", 1e6, 1, 254.3),
            ("densenet100", "msar-multi(scales=1-2)", 1e6, 1, 252.8),
            ("densenet100", "msar-multi(scales=1-4)", 1e6, 1, 253.5),
            ("densenet100", "msar-multi(scales=2-4)", 1e6, 1, 253.7),
            ("densenet100", "msar-multi(scales=1-2-4)", 1e6, 1, 253.3),
        ],
        [
            ("densenet100", "vanilla", 1e6, 1, 252.5),
            ("densenet100", "msar-multi(scales=2)", 1e6, 1, 253.0),
            ("densenet100", "msar-multi(scales=1-2-4)", 1e6, 1, 253.3),
        ],
    ),
)
def test_macs_are_those_printed(name, choice, unit, digits, printed):
    assert round((cost(name, choice).macs - TRANSITIONS[name]) / unit, digits) == printed


@pytest.mark.soak
def test_every_choice_of_scales_has_the_same_parameters():
    """Section 3.5: D' = D / L, with own weights for each of L scales; each scale has a second norm."""
    texts = ("1", "2", "4", "1-2", "1-4", "2-4", "1-2-4")
    seconds = {text: 48 * 2 * 12 * len(text.split("-")) for text in texts}
    params = {text: cost("densenet100", f"msar-multi(scales={text})").params for text in texts}
    assert len({params[text] - seconds[text] for text in texts}) == 1


def test_a_choice_takes_the_3x3_convolution_and_the_new_features_of_its_step_alone():
    name = "features.denseblock2.denselayer3"
    choices = {**Architecture.of("densenet100", "vanilla").blocks, name: BlockChoice.parse("psconv+ab")}
    with torch.device("meta"):
        network = get_backbone("densenet100").build(choices, 10, 3)
    found = {key: m for key, m in network.named_modules() if isinstance(m, PSConv2d | AccuracyBooster)}
    assert list(found) == [f"{name}.conv2", f"{name}.recalibration"]
    assert (found[f"{name}.conv2"].in_channels, found[f"{name}.conv2"].out_channels) == (48, 12)
    assert found[f"{name}.recalibration"].channels == 12


def step(make, choice):
    spec = get_backbone("densenet100").blocks()["features.denseblock1.denselayer2"]
    return make(spec.build, BlockChoice.parse(choice))


def test_a_step_recalibrates_what_it_adds(normal, make):
    """With the same weights elsewhere, plain features times the recalibration's weights."""
    plain, multi = step(make, "vanilla"), step(make, "msar-multi")
    missing, unexpected = multi.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(key.startswith("recalibration.") for key in missing)
    x = normal(2, 36, 8, 8)
    features = plain(x)[:, 36:]
    expected = multi.recalibration(features, source=x)
    assert not torch.allclose(expected, features)
    torch.testing.assert_close(multi(x), torch.cat((x, expected), 1))


@pytest.mark.parametrize(("choice", "source"), [("msar-multi", 36), ("msar", 12)])
def test_multi_stage_weights_come_from_the_running_concatenation(normal, make, choice, source):
    """Where the new features are all ones, what comes out is the weights."""
    module = step(make, choice)
    assert isinstance(module.recalibration, MSSAR)
    assert module.recalibration.source_channels == source
    module.conv2 = type("Ones", (nn.Module,), {"forward": lambda _, y: torch.ones_like(y[:, :12])})()
    one, other = (module(normal(2, 36, 8, 8))[:, 36:] for _ in range(2))
    assert torch.equal(one, other) is (choice == "msar")


def test_costs_follow_images_and_classes(count):
    name = "densenet100"
    backbone = get_backbone(name)
    texts = ["scconv+ab-plus", "psconv+msar-multi(scales=1-2)", "msar-multi(share=yes, hidden=5)", "se"]
    blocks = {block: texts[i % 4] for i, block in enumerate(backbone.blocks())}
    architecture = Architecture.of(name, blocks, input_size=18, num_classes=7)
    whole = count(lambda: backbone.build(architecture.blocks, 7, 3), 3, 18, 18)
    assert vars(architecture.cost()) == dict(zip(("macs", "params"), whole, strict=True))


@pytest.mark.parametrize("choice", soaked(CHOICES, ("scconv", "psconv", "msar-multi", "ab")))
def test_a_proxy_network_trains_on_small_images(normal, make, choice):
    scaled = get_backbone("densenet100").scaled(0.1)
    blocks = Architecture.of("densenet100", choice).blocks
    network = make(scaled.build, blocks, 10, 3, dtype=torch.float32).train()
    for size in (8, 13):
        network.zero_grad()
        network(normal(2, 3, size, size, dtype=torch.float32)).logsumexp(1).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", soaked(NAMES, ["densenet100"]))
def test_a_proxy_network_keeps_blocks_and_parameter_names(name):
    backbone = get_backbone(name)
    assert backbone.scaled(1).blocks().keys() == backbone.blocks().keys()
    assert backbone.scaled(1).growth == backbone.growth
    scaled = backbone.scaled(0.2)
    assert scaled.growth == {"densenet100": 4, "densenet190": 8}[name]
    choices = Architecture.of(name, "scconv+msar-multi").blocks
    with torch.device("meta"):
        full, small = (b.build(choices, 10, 3).state_dict() for b in (backbone, scaled))
    assert list(small) == list(full)


def test_images_that_cannot_be_halved_twice_are_refused():
    with pytest.raises(ValueError, match="densenet100: an image of 3x3 pixels is smaller than 4x4"):
        cost("densenet100", input_size=3)
    assert cost("densenet100", input_size=4).macs > 0


@pytest.mark.soak
def test_a_whole_network_compiles_as_one_graph(normal, make):
    backbone = get_backbone("densenet100")
    scaled = type(backbone)(**{**vars(backbone.scaled(0.3)), "depths": (2, 2, 2)})
    names = list(scaled.blocks())
    texts = ["psconv+msar-multi", "scconv+msar", "ab", "msar-multi(strategy=sliding)", "se", "vanilla"]
    choices = {name: BlockChoice.parse(text) for name, text in zip(names, texts, strict=True)}
    network = make(scaled.build, choices, 10, 3, dtype=torch.float32)
    torch.compiler.reset()
    x = normal(2, 3, 16, 16, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))
