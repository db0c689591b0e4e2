"""Operator choices by name: equal ones, refused ones, and the modules that they build."""

import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas_recalib.architecture import Architecture
from nas_recalib.networks import get_backbone
from nas_recalib.operators import (
    MSSAR,
    BlockChoice,
    Part,
    PSConv2d,
    build_convolution,
    build_recalibration,
    catalog,
    takes_source,
)

CONVOLUTIONS = [
    "vanilla", "scconv", "scconv(r=2)", "scconv(identity=no)", "scconv(pooling=max)",
    "scconv(upsample=bilinear)", "psconv", "psconv(pattern=1-2)", "psconv(pattern=1-2-1-1)",
    "psconv(pattern=2)", "psconv(vary=in)", "psconv(vary=out)",
]  # fmt: skip
RECALIBRATIONS = [
    "none", "msar", "msar(share=yes)", "msar(scales=1-2)", "msar(strategy=sliding)", "msar(hidden=4)",
    "ab", "ab(groups=4)", "ab-plus", "se", "se(r=4)",
]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("none", "vanilla"),
        ("vanilla+none", "vanilla"),
        ("ab", "vanilla+ab"),
        ("ab+psconv", "psconv+ab"),
        ("psconv(pattern=1-2-1-4, vary=both)", "psconv"),
        ("psconv(pattern=1-2-1-2)", "psconv(pattern=1-2)"),
        ("psconv(vary=in,pattern=1-2-1-2)", "psconv(pattern=1-2, vary=in)"),
        ("psconv(pattern=1-1-1)", "vanilla"),
        ("psconv(pattern=1, vary=out)", "vanilla"),
        ("psconv(pattern=2-2, vary=in)", "psconv(pattern=2)"),
        ("scconv(upsample=nearest, pooling=avg, identity=yes, r=4)", "scconv"),
        ("ab(groups=1)", "vanilla+ab-plus"),
        ("msar(scales=4-1-2)", "vanilla+msar"),
        ("msar(scales=1, share=yes)", "vanilla+msar(scales=1)"),
        ("msar-multi(scales=4-1-2, share=no)", "vanilla+msar-multi"),
        ("msar-multi(scales=1, share=yes)", "vanilla+msar-multi(scales=1)"),
        ("msar(reduction=1, norm=both)", "vanilla+msar"),
        ("psconv(pattern=2-2, depthwise=blocks)", "psconv(pattern=2)"),
        ("scconv(r=1, ceil=yes)", "scconv(r=1)"),
        ("se(r=16)", "vanilla+se"),
    ],
)
def test_what_builds_the_same_block_is_the_same_choice(written, canonical):
    assert BlockChoice.parse(written) == BlockChoice.parse(canonical)
    assert hash(BlockChoice.parse(written)) == hash(BlockChoice.parse(canonical))
    assert str(BlockChoice.parse(written)) == canonical


def test_a_repeated_pattern_is_its_period_with_channels_relabelled(normal, make):
    """This justifies writing psconv(pattern=1-2-1-2) as psconv(pattern=1-2)."""
    repeated, period = make(PSConv2d, 8, 8, pattern=(1, 2, 1, 2)), make(PSConv2d, 8, 8, pattern=(1, 2))
    order = [0, 1, 4, 5, 2, 3, 6, 7]  # quarters 0 and 2, then 1 and 3
    period.weight.data = repeated.weight.data[order][:, order]
    x = normal(2, 8, 7, 7)
    torch.testing.assert_close(period(x[:, order]), repeated(x)[:, order])


def test_different_choices_differ():
    choices = {BlockChoice.parse(f"{c}+{r}") for c in CONVOLUTIONS for r in RECALIBRATIONS}
    assert len(choices) == len(CONVOLUTIONS) * len(RECALIBRATIONS)


