"""The algebra: what a machine of known times does comes out again, through drift and noise."""

import numpy as np
import pytest
from fake_machine import FakeMachine, space

from nas_recalib.latency.conditions import Conditions
from nas_recalib.latency.fit import max_choices, round_indices, run_rounds
from nas_recalib.latency.table import LatencyTable

CONDITIONS = Conditions(
    kind="cpu",
    device="abacus",
    threads=1,
    dtype="float32",
    memory_format="channels_last",
    batch=1,
    compile=False,
    seed=0,
    nas_recalib="0",
    torch="0",
)
DRIFT = (1.0, 1.7, 0.8, 1.0, 1.3, 1.0, 0.6)


def table(chosen, machine, rounds=18):
    done = tuple(run_rounds(chosen, 0, range(rounds), machine))
    return LatencyTable(chosen, CONDITIONS, rounds, done)


def unseen(chosen, count=40):
    random = np.random.default_rng(99)
    return [
        chosen.from_indices(tuple(int(random.integers(len(p.choices))) for p in chosen.positions))
        for _ in range(count)
    ]


@pytest.mark.parametrize("granularity", ["block", "stage", "network"])
def test_known_times_come_out_again_whatever_the_drift(granularity):
    chosen, machine = space(granularity), FakeMachine(drift=DRIFT)
    made = table(chosen, machine)
    assert made.reference_ms == pytest.approx(machine.seconds(made.reference) * 1e3, rel=1e-6)
    for index, position in enumerate(chosen.positions):
        for choice, entry in enumerate(made.entries[index]):
            indices = [0] * len(chosen.positions)
            indices[index] = choice
            architecture = chosen.from_indices(tuple(indices))
            seconds = dict(zip(architecture.blocks, machine.blocks(architecture), strict=True))
            expected = sum(seconds[name] for name in position.blocks)
            assert (entry.median, entry.lower, entry.upper) == pytest.approx((expected,) * 3, rel=1e-5)
    assert made.fit.intercept == pytest.approx(0.002, rel=1e-2)
    assert made.fit.slope == pytest.approx(1.0, rel=1e-4)
    assert made.fit.large_error < 1e-5
    for architecture in unseen(chosen):
        assert made.predict(architecture) == pytest.approx(machine.seconds(architecture) * 1e3, rel=1e-5)


def test_noise_averages_out():
    chosen, machine = space(), FakeMachine(drift=DRIFT, noise=0.05)
    made = table(chosen, machine, rounds=36)
    predicted = [made.predict(architecture) for architecture in unseen(chosen)]
    errors = np.abs(np.array(predicted) / [machine.seconds(a) * 1e3 for a in unseen(chosen)] - 1)
    assert np.median(errors) < 0.02
    assert errors.max() < 0.06
    assert 0 < made.fit.typical_error < made.fit.large_error < 0.1


def test_without_the_reference_the_drift_would_be_in_the_predictions():
    chosen, machine = space(), FakeMachine(drift=DRIFT)
    made = table(chosen, machine)
    still = [done.model_copy(update={"reference_ns": 1_000_000}) for done in made.rounds]
    other = LatencyTable(chosen, CONDITIONS, made.wanted, tuple(still))
    errors = [abs(other.predict(a) / (machine.seconds(a) * 1e3) - 1) for a in unseen(chosen)]
    assert np.median(errors) > 0.02


def test_a_slope_and_rounds_that_stand_out():
    chosen, machine = space(), FakeMachine(slope=1.25, outliers=(2, 11))
    made = table(chosen, machine)
    assert made.fit.slope == pytest.approx(1.25, rel=1e-3)
    for architecture in unseen(chosen):
        assert made.predict(architecture) == pytest.approx(machine.seconds(architecture) * 1e3, rel=1e-3)


def test_networks_that_are_all_alike_have_the_slope_1():
    chosen, machine = space(convolution="[psconv]", recalibration="[ab]"), FakeMachine(slope=1.25)
    made = table(chosen, machine, rounds=3)
    assert made.fit.slope == 1.0
    (only,) = unseen(chosen, 1)
    assert made.predict(only) == pytest.approx(machine.seconds(only) * 1e3, rel=1e-6)


def test_a_slope_that_cannot_be_is_not_believed():
    made = table(space(), FakeMachine(between=1.0, slope=-0.1))
    assert made.fit.slope == 1.0


def test_equal_blocks_share_their_samples():
    made = table(space(), FakeMachine(noise=0.1))
    by_name = dict(zip((p.name for p in made.space.positions), made.entries, strict=True))
    assert by_name["layer2.1"] == by_name["layer2.2"]
    assert {entry.samples for entry in by_name["layer2.1"]} == {2 * 3}
    assert by_name["layer2.0"] != by_name["layer2.1"]
    assert {entry.samples for entry in by_name["layer2.0"]} == {3}
    assert {entry.samples for entry in by_name["layer1.0"]} == {3 * 3}, "the first stage keeps its shape"
    for row in made.entries:
        assert all(entry.lower < entry.median < entry.upper for entry in row)


def test_over_as_many_rounds_as_choices_each_stands_once_at_every_position():
    chosen = space()
    for turn in range(3):
        rounds = [round_indices(chosen, 5, turn * 6 + step) for step in range(6)]
        for indices in zip(*rounds, strict=True):
            assert sorted(indices) == list(range(6))
        assert len({tuple(indices) for indices in zip(*rounds, strict=True)}) > 3, "in orders of their own"
    orders = [[round_indices(chosen, seed, number) for number in range(12)] for seed in (5, 5, 6)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:6] != orders[0][6:]


def test_positions_with_fewer_choices_go_round_more_often():
    text = space().describe().replace("overrides: {}", "overrides: {layer3: {convolution: [scconv]}}")
    chosen = type(space()).parse(text, "tiny")
    assert [len(position.choices) for position in chosen.positions] == [6] * 6 + [2] * 3
    assert max_choices(chosen) == 6
    last = [round_indices(chosen, 0, number)[-1] for number in range(6)]
    assert [sorted(last[start : start + 2]) for start in (0, 2, 4)] == [[0, 1]] * 3
    made = table(chosen, FakeMachine(), rounds=6)
    assert [entry.samples for entry in made.entries[6]] == [3, 3]
