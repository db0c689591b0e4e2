"""What an architecture, a choice or a space costs, for the command line."""

from typing import Any

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, Feasible, format_quantity
from nas_recalib.errors import InputError
from nas_recalib.space import SearchSpace


def space_costs(space: str, budget: Budget) -> dict[str, Any]:
    """Least and greatest cost of a space, how many architectures it has, and the all-vanilla network's cost.

    Raises:
        InputError: If there is no such space, or nothing in it is within the budget.
    """
    loaded = SearchSpace.load(space)
    Feasible(loaded.table, budget)
    plain = Architecture.of(
        loaded.backbone, "vanilla", input_size=loaded.input_size, num_classes=loaded.num_classes
    )
    costs = {"least": loaded.table.least(), "all vanilla": plain.cost(), "greatest": loaded.table.greatest()}
    return {
        "space": loaded.name,
        "architectures": loaded.count(),
        **{name: {"macs": cost.macs, "params": cost.params} for name, cost in costs.items()},
    }


def architecture_cost(what: str, space: str, budget: Budget) -> dict[str, Any]:
    """Cost of an architecture file, or of a choice taken at every block of a space's backbone.

    Raises:
        InputError: If it is neither.
    """
    architecture, name = find_architecture(what, space)
    try:
        cost = architecture.cost()
    except ValueError as error:
        raise InputError(f"cost: {error}") from error
    content: dict[str, Any] = {name: {"macs": cost.macs, "params": cost.params}}
    if budget != Budget():
        content["within_budget"] = budget.allows(cost)
    return content


def find_architecture(what: str, space: str) -> tuple[Architecture, str]:
    """An architecture file's, or one choice at every block of a space's backbone; and how to call it.

    Raises:
        InputError: If it is neither.
    """
    if what.endswith((".yaml", ".yml")):
        return Architecture.load(what), what
    loaded = SearchSpace.load(space)
    sizes = {"input_size": loaded.input_size, "num_classes": loaded.num_classes}
    try:
        return Architecture.of(loaded.backbone, what, **sizes), f"{loaded.backbone}, all {what}"
    except ValueError as error:
        raise InputError(f"cost: {error}; an architecture file ends in .yaml") from error


def print_costs(costs: dict[str, Any]) -> None:
    """One line a figure."""
    for name, value in costs.items():
        if isinstance(value, dict):
            macs, params = value["macs"], value["params"]
            short = f"{format_quantity(macs)} MACs, {format_quantity(params)} params"
            print(f"{name}: {macs:,} MACs, {params:,} params ({short})")
        else:
            print(
                f"{name.replace('_', ' ')}: {value:,}"
                if type(value) is int
                else f"{name.replace('_', ' ')}: {value}"
            )