@examples(60)
@given(st.sampled_from(CONVOLUTIONS), st.sampled_from(RECALIBRATIONS))
def test_a_choice_reads_back_what_it_writes(convolution, recalibration):
    choice = BlockChoice.parse(f"{convolution}+{recalibration}")
    assert BlockChoice.parse(str(choice)) == choice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dynconv", "unknown operator 'dynconv'; allowed: vanilla, .*psconv.*, ab"),
        ("psconv+scconv", "names two operators of the kind convolution"),
        ("ab+se", "names two operators of the kind recalibration"),
        ("vanilla(r=2)", "vanilla takes no argument 'r'; allowed: none"),
        ("psconv(r=2)", "psconv takes no argument 'r'; allowed: pattern, vary"),
        ("psconv(stride=2)", "psconv takes no argument 'stride'"),
        (
            "msar(clamp=yes)",
            "msar takes no argument 'clamp'; allowed: scales, strategy, hidden, reduction, norm, share",
        ),
        ("msar(source_channels=4)", "msar takes no argument 'source_channels'; allowed: scales"),
        ("msar-multi(source_channels=4)", "msar-multi takes no argument 'source_channels'; allowed: scales"),
        ("msar-multi(hidden=0)", "msar: hidden = 0 is not at least 1"),
        ("ab-plus(groups=2)", "ab-plus takes no argument 'groups'"),
        ("scconv(r=two)", "scconv: r=two is not a whole number"),
        ("scconv(identity=true)", "scconv: identity=true is not yes or no"),
        ("scconv(pooling=sum)", "scconv: pooling=sum is not one of avg, max"),
        ("psconv(pattern=1-x)", "psconv: pattern=1-x is not a list of whole numbers like 1-2-4"),
        ("psconv(pattern=1-0)", r"psconv: pattern = \(1, 0\) is not a list of dilations"),
        ("scconv(r=0)", "scconv: r = 0 is not a whole number of at least 1"),
        ("msar(hidden=0)", "msar: hidden = 0 is not at least 1"),
        ("msar(hidden=999999999)", "msar: no module of such a size can be made"),
        ("scconv(r=99999999999999999999)", "is not a whole number of at most 9 digits"),
        ("se(r=-1)", "se: r=-1 is not a whole number"),
    ],
)
def test_says_what_is_wrong_with_a_choice(text, message):
    with pytest.raises(ValueError, match=message):
        BlockChoice.parse(text)


def test_what_depends_on_the_channels_is_refused_where_they_are_known():
    choice = BlockChoice.parse("ab(groups=7)")
    with pytest.raises(
        ValueError, match=r"layer1\.0: ab: groups = 7 is not a divisor of the channels \(16\)"
    ):
        Architecture.of("resnet20", choice).cost()


def test_a_window_of_one_position_is_the_same_however_it_is_pooled():
    every = ("scconv(r=1)", "scconv(r=1, pooling=max)", "scconv(r=1, upsample=bilinear)")
    assert len({BlockChoice.parse(text) for text in every}) == 1
    assert BlockChoice.parse("scconv(r=1, identity=no)") != BlockChoice.parse("scconv(r=1)")


@pytest.mark.parametrize("hint", [float, str, None])
def test_an_argument_that_could_not_be_written_is_refused_at_registration(hint):
    def build(channels, *, level=1): ...

    build.__annotations__ = {"level": hint} if hint else {}
    with pytest.raises(ValueError, match="argument 'level' must have one of the types"):
        catalog.register("levelled", "recalibration")(build)
    assert "levelled" not in catalog.names("recalibration")


@pytest.mark.parametrize("kind", ["convolution", "recalibration"])
def test_a_part_must_be_of_its_kind(kind):
    other = {"convolution": "ab", "recalibration": "psconv"}[kind]
    with pytest.raises(ValueError, match=f"unknown {kind} '{other}'; allowed: {catalog.names(kind)[0]}"):
        catalog.parse_part(other, kind)


@pytest.mark.parametrize("text", CONVOLUTIONS)
def test_a_convolution_carries_stride_and_channels(normal, make, text):
    part = catalog.parse_part(text, "convolution")
    module = make(build_convolution, part, 16, 32, 2, 2)
    assert module(normal(2, 16, 9, 9)).shape == (2, 32, 5, 5)


@pytest.mark.parametrize("text", RECALIBRATIONS)
def test_a_recalibration_keeps_the_shape_of_every_map(normal, make, text):
    module = make(build_recalibration, catalog.parse_part(text, "recalibration"), 16, clamp=True)
    for size in (1, 2, 7):
        assert module(normal(2, 16, size, size)).shape == (2, 16, size, size)


