"""Operators that replace or recalibrate the convolutions of a block, and their names in search spaces.

Importing this package registers them, with which of their choices build the same module.
"""

from functools import partial

from torch import nn

from nas_recalib.operators.booster import AccuracyBooster
from nas_recalib.operators.booster_designs import BoosterDesign
from nas_recalib.operators.catalog import (
    VANILLA,
    Arguments,
    BlockChoice,
    build_convolution,
    build_recalibration,
    register,
    takes_source,
)
from nas_recalib.operators.cbam import CBAM
from nas_recalib.operators.choice import Part
from nas_recalib.operators.gather_excite import GatherExcite
from nas_recalib.operators.msar import MSSAR
from nas_recalib.operators.psconv import PSConv2d
from nas_recalib.operators.psconv_learned import LearnedPSConv2d
from nas_recalib.operators.scconv import SCConv2d
from nas_recalib.operators.squeeze_excite import SqueezeExcite

__all__ = [
    "CBAM",
    "MSSAR",
    "AccuracyBooster",
    "BlockChoice",
    "BoosterDesign",
    "GatherExcite",
    "LearnedPSConv2d",
    "PSConv2d",
    "Part",
    "SCConv2d",
    "SqueezeExcite",
    "build_convolution",
    "build_recalibration",
    "register",
    "takes_source",
]


@register("vanilla", "convolution")
def _vanilla(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, groups: int = 1
) -> nn.Module:
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)


@register("none", "recalibration")
def _none(channels: int) -> nn.Module:  # noqa: ARG001 - recalibrations are built by one call
    return nn.Identity()


def _without(arguments: Arguments, *names: str) -> Arguments:
    """Return the arguments without those that make no difference, which then have their defaults."""
    return {name: value for name, value in arguments.items() if name not in names}


def _simplify_psconv(arguments: Arguments) -> Arguments | Part:
    """Reduce a pattern to its shortest period (the same lattice, relabelled), and one of ones to vanilla.

    In blocks, a depthwise pattern of two periods puts the dilations elsewhere than one of one period, which
    is no relabelling where grouped convolutions stand around it.
    """
    pattern = arguments["pattern"]
    assert isinstance(pattern, tuple)
    t = len(pattern)
    period = next(p for p in range(1, t + 1) if t % p == 0 and pattern == pattern[:p] * (t // p))
    if pattern[:period] == (1,):
        return VANILLA
    if period == 1 or arguments["depthwise"] != "blocks":
        arguments["pattern"] = pattern[:period]
    return _without(arguments, "vary", "depthwise") if period == 1 else arguments


def _simplify_scconv(arguments: Arguments) -> Arguments:
    """Drop how windows are pooled and upsampled where a window is a single position."""
    return _without(arguments, "ceil", "pooling", "upsample") if arguments["r"] == 1 else arguments


def _simplify_msar(arguments: Arguments) -> Arguments:
    """Sort the scales, which are terms of a sum; a single one has nothing to share.

    Scale 1 of the sliding strategy stays apart from the regional one: its window does not cover the whole of
    a map that is longer than it is wide.
    """
    scales = arguments["scales"]
    assert isinstance(scales, tuple)
    arguments["scales"] = tuple(sorted(scales))
    return _without(arguments, "share") if len(scales) == 1 else arguments


def _simplify_ab(arguments: Arguments) -> Arguments | Part:
    return Part("ab-plus") if arguments["groups"] == 1 else arguments


def _simplify_ge(arguments: Arguments) -> Arguments:
    """Drop the extent that is the default anyway, and the reduction where there is no "mlp"."""
    if arguments["extent"] == 8:
        arguments["extent"] = None
    return arguments if arguments["excitation"] == "mlp" else _without(arguments, "r")


register("scconv", "convolution", _simplify_scconv)(SCConv2d)
register("psconv", "convolution", _simplify_psconv)(PSConv2d)
register("psconv-learned", "convolution")(LearnedPSConv2d)
register("msar", "recalibration", _simplify_msar)(partial(MSSAR, source_channels=None))
register("msar-multi", "recalibration", _simplify_msar)(MSSAR)
register("ab", "recalibration", _simplify_ab)(AccuracyBooster)
register("ab-plus", "recalibration")(partial(AccuracyBooster, groups=1))
register("se", "recalibration")(SqueezeExcite)
register("cbam", "recalibration")(CBAM)
register("ge", "recalibration", _simplify_ge)(GatherExcite)
register("ab-design", "recalibration")(BoosterDesign)
