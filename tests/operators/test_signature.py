"""Refusal of constructors that no block could build or no choice could name."""

from functools import partial
from typing import Literal

import pytest
from torch import nn

from nas_recalib.operators import catalog


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    monkeypatch.setattr(catalog, "_operators", dict(catalog._operators))


def reordered(in_channels, out_channels, stride=1, kernel_size=3, groups=1): ...


def short(in_channels, out_channels): ...


def vague(*args, **kwargs): ...


def demanding(channels, level: int):
    return nn.BatchNorm2d(channels * level)


def spread(channels, *levels: int): ...


def shouting(channels, *, Level: int = 1): ...


def hurried(channels, level: int = 1, /): ...


def unknown_hint(channels, *, level: "Level" = 1): ...  # noqa: F821


BLOCK = r"\(in_channels, out_channels, kernel_size, stride, groups\)"


@pytest.mark.parametrize(
    ("construct", "kind", "message"),
    [
        (short, "convolution", rf"{BLOCK}, but its constructor takes \(in_channels, out_channels\)"),
        (reordered, "convolution", rf"{BLOCK}, but .* \(in_channels, out_channels, stride=1, kernel_size=3"),
        (nn.Conv2d, "convolution", rf"{BLOCK}, but its constructor takes \(in_channels: int, .* padding"),
        (vague, "recalibration", r"from \(channels\), but its constructor takes \(\*args, \*\*kwargs\)"),
        (nn.Identity, "recalibration", r"from \(channels\), but its constructor takes \(\*args: "),
        (partial(nn.BatchNorm2d, 8), "recalibration", r"from \(channels\), but .* \(eps: float"),
        (spread, "recalibration", r"a block passes nothing to \*levels: int"),
        (shouting, "recalibration", "'Level' cannot be written like r=2 in a choice"),
        (hurried, "recalibration", "'level' cannot be written like r=2"),
        (unknown_hint, "recalibration", "hints cannot be read: name 'Level' is not defined"),
        (nn.ReLU(), "recalibration", r"but its constructor takes \(\*args"),
        ("a string", "recalibration", "'a string' is not a class or function"),
    ],
)
def test_refuses_what_no_block_could_build(construct, kind, message):
    with pytest.raises(ValueError, match=message):
        catalog.register("own", kind)(construct)
    assert "own" not in catalog.names(kind)


@pytest.mark.parametrize("name", ["Own", "own conv", "9own", "", "own_conv", "own+conv"])
def test_refuses_a_name_that_could_not_be_written(name):
    with pytest.raises(ValueError, match=f"an operator cannot be named {name!r}".replace("+", r"\+")):
        catalog.register(name, "recalibration")(nn.BatchNorm2d)


class Strict(nn.Conv2d):
    """Operator without defaults for the arguments that a block passes."""

    def __init__(self, in_channels, out_channels, kernel_size, stride, groups, *, reach: int = 1, **_):
        super().__init__(in_channels, out_channels, kernel_size, stride, reach, reach, groups)


def test_defaults_are_needed_only_where_a_block_gives_nothing():
    catalog.register("strict", "convolution")(Strict)
    part = catalog.parse_part("strict(reach=2)", "convolution")
    module = catalog.build_convolution(part, 4, 8, 2, 2)
    assert (module.stride, module.groups, module.dilation) == ((2, 2), 2, (2, 2))


def test_an_argument_without_a_default_must_be_written():
    catalog.register("demanding", "recalibration")(demanding)
    with pytest.raises(ValueError, match="demanding needs an argument 'level', a whole number"):
        catalog.parse_part("demanding", "recalibration")


def test_an_argument_may_be_one_of_a_few_numbers():
    def build(channels, *, level: Literal[3, 5] = 3):
        return nn.BatchNorm2d(channels, momentum=level / 10)

    catalog.register("few", "recalibration")(build)
    part = catalog.parse_part("few(level=5)", "recalibration")
    assert (str(part), catalog.build_recalibration(part, 4).momentum) == ("few(level=5)", 0.5)
    with pytest.raises(ValueError, match="few: level=4 is not one of 3, 5"):
        catalog.parse_part("few(level=4)", "recalibration")


def test_a_constructor_that_fails_is_reported_in_one_line():
    def fails(channels, *, level: int = 1):
        raise KeyError("level\nof detail")

    catalog.register("fails", "recalibration")(fails)
    with pytest.raises(ValueError, match=r"^fails: no module of such a size can be made \(KeyError: .*\)$"):
        catalog.parse_part("fails", "recalibration")
