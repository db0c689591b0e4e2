"""The papers' single-operator networks, which every search trains first."""

from collections.abc import Collection

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Feasible
from nas_recalib.operators import BlockChoice
from nas_recalib.search.samplers import Picks
from nas_recalib.space import SearchSpace

BASELINES = ("vanilla", "scconv", "psconv", "msar", "ab", "ab-plus")


def next_baseline(
    space: SearchSpace, feasible: Feasible, tried: Collection[Picks]
) -> tuple[str, Picks] | None:
    """Name and picks of the first within the budget that has not been tried."""
    for name in BASELINES:
        architecture = single_operator(space, name)
        if architecture is None:
            continue
        picks = space.picks(architecture)
        if picks not in tried and feasible.allows(picks):
            return name, picks
    return None


def single_operator(space: SearchSpace, choice: str) -> Architecture | None:
    """The network that takes one choice at every block, or None where the space does not allow it."""
    wanted = BlockChoice.parse(choice)
    if all(wanted in position.choices for position in space.positions):
        return space.at(tuple(position.choices.index(wanted) for position in space.positions))
    return None
