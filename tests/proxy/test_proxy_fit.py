"""Choices that fit the full-size network but not the proxy network are refused before any training."""

from dataclasses import replace

import pytest
from torch import nn
from torch.nn import functional as F

from nas_recalib.errors import InputError
from nas_recalib.operators import catalog, register
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.trainer import refuse_misfits
from nas_recalib.space import SearchSpace

SPACE = """
name: pooled
backbone: resnet20
granularity: stage
convolution: [vanilla]
recalibration: [none, pooled]
"""
FIDELITY = Fidelity(images=10, validation=10, resolution=32, width=1.0, epochs=1)


@pytest.fixture
def space(monkeypatch):
    monkeypatch.setattr(catalog, "_operators", dict(catalog._operators))

    @register("pooled", "recalibration")
    class Pooled(nn.Module):
        def __init__(self, channels):
            super().__init__()

        def forward(self, x):
            return x * F.interpolate(F.avg_pool2d(x, 4), x.shape[2:]).sigmoid()

    return SearchSpace.parse(SPACE, "pooled")


def test_a_map_that_shrinks_to_nothing_is_refused_with_its_block(space):
    refuse_misfits(space, FIDELITY)
    refuse_misfits(space, replace(FIDELITY, resolution=16))
    with pytest.raises(
        InputError, match=r"^fidelity: proxy network with 1 .* 8 pixels: layer3\.0: vanilla\+pooled fails"
    ):
        refuse_misfits(space, replace(FIDELITY, resolution=8))
