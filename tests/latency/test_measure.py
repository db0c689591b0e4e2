"""Real measurements beside a reference: in turns, without drift, on the scale that is asked for."""

import pytest
import torch
from fake_machine import FakeMachine, space
from torch._dynamo import config

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.latency.measure import PairedTimer, measure_architectures
from nas_recalib.timing.cases import Settings

CPU = torch.device("cpu")
QUICK = Settings(CPU, threads=1, seconds=0.01)
CHOSEN = [space().from_indices((choice,) * 9) for choice in (5, 0, 3)]
REFERENCE = space().from_indices((0,) * 9)


def measured(machine, **more):
    return measure_architectures(CHOSEN, QUICK, 1, REFERENCE, timer=machine, **more)


def test_drift_is_taken_out():
    drift = (1.0, 1.6, 0.7, 1.0, 1.2)
    machine = FakeMachine(drift=drift)
    results = measured(machine, passes=5)
    for architecture, result in zip(CHOSEN, results, strict=True):
        expected = machine.seconds(architecture) * 1e3
        assert (result.median_ms, result.lower, result.upper) == pytest.approx((expected,) * 3)


def test_all_are_visited_in_turn_and_then_again():
    machine, heard = FakeMachine(), []
    measured(machine, passes=3, progress=lambda done, of: heard.append((done, of)))
    assert machine.asked == CHOSEN * 3
    assert heard == [(done, 9) for done in range(1, 10)]


def test_the_latency_of_the_reference_may_be_given():
    machine = FakeMachine(drift=(2.0,))
    for result, architecture in zip(measured(machine, reference_ms=10.0), CHOSEN, strict=True):
        ratio = machine.seconds(architecture) / machine.seconds(REFERENCE)
        assert result.median_ms == pytest.approx(10.0 * ratio)


def test_quartiles_are_those_of_all_passes():
    results = measured(FakeMachine(noise=0.05), passes=40)
    for result in results:
        assert 0.02 < (result.upper - result.lower) / result.median_ms < 0.12
        assert result.lower < result.median_ms < result.upper


def test_real_networks_are_distinguished():
    small, large = (Architecture.of("resnet20", "vanilla", input_size=side) for side in (8, 64))
    first, second, again = measure_architectures([small, large, small], QUICK, 1, small)
    assert second.median_ms > 2 * max(first.median_ms, again.median_ms)


@pytest.mark.parametrize("blocks", [True, False])
def test_a_paired_timer_times_whole_networks_and_blocks(blocks):
    sample = PairedTimer(REFERENCE, QUICK, 2).time(CHOSEN[0], blocks=blocks)
    assert len(sample.reference) == len(sample.network) >= 3
    assert len(sample.blocks) == (9 if blocks else 0)
    assert all(seconds > 0 for seconds in (*sample.reference, *sample.network, *sample.blocks))
    assert torch.get_num_threads() == 1


def test_before_each_network_compiled_code_is_discarded_and_limits_are_lifted(monkeypatch):
    resets, limits = [], []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: limits.append(config.recompile_limit))
    usual = config.recompile_limit
    paired_timer = PairedTimer(REFERENCE, Settings(CPU, threads=1, seconds=0.01, compile=True), 1)
    limits.clear()
    assert len(paired_timer.time(CHOSEN[0], blocks=True).blocks) == 9
    paired_timer.time(CHOSEN[1])
    assert len(resets) == 2
    assert min(limits) > 1000
    assert config.recompile_limit == usual


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(InputError, match="batch: 0 is not from 1 to 65,536"):
        PairedTimer(REFERENCE, QUICK, 0)
    with pytest.raises(InputError, match="mode: latency is measured in 'forward', not in 'train'"):
        PairedTimer(REFERENCE, Settings(CPU, threads=1, mode="train"), 1)


def test_too_little_memory_is_reported_in_one_line(monkeypatch):
    paired_timer = PairedTimer(REFERENCE, QUICK, 7)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("nas_recalib.latency.measure.build_quickly", full)
    with pytest.raises(InputError, match="batch-size: resnet20, batch 7: does not fit"):
        paired_timer.time(CHOSEN[0])
