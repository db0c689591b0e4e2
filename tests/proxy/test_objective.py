"""Training of trials: every operator trains, and every failure has a kind and a message in one line."""

import gc
import math
import weakref
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from examples import soaked
from torch import nn

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.data import load_resident, open_source
from nas_recalib.networks import get_backbone
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Diverged, Recipe

CONVOLUTIONS = (
    "vanilla",
    "scconv",
    "scconv(r=2)",
    "psconv",
    "psconv(pattern=1-2)",
    "psconv(pattern=1-2-1-1)",
)
RECALIBRATIONS = ("none", "msar", "ab", "ab-plus")
PLAIN = Architecture.of("resnet20", "vanilla")


@pytest.fixture(scope="module")
def proxy():
    data = load_resident(open_source("digits", Path()), 16, 32, 20, seed=0)
    recipe = Recipe(batch_size=32, peak_rate=0.05)
    return Proxy(data, width=0.5, epochs=1, recipe=recipe, dtype=torch.float32, seed=0)


def mixed(convolution, shift=0):
    """One convolution everywhere, with one recalibration after another."""
    return Architecture.of(
        "resnet20",
        {
            block: f"{convolution}+{RECALIBRATIONS[(number + shift) % 4]}"
            for number, block in enumerate(get_backbone("resnet20").blocks())
        },
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_every_operator_trains(proxy, convolution, dtype):
    reported = []
    curve = replace(proxy, dtype=dtype).train(mixed(convolution), reported.append)
    assert not isinstance(curve, Failure), curve.details
    assert curve == reported
    assert [epoch.number for epoch in curve] == [1]
    assert math.isfinite(curve[0].loss)


def test_a_trial_follows_from_its_architecture_and_seed(proxy):
    before = torch.get_rng_state()
    first, again = (proxy.train(mixed("psconv"), lambda _: False) for _ in range(2))
    assert first == again
    assert torch.equal(before, torch.get_rng_state())
    assert proxy.train(mixed("psconv", shift=1), lambda _: False) != first
    for other in ({"seed": 1}, {"dtype": torch.bfloat16}, {"width": 1.0}):
        assert replace(proxy, **other).train(mixed("psconv"), lambda _: False) != first


def test_initial_weights_follow_from_the_seed(proxy, monkeypatch):
    networks = []
    monkeypatch.setattr(
        "nas_recalib.proxy.objective.Training", lambda network, *_, **__: networks.append(network)
    )
    for seed in (0, 0, 1):
        replace(proxy, seed=seed).train(PLAIN, bool)
    first, again, other = (network.fc.weight for network in networks)
    assert first.equal(again)
    assert not first.equal(other)


def test_a_true_answer_prunes(proxy):
    assert len(replace(proxy, epochs=3).train(PLAIN, lambda epoch: epoch.number == 2)) == 2


def test_a_promoted_trial_resumes_from_its_rung(proxy):
    whole = replace(proxy, epochs=3)
    states = [deepcopy(step.state_dict()) for step in whole.steps(PLAIN)]
    *_, last = whole.steps(PLAIN, states[1])
    assert last.curve == whole.train(PLAIN, lambda _: False)
    assert len(list(whole.steps(PLAIN, states[1]))) == 1
    assert not list(whole.steps(PLAIN, states[2])), "nothing is left to train"


def test_steps_are_the_training_after_each_of_its_epochs(proxy):
    whole = replace(proxy, epochs=3)
    states, curves = [], []
    for step in whole.steps(PLAIN, micro_batches=2):
        curves.append([*step.curve])
        states.append(deepcopy(step.state_dict()))
    assert [len(curve) for curve in curves] == [1, 2, 3]
    assert curves[-1][0].accuracy != curves[-1][2].accuracy
    rest = [[*step.curve] for step in whole.steps(PLAIN, states[0], micro_batches=2)]
    assert rest == curves[1:]
    assert curves[-1] != whole.train(PLAIN, lambda _: False), "the statistics are of the parts"


def test_a_failure_is_the_last_step(proxy):
    *before, last = replace(proxy, recipe=Recipe(16, peak_rate=1e30), epochs=3).steps(PLAIN)
    assert len(before) < 3
    assert last.kind == "diverged"


def test_a_training_that_diverges_has_a_kind_of_its_own(proxy):
    failure = replace(proxy, recipe=Recipe(16, peak_rate=1e30), epochs=3).train(PLAIN, lambda _: False)
    assert failure.kind == "diverged"
    assert "loss is nan" in failure.message
    assert failure.details == ""


def test_an_operator_that_fits_the_network_but_not_the_proxy_network_is_an_error(proxy):
    architecture = Architecture.of("resnet20", "ab(groups=16)")
    assert architecture.cost()
    failure = proxy.train(architecture, lambda _: False)
    assert failure.kind == "error"
    assert failure.message == "ValueError: ab: groups = 16 is not a divisor of the channels (8)"
    assert "Traceback" in failure.details


WINDOWS = "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
LINUX = (
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12 (Cannot ...)"
)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Diverged("the training loss is inf in epoch 1"), "diverged", "the training loss is inf in epoch 1"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "out-of-memory", "CUDA out of memory."),
        (MemoryError(), "out-of-memory", "MemoryError"),
        (RuntimeError(WINDOWS), "out-of-memory", WINDOWS),
        (RuntimeError(LINUX), "out-of-memory", LINUX),
        (RuntimeError("shapes differ\nin detail"), "error", "RuntimeError: shapes differ"),
        (ZeroDivisionError(), "error", "ZeroDivisionError: ZeroDivisionError"),
        (KeyError("fc"), "error", "KeyError: 'fc'"),
        (ValueError("\n\nlate words"), "error", "ValueError: late words"),
        (ValueError("\n"), "error", "ValueError: ValueError"),
    ],
)
def test_failures_have_a_kind_and_a_message_in_one_line(proxy, monkeypatch, error, kind, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("nas_recalib.proxy.objective.Training", fail)
    failure = proxy.train(PLAIN, lambda _: False)
    assert (failure.kind, failure.message) == (kind, message)
    assert ("in fail" in failure.details) == (kind == "error")


def test_the_allocator_of_this_machine_is_understood(proxy, monkeypatch):
    monkeypatch.setattr("nas_recalib.proxy.objective.Training", lambda *_, **__: torch.empty(1 << 55))
    assert proxy.train(PLAIN, lambda _: False).kind == "out-of-memory"


class Full(nn.Module):
    """Network that runs out of memory from its nth batch on."""

    def __init__(self, network, first, fill):
        super().__init__()
        self.network, self.left, self.fill = network, first, fill

    def forward(self, images):
        self.left -= 1
        logits = self.network(images)
        if self.left <= 0:
            self.fill()
        return logits


def allocate_too_much():
    torch.empty(1 << 55)


def find_the_gpu_full():
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("fill", [allocate_too_much, find_the_gpu_full])
@pytest.mark.parametrize("first", soaked([0, 1, 3, 4], [1, 4]))
def test_nothing_of_a_training_without_memory_stays_in_memory(proxy, monkeypatch, first, fill):
    networks, released = [], []

    def build(*given):
        if first == 0:
            fill()
        network = build_seeded(*given)
        networks.append(weakref.ref(network))
        networks.extend(weakref.ref(parameter) for parameter in network.parameters())
        return Full(network, first, fill)

    monkeypatch.setattr("nas_recalib.proxy.objective.build_seeded", build)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: released.append([ref() for ref in networks]))
    gc.collect()
    gc.disable()
    try:
        steps = replace(proxy, epochs=3).steps(PLAIN)
        *before, failure = steps  # the trainings themselves are held on to
        assert failure.kind == "out-of-memory"
        assert len(before) == (1 if first > 2 else 0)
        assert all(len(step.curve) == 1 for step in before)
        assert len(networks) > 30 or first == 0
        assert released == [[None] * len(networks)], "freed before the cache is emptied"
    finally:
        gc.enable()


def test_after_a_failure_the_next_training_is_as_ever(proxy, monkeypatch):
    expected = proxy.train(PLAIN, lambda _: False)
    with monkeypatch.context() as patch:
        patch.setattr("nas_recalib.proxy.train.F.cross_entropy", lambda *_, **__: torch.empty(1 << 55))
        assert proxy.train(PLAIN, lambda _: False).kind == "out-of-memory"
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert proxy.train(PLAIN, lambda _: False) == expected


def test_an_interruption_is_not_a_failure(proxy):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        proxy.train(PLAIN, interrupt)
