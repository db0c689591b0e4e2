"""The papers' single-operator networks, which every search trains first."""

from collections.abc import Sequence

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Feasible
from nas_recalib.operators import BlockChoice
from nas_recalib.search.samplers import Picks
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import Position

BASELINES = ("vanilla", "scconv", "psconv", "msar", "ab", "ab-plus")


def baselines(names: Sequence[str], space: SearchSpace, feasible: Feasible) -> dict[str, Picks]:
    """Those that the space has and that are within the budget, by name."""
    networks = {name: single_operator(space, name) for name in names}
    picks = {name: space.picks(network) for name, network in networks.items() if network is not None}
    return {name: one for name, one in picks.items() if feasible.allows(one)}


def single_operator(space: SearchSpace, name: str) -> Architecture | None:
    """Return the network that takes one operator at every block, or None where the space does not allow it.

    The operator has the arguments that the space gives it: where a space lists `msar(reduction=3)`, that is
    its network of `msar`. Where it lists several forms, the one without arguments is meant, else the first.
    """
    wanted = BlockChoice.parse(name)
    found = [_form_of(wanted, position) for position in space.positions]
    if None in found:
        return None
    return space.at(tuple(index for index in found if index is not None))


def _form_of(wanted: BlockChoice, position: Position) -> int | None:
    """Return the index of the choice at a position that is made of the wanted operators, in any form."""
    names = (wanted.convolution.name, wanted.recalibration.name)
    forms = [
        index
        for index, choice in enumerate(position.choices)
        if (choice.convolution.name, choice.recalibration.name) == names
    ]
    plain = [index for index in forms if position.choices[index] == wanted]
    return next(iter(plain or forms), None)
