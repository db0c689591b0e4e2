"""Accuracy Booster: locality, parameters and refusals; test_references.py has its equations."""

import pytest
import torch

from nas_recalib.operators import AccuracyBooster


def test_every_channel_of_ab_looks_at_itself_alone(normal, make):
    x = normal(1, 12, 4, 4)
    other = x.clone()
    other[:, 5] += 1
    ab, plus = make(AccuracyBooster, 12), make(AccuracyBooster, 12, groups=1)
    assert (ab(other) != ab(x)).flatten(2).any(2).nonzero()[:, 1].tolist() == [5]
    assert (plus(other) != plus(x)).flatten(2).any(2).all()


# Table 15: parameters of ResNet-164 on CIFAR-100, 1.734M without.
@pytest.mark.parametrize(
    ("groups", "millions"), [(None, 1.758), (16, 1.847), (8, 1.944), (4, 2.137), (2, 2.524), (1, 3.298)]
)
def test_parameters_in_resnet_164_are_those_printed(groups, millions):
    """18 bottlenecks a stage, with outputs of 64, 128 and 256 channels."""
    boosters = [AccuracyBooster(channels, groups) for channels in (64, 128, 256)]
    added = 18 * sum(p.numel() for booster in boosters for p in booster.parameters())
    assert round(1.734 + added / 1e6, 3) == millions


@pytest.mark.parametrize("groups", [None, 1])
def test_training_needs_two_images(normal, make, groups):
    module = make(AccuracyBooster, 12, groups).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match="ab: training needs a batch of at least 2 images"):
        module(normal(1, 12, 8, 8))
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    assert module(normal(2, 12, 8, 8)).isfinite().all()
    assert module.eval()(normal(1, 12, 8, 8)).isfinite().all()


@pytest.mark.parametrize(
    ("channels", "groups", "message"),
    [
        (0, None, "channels = 0 is not at least 1"),
        (12, 5, r"groups = 5 is not a divisor of the channels \(12\)"),
        (12, 0, "groups = 0 is not a divisor"),
        (12, 24, "groups = 24 is not a divisor"),
    ],
)
def test_names_the_argument_that_is_wrong(channels, groups, message):
    with pytest.raises(ValueError, match=f"^ab: {message}"):
        AccuracyBooster(channels, groups)