def test_msar_multi_is_msar_with_weights_from_a_second_tensor(normal, make):
    part = catalog.parse_part("msar-multi(scales=1-2, hidden=3)", "recalibration")
    module = make(build_recalibration, part, 16, source_channels=40, clamp=True)
    same = make(MSSAR, 16, (1, 2), hidden=3, source_channels=40, clamp=True)
    x, source = normal(2, 16, 1, 4), normal(2, 40, 1, 4)
    assert torch.equal(module(x, source), same(x, source))


@pytest.mark.parametrize("text", [*RECALIBRATIONS, "msar-multi", "msar-multi(share=yes)"])
def test_only_msar_multi_takes_a_running_concatenation(normal, make, text):
    part = catalog.parse_part(text, "recalibration")
    module = make(build_recalibration, part, 16, source_channels=40)
    assert takes_source(part) is text.startswith("msar-multi")
    tensors = [normal(2, 16, 4, 4), normal(2, 40, 4, 4)][: 1 + takes_source(part)]
    assert module(*tensors).shape == (2, 16, 4, 4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "shufflenet-g3"])
def test_a_block_without_a_running_concatenation_refuses_msar_multi(name):
    message = "msar-multi computes its weights from a running concatenation, which this block does not have"
    with pytest.raises(ValueError, match=message):
        Architecture.of(name, "msar-multi").cost()


def test_no_recalibration_changes_nothing(normal):
    x = normal(2, 16, 5, 5)
    assert torch.equal(build_recalibration(Part("none"), 16)(x), x)


class ScaledConv2d(nn.Conv2d):
    """A user's operator, as the catalog's own docstring tells users to write it."""

    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, groups=1, *, scale: int = 2):
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)
        if scale < 1:
            raise ValueError(f"scaledconv: scale = {scale!r} is not at least 1")
        self.scale = scale

    def forward(self, x):
        return self.scale * super().forward(x)


def test_a_users_operator_joins(monkeypatch, normal, make):
    monkeypatch.setattr(catalog, "_operators", dict(catalog._operators))
    assert catalog.register("scaledconv", "convolution")(ScaledConv2d) is ScaledConv2d
    choice = BlockChoice.parse("scaledconv(scale=3)+ab")
    assert str(choice) == "scaledconv(scale=3)+ab"
    assert str(BlockChoice.parse("scaledconv(scale=2)")) == "scaledconv"
    module = make(build_convolution, choice.convolution, 4, 8, 1)
    assert (module.scale, module(normal(1, 4, 5, 5)).shape) == (3, (1, 8, 5, 5))
    with pytest.raises(ValueError, match="scaledconv: scale = 0 is not at least 1"):
        BlockChoice.parse("scaledconv(scale=0)")
    with pytest.raises(ValueError, match="scaledconv takes no argument 'stride'; allowed: scale"):
        BlockChoice.parse("scaledconv(stride=2)")


class Sum(nn.Module):
    """A user's operator whose weights come from the running concatenation."""

    def __init__(self, channels, source_channels, *, times: int = 1):
        super().__init__()
        self.mix = nn.Conv2d(source_channels, channels, 1)
        self.times = times

    def forward(self, x, source):
        return x * self.times * self.mix(source)


def test_a_users_operator_may_take_the_running_concatenation(monkeypatch):
    monkeypatch.setattr(catalog, "_operators", dict(catalog._operators))
    catalog.register("sum", "recalibration")(Sum)
    choice = BlockChoice.parse("sum(times=3)")
    assert takes_source(choice.recalibration)
    added = Architecture.of("densenet100", choice).cost() - Architecture.of("densenet100", "vanilla").cost()
    specs = get_backbone("densenet100").blocks().values()
    assert added.params == sum(12 * spec.in_channels + 12 for spec in specs)
    with pytest.raises(ValueError, match=r"layer1\.0: sum computes its weights from a running concatenation"):
        Architecture.of("resnet20", choice).cost()


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("psconv", "convolution", "an operator named 'psconv' is registered already"),
        ("gate", "activation", "'activation' is not a kind of operator; allowed: convolution, recalibration"),
    ],
)
def test_refuses_to_register(monkeypatch, name, kind, message):
    monkeypatch.setattr(catalog, "_operators", dict(catalog._operators))
    with pytest.raises(ValueError, match=message):
        catalog.register(name, kind)(ScaledConv2d)
