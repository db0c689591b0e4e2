"""The reference set: its networks, the order of its trainings, and resuming one of them."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from reference.networks import Network, reference_networks, trainings
from reference.train_reference import keep_checkpoint, train

from nas_recalib.architecture import Architecture
from nas_recalib.data import load_resident, open_source
from nas_recalib.proxy.objective import Proxy
from nas_recalib.proxy.train import Recipe
from nas_recalib.space import SearchSpace


@pytest.fixture(scope="module")
def networks():
    return reference_networks(SearchSpace.load("resnet20"))


def test_it_has_single_operators_mixtures_and_uniform_draws_all_different(networks):
    assert len({network.architecture for network in networks}) == len(networks)
    groups = Counter(network.group for network in networks)
    assert groups == {"single": 9, "stage": 6, "two": 6, "uniform": 30}
    for network in networks:
        kinds = set(network.architecture.blocks.values())
        most = {"single": 1, "stage": 3, "two": 2, "uniform": 9}
        assert len(kinds) <= most[network.group]
    assert networks == reference_networks(SearchSpace.load("resnet20")), "the same in every run"


def test_every_network_has_a_first_seed_before_any_has_a_second(networks):
    order = list(trainings(networks))
    assert len(order) == len(set(order)) == 9 * 4 + 42 * 2
    seeds = [seed for _, seed in order]
    assert seeds == sorted(seeds)


def test_an_interrupted_training_resumes_and_ends_as_if_it_had_not_been(tmp_path):
    data = load_resident(open_source("digits", Path()), 8, 64, 20, seed=0)
    proxy = Proxy(data, 0.5, 3, Recipe(batch_size=16), torch.float32, seed=1, with_raw=True)
    network = Network("ab", "single", Architecture.of("resnet20", "ab"), 1)
    whole = train(network, proxy, tmp_path / "whole.jsonl")
    first = next(iter(proxy.steps(network.architecture)))
    path = tmp_path / "left-ab-1.pt"
    keep_checkpoint(path, first, f"{proxy.fingerprint} {network.architecture}", 100.0)
    resumed = train(network, proxy, tmp_path / "left.jsonl")
    assert resumed["cpu_seconds"] > 100 > whole["cpu_seconds"]
    assert {**resumed, "cpu_seconds": 0} == {**whole, "cpu_seconds": 0}
    assert not path.exists()
    assert len(whole["raw_accuracies"]) == len(whole["val_losses"]) == 3
