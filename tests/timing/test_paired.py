"""Alternating timing: the order of calls, their number, and the arithmetic, on a clock that stands still."""

import pytest

from nas_recalib.timing.paired import MIN_ROUNDS, Ratio, Times, time_alternately


class Clock:
    """Goes on only when a callable that it made is called; remembers who was."""

    def __init__(self):
        self.now, self.called = 0.0, []

    def __call__(self):
        return self.now

    def takes(self, name, *seconds):
        """A callable that takes these seconds in turn, and the last of them from then on."""
        left = list(seconds)

        def call():
            self.called.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def times(clock, *calls, seconds=1.0):
    return time_alternately(calls, seconds=seconds, clock=clock)


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_the_order_turns_round_every_round_and_results_keep_the_order_given(names):
    clock = Clock()
    calls = [clock.takes(name, float(index)) for index, name in enumerate(names, start=1)]
    result = times(clock, *calls)
    assert result.iterations == 1
    assert "".join(clock.called).endswith(names + names[::-1] + names + names[::-1] + names)
    assert result.rounds == (tuple(float(index) for index, _ in enumerate(names, start=1)),) * MIN_ROUNDS


def test_warming_up_is_not_in_the_samples():
    clock = Clock()
    result = times(clock, clock.takes("a", 50.0, 20.0, 1.0), clock.takes("b", 90.0, 30.0, 2.0))
    assert set(result.rounds) == {(1.0, 2.0)}


def test_slow_calls_take_five_rounds_and_no_more():
    clock = Clock()
    assert len(times(clock, clock.takes("a", 100.0), clock.takes("b", 100.0)).rounds) == MIN_ROUNDS == 5


def test_fast_calls_fill_the_seconds_given():
    clock = Clock()
    result = times(clock, clock.takes("a", 0.25), clock.takes("b", 0.25), seconds=8.0)
    assert len(result.rounds) == 16


def test_short_calls_are_repeated_equally_often_until_each_sample_lasts_20_ms():
    clock = Clock()
    result = times(clock, clock.takes("a", 2.0**-10), clock.takes("b", 2.0**-12), seconds=0.5)
    assert result.iterations == 128, "the shorter one's: 82 calls last 20 ms"
    assert set(result.rounds) == {(2.0**-10, 2.0**-12)}, "of one call"
    last = clock.called[-256:]
    assert last in (["a"] * 128 + ["b"] * 128, ["b"] * 128 + ["a"] * 128)


def test_little_time_is_kept_to():
    clock = Clock()
    result = times(clock, clock.takes("a", 2.0**-10), clock.takes("b", 2.0**-10), seconds=0.015)
    assert result.iterations == 2, "a sample is a tenth of the time, 1.5 calls"


def test_a_sample_begins_and_ends_with_nothing_left_running():
    clock, running = Clock(), []

    def launch():
        running.append(clock.takes("device", 1.0))

    def wait():
        while running:
            running.pop()()

    result = time_alternately([launch, clock.takes("b", 3.0)], seconds=1.0, synchronize=wait, clock=clock)
    assert set(result.rounds) == {(1.0, 3.0)}


def test_a_ratio_is_the_median_of_the_rounds_not_of_the_medians():
    result = Times(((1.0, 2.0), (10.0, 11.0), (2.0, 6.0), (4.0, 4.0), (1.0, 1.5)), iterations=1)
    assert result.medians == (2.0, 4.0)
    assert result.ratio() == Ratio(median=1.5, lower=1.1, upper=2.0), "of 1, 1.1, 1.5, 2, 3"
    assert result.ratio(0) == Ratio(1.0, 1.0, 1.0)


def test_whatever_slows_a_round_down_leaves_the_ratio_as_it_is():
    slowed = tuple((factor * 1.0, factor * 1.25) for factor in (1, 8, 2, 16, 4))
    assert Times(slowed, iterations=1).ratio() == Ratio(1.25, 1.25, 1.25)
