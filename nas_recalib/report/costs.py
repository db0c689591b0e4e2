"""What an architecture, a choice or a space costs, for the command line."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, CostTable, format_cost, format_quantity, histogram
from nas_recalib.errors import InputError, printable
from nas_recalib.pricing import feasible, find_latencies, meant_batch, price
from nas_recalib.space import SearchSpace

_BAR = 50


@dataclass(frozen=True)
class Asked:
    """What costs are to be told of.

    Attributes:
        space: Name or path.
        budget: What is limited, and so told.
        latency_table: File of the table that predicts latencies (default: the one of this machine).
        batch: Images at once, for the peak memory.
    """

    space: str
    budget: Budget
    latency_table: Path | None = None
    batch: int | None = None

    @property
    def of_device(self) -> bool:
        """Whether more than MACs and parameters is asked for."""
        return bool(self.latency_table or self.budget.latency or self.budget.memory)

    def priced(self) -> tuple[SearchSpace, CostTable]:
        """The space, and what its choices cost.

        Raises:
            InputError: If there is no such space or table.
        """
        space = SearchSpace.load(self.space)
        timed = self.budget.latency is not None or self.latency_table is not None
        latencies = find_latencies(space, self.latency_table) if timed else None
        return space, price(space, self.budget, latencies, meant_batch(self.batch, latencies))


def space_costs(asked: Asked) -> dict[str, Any]:
    """Least and greatest cost of a space, how many architectures it has, and the all-vanilla network's cost.

    Under a budget also how many are within it, and how the MACs of all are spread.

    Raises:
        InputError: If there is no such space, or nothing in it is within the budget.
    """
    space, table = asked.priced()
    within = feasible(space, table, asked.budget)
    plain = Architecture.of(
        space.backbone, "vanilla", input_size=space.input_size, num_classes=space.num_classes
    )
    content = {
        "space": space.name,
        "architectures": space.count(),
        "least": table.least(),
        "all vanilla": vars(plain.cost()),
        "greatest": table.greatest(),
    }
    if asked.budget == Budget():
        return content
    edges, architectures = histogram(table)
    return {
        **content,
        "budget": asked.budget.limits(),
        "within_budget": within.count(),
        "share": within.count() / space.count(),
        "slack": within.slack,
        "histogram": {"macs": edges, "architectures": architectures},
    }


def architecture_cost(what: str, asked: Asked) -> dict[str, Any]:
    """Cost of an architecture file, or of a choice taken at every block of a space's backbone.

    Raises:
        InputError: If it is neither, or latency or memory is asked of one that is not of the space.
    """
    architecture, name = find_architecture(what, asked.space)
    if asked.of_device:
        space, table = asked.priced()
        cost = table.cost(space.picks(architecture))
    else:
        try:
            cost = vars(architecture.cost())
        except ValueError as error:
            raise InputError(f"cost: {error}") from error
    content: dict[str, Any] = {name: cost}
    if asked.budget != Budget():
        content["within_budget"] = asked.budget.allows(cost)
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
    for key, value in costs.items():
        name = printable(key)
        if isinstance(value, dict):
            macs, params, *others = value
            short = f"{format_quantity(value[macs])} MACs, {format_quantity(value[params])} params"
            more = "".join(f", {format_cost(other, value[other])}" for other in others)
            print(f"{name}: {value[macs]:,} MACs, {value[params]:,} params ({short}{more})")
        else:
            print(
                f"{name.replace('_', ' ')}: {value:,}"
                if type(value) is int
                else f"{name.replace('_', ' ')}: {value}"
            )


def print_space(costs: dict[str, Any]) -> None:
    """As `print_costs`; under a budget also what share of the space fits, and a histogram of MACs."""
    print_costs(
        {name: costs[name] for name in ("space", "architectures", "least", "all vanilla", "greatest")}
    )
    if "budget" not in costs:
        return
    within, whole = _readable(costs["within_budget"]), _readable(costs["architectures"])
    print(f"within {Budget(**costs['budget'])}: {within} of {whole} ({100 * costs['share']:.3g}%)")
    if any(costs["slack"].values()):
        slack = " or ".join(f"{format_cost(name, cells)}" for name, cells in costs["slack"].items())
        print(f"not counted: some that are less than {slack} under a limit")
    print("\nMACs of all architectures:")
    edges, counts = costs["histogram"]["macs"], costs["histogram"]["architectures"]
    limit = costs["budget"].get("macs")
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bar = "#" * math.ceil(_BAR * count / max(counts))
        mark = f" <- {format_quantity(limit)}" if limit is not None and low <= limit < high else ""
        span = f"{format_quantity(low)} to {format_quantity(high)}"
        print(f"{span:>20}  {_readable(count):>8}  {bar}{mark}")


def _readable(count: int) -> str:
    """12,345 and 1.07e22."""
    return f"{count:,}" if count < 10**6 else f"{count:.3g}".replace("e+", "e")
