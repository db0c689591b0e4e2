"""The reference set: its networks, the order of its trainings, and resuming one of them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.networks import Network, reference_networks, trainings
from reference.summary import summarise
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


def made_up(networks, noise, epochs=10):
    """Return rows whose accuracies approach the quality of each network, with noise of the seed."""
    random = np.random.default_rng(0)
    rows = []
    for number, network in enumerate(networks):
        for seed in range(network.seeds):
            end = 0.7 + 0.01 * number / len(networks) + noise * random.standard_normal()
            curve = [end - 0.1 * (1 - (epoch + 1) / epochs) ** 2 for epoch in range(epochs)]
            losses = [1 - value for value in curve]
            named = {"network": network.name, "group": network.group, "seed": seed}
            raw = {"raw_accuracies": curve, "raw_val_losses": losses}
            rows.append({**named, "accuracies": curve, "val_losses": losses, **raw})
    return rows


def test_the_summary_tells_noise_from_spread(networks):
    quiet, noisy = (summarise(made_up(networks, noise)) for noise in (0.0005, 0.005))
    assert quiet["ceilings"]["accuracies"]["expected"]["value"] > 0.9
    assert noisy["ceilings"]["accuracies"]["expected"]["value"] < 0.8
    assert noisy["ceilings"]["accuracies"]["seed_std"] == pytest.approx(0.005, rel=0.3)
    assert quiet["early"]["val_losses"][0]["value"] > 0.8, "a lower loss is better"
    assert quiet["last_tenth"] == pytest.approx(0.1 * 0.1**2)
    assert quiet["networks"]["vanilla"]["seeds"] == 4


def test_the_summary_of_a_journal_is_printed_and_written(benchmark, networks, tmp_path):
    journal, output = tmp_path / "some.jsonl", tmp_path / "some.json"
    lines = [{"space": ""}, *made_up(networks[:4], 0.001)]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = benchmark("reference/summary.py", "--journal", journal, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "vanilla" in done.stdout
    assert "16 trainings" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:6])) <= 80
    assert json.loads(output.read_text())["trainings"] == 16
    done = benchmark("reference/summary.py", "--journal", tmp_path / "none.jsonl", "--output", output)
    assert done.returncode == 1
    assert "not found; run train_reference.py" in done.stderr
