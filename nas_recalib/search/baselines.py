"""The papers' single-operator networks, which every search trains first."""

from collections.abc import Sequence

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Feasible
from nas_recalib.operators import BlockChoice
from nas_recalib.search.samplers import Picks
from nas_recalib.space import SearchSpace

BASELINES = ("vanilla", "scconv", "psconv", "msar", "ab", "ab-plus")


def baselines(names: Sequence[str], space: SearchSpace, feasible: Feasible) -> dict[str, Picks]:
    """Those that the space has and that are within the budget, by name."""
    networks = {name: single_operator(space, name) for name in names}
    picks = {name: space.picks(network) for name, network in networks.items() if network is not None}
    return {name: one for name, one in picks.items() if feasible.allows(one)}


def single_operator(space: SearchSpace, choice: str) -> Architecture | None:
    """The network that takes one choice at every block, or None where the space does not allow it."""
    wanted = BlockChoice.parse(choice)
    if all(wanted in position.choices for position in space.positions):
        return space.at(tuple(position.choices.index(wanted) for position in space.positions))
    return None
