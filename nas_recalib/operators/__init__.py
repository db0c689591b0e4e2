"""Operators that replace or recalibrate the convolutions of a block, and their names in search spaces."""

from nas_recalib.operators import builtin  # noqa: F401 - importing it registers the operators
from nas_recalib.operators.booster import AccuracyBooster
from nas_recalib.operators.booster_designs import BoosterDesign
from nas_recalib.operators.catalog import (
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
