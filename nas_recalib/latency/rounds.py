"""Rounds: which network stands beside the reference in each, and what was measured."""

import statistics
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from nas_recalib.files import StrictModel
from nas_recalib.latency.workbench import Sample, Timer
from nas_recalib.space import SearchSpace

Nanoseconds = Annotated[int, Field(gt=0, le=10**15)]


class Round(StrictModel):
    """What one round measured, in nanoseconds.

    Attributes:
        picks: The network: its choice at each position of the space.
        reference_ns: Median of the reference's forward passes.
        network_ns: Median of the network's forward passes.
        blocks_ns: Median of each of the network's blocks, in the order of the backbone.
    """

    picks: list[int]
    reference_ns: Nanoseconds
    network_ns: Nanoseconds
    blocks_ns: list[Nanoseconds]

    @classmethod
    def of(cls, picks: tuple[int, ...], sample: Sample) -> "Round":
        return cls(
            picks=list(picks),
            reference_ns=_nanoseconds(statistics.median(sample.reference)),
            network_ns=_nanoseconds(statistics.median(sample.network)),
            blocks_ns=[_nanoseconds(seconds) for seconds in sample.blocks],
        )


def most_choices(space: SearchSpace) -> int:
    """Choices of the position that has most of them: the least number of rounds that shows every one."""
    return max(len(position.choices) for position in space.positions)


def round_picks(space: SearchSpace, seed: int, number: int) -> tuple[int, ...]:
    """The network of a round.

    At every position the choices come in an order of its own, drawn anew each time all have been there, so
    that over as many rounds as there are choices each stands there once, among ever other neighbours.
    """
    picks = []
    for index, position in enumerate(space.positions):
        turn, step = divmod(number, len(position.choices))
        order = np.random.default_rng((seed, index, turn)).permutation(len(position.choices))
        picks.append(int(order[step]))
    return tuple(picks)


def run_rounds(space: SearchSpace, seed: int, numbers: range, timer: Timer) -> Iterator[Round]:
    """Measures the rounds of these numbers."""
    for number in numbers:
        picks = round_picks(space, seed, number)
        yield Round.of(picks, timer(space.at(picks)))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
