"""Zero-cost proxies by name, their lack of side effects, and mean ranks of several scores."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nas_recalib.networks import get_backbone
from nas_recalib.operators import BlockChoice
from nas_recalib.proxy.scores import (
    aggregate_ranks,
    get_score,
    register_score,
    registry,
    score_names,
    score_network,
)

NAMES = ("fisher", "grad_norm", "jacob_cov", "macs", "naswot", "params", "snip", "synflow", "zen")
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def network(make):
    """In an unusual state: a frozen weight, a norm in evaluation mode, gradients, a training stem."""
    scaled = replace(get_backbone("resnet20").scaled(0.25), depths=(1, 1, 1))
    choices = dict.fromkeys(scaled.blocks(), BlockChoice.parse("psconv+msar"))
    built = make(scaled.build, choices, 3, 3, dtype=torch.float32)
    built.layer1.train()
    built.layer1[0].bn1.eval()
    built(IMAGES).sum().backward()
    built.conv1.weight.requires_grad_(False)
    return built


@pytest.fixture
def scores(monkeypatch):
    """A registry that a test may add to."""
    monkeypatch.setattr(registry, "_scores", dict(registry._scores))


def test_the_names_are_those_of_the_files():
    assert tuple(sorted(score_names())) == NAMES


def test_a_registered_score_is_called_with_the_network(scores, network):
    @register_score("bias")
    def bias(network, images, labels):
        return (network.fc.bias.sum() + images.mean() + labels.sum()).item()

    assert get_score("bias") is bias
    expected = network.fc.bias.sum() + IMAGES.mean() + LABELS.sum()
    score = score_network("bias", network, IMAGES, LABELS)
    assert isinstance(score, float)
    assert score == pytest.approx(expected.item())


def test_a_name_is_not_given_twice(scores):
    with pytest.raises(ValueError, match=r"^a score named 'snip' is registered already$"):
        register_score("snip")(lambda *_: 0.0)


def test_an_unknown_name_is_refused_with_what_is_allowed(network):
    for ask in (get_score, lambda name: score_network(name, network, IMAGES, LABELS)):
        with pytest.raises(ValueError, match=r"^unknown score 'nas'; allowed: .*grad_norm.*naswot.*zen"):
            ask("nas")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_network_changes(network, name):
    seen = []
    handle = network.layer2.register_forward_hook(lambda *_: seen.append(1))
    hooks = dict(network.layer2._forward_hooks)
    state = deepcopy(network.state_dict())
    grads = {key: p.grad.clone() for key, p in network.named_parameters()}
    modes = [m.training for m in network.modules()]
    asking = [p.requires_grad for p in network.parameters()]
    images, random = IMAGES.clone(), torch.get_rng_state()
    module_names = [key for key, _ in network.named_modules()]

    score = score_network(name, network, images, LABELS)

    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())
    assert all(torch.equal(p.grad, grads[key]) for key, p in network.named_parameters())
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == asking
    assert [key for key, _ in network.named_modules()] == module_names
    assert dict(network.layer2._forward_hooks) == hooks
    assert not any(m._forward_hooks for m in network.modules() if m is not network.layer2)
    assert torch.equal(images, IMAGES)
    assert not images.requires_grad
    handle.remove()
    assert isinstance(score, float)


@pytest.mark.parametrize("name", NAMES)
def test_how_the_caller_stands_does_not_matter(network, name):
    """Gradients switched off, another mode, frozen weights, images in another precision."""
    with torch.no_grad():
        score = score_network(name, network, IMAGES, LABELS)
    torch.rand(3)
    other = deepcopy(network).train().requires_grad_(True)
    assert score_network(name, other, IMAGES.double(), LABELS) == score


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_fixes_what_is_drawn(network, name):
    first, again, other = (score_network(name, network, IMAGES, LABELS, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert (first == other) is (name != "zen")


@pytest.mark.parametrize("name", NAMES)
def test_precisions_agree(network, name):
    single = score_network(name, network, IMAGES, LABELS)
    assert score_network(name, network.double(), IMAGES, LABELS) == pytest.approx(single, rel=1e-3)


def naive_ranks(values):
    return [sum(other < one for other in values) + (values.count(one) + 1) / 2 for one in values]


def test_ranks_are_averaged():
    assert aggregate_ranks({"a": [5.0, 1.0, 3.0]}) == [3, 1, 2]
    assert aggregate_ranks({"a": [5.0, 1.0, 3.0], "b": [1.0, 2.0, 3.0]}) == [2, 1.5, 2.5]


def test_ties_share_their_ranks():
    assert aggregate_ranks({"a": [2.0, 7.0, 2.0, 0.0]}) == [2.5, 4, 2.5, 1]


def test_infinities_rank_in_order_and_what_is_no_number_below_them():
    assert aggregate_ranks({"a": [0.0, -math.inf, math.nan, math.inf]}) == [3, 2, 1, 4]
    assert aggregate_ranks({"a": [math.nan, 1.0, math.nan]}) == [1.5, 3, 1.5]


_columns = st.integers(1, 8).flatmap(
    lambda n: st.lists(st.lists(st.integers(-9, 9), min_size=n, max_size=n), min_size=1, max_size=4)
)


@given(_columns)
def test_only_the_order_of_a_score_counts(columns):
    ranks = aggregate_ranks({str(i): values for i, values in enumerate(columns)})
    ranked = [naive_ranks(values) for values in columns]
    assert ranks == pytest.approx([sum(of_one) / len(columns) for of_one in zip(*ranked, strict=True)])
    bent = {str(i): [math.exp(v) * (i + 1) - 5 for v in values] for i, values in enumerate(columns)}
    assert aggregate_ranks(bent) == ranks


def test_scores_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"^scores of different numbers of networks: a has 2, b has 1$"):
        aggregate_ranks({"a": [1.0, 2.0], "b": [1.0]})
    with pytest.raises(ValueError, match=r"^no scores to aggregate$"):
        aggregate_ranks({})


def test_a_network_of_another_kind_has_no_zen_score():
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(ValueError, match="feature maps: Sequential has no attribute 'maps'"):
        score_network("zen", other, IMAGES, LABELS)
