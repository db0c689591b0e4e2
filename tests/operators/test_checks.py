"""A training batch of one value per channel is refused only where a batch norm would fail."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from nas_recalib.operators import build_convolution, build_recalibration
from nas_recalib.operators.catalog import parse_part

RECALIBRATIONS = [
    "ab", "ab-plus", "msar", "msar(share=yes)", "ge", "ge(excitation=ab)", "ge(excitation=none, size=4)",
    "ab-design(design=F)",
]  # fmt: skip


def built(text):
    if text == "scconv":
        return build_convolution(parse_part(text, "convolution"), 8, 8, 1)
    return build_recalibration(parse_part(text, "recalibration"), 8)


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.fixture(params=["scconv", *RECALIBRATIONS])
def operator(request, make):
    return make(built, request.param)


def test_norms_in_evaluation_take_one_image_in_training(normal, operator):
    x = normal(1, 8, 4, 4)
    expected = operator(x)
    operator.train()
    with pytest.raises(ValueError, match=r"^[a-z-]+: training needs a batch of at least 2 images"):
        operator(x)
    for norm in norms(operator):
        norm.eval()
    torch.testing.assert_close(operator(x), expected)


def test_frozen_norms_take_one_image_in_training(normal, operator):
    x = normal(1, 8, 4, 4)
    expected = operator(x)
    for parent in list(operator.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(norm.num_features, norm.eps).double()
                frozen.load_state_dict(norm.state_dict())
                parent.add_module(name, frozen)
    assert not norms(operator)
    torch.testing.assert_close(operator.train()(x), expected)


def test_one_norm_in_training_is_enough_to_refuse(normal, make):
    operator = make(built, "msar").train()
    first, second, *others = norms(operator)  # those of scale 1 see one value
    for norm in others:
        norm.eval()
    with pytest.raises(ValueError, match=r"^msar: training needs a batch of at least 2 images"):
        operator(normal(1, 8, 4, 4))
    first.eval()
    second.eval()
    for norm in others:  # those of the scales 2 and 4 see more than one value
        norm.train()
    assert operator(normal(1, 8, 4, 4)).isfinite().all()
