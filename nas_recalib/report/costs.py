"""Costs of an architecture, a choice or a space as text and JSON, and their check by other counters."""

import math
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, CostTable, format_cost, format_exactly, format_quantity, histogram
from nas_recalib.costs.check import Check, check_cost
from nas_recalib.costs.macs import Cost
from nas_recalib.errors import InputError, input_errors, printable
from nas_recalib.operators import BlockChoice
from nas_recalib.pricing import cost_table, feasible, find_latencies, resolve_batch
from nas_recalib.report.terminal import PlainTable, columns
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import space_names

RUNS = Path("runs")
_BARS, _OTHER_COLUMNS = (8, 50), 45  # least and greatest length of the longest bar, width of the rest


@dataclass(frozen=True)
class CostOptions:
    """Space, budget and device of the `cost` command.

    Attributes:
        space: Name or path of the search space.
        budget: Limits to compare with; latency and memory are computed only where they are limited.
        latency_table: File of the table that predicts latencies (default: the one of this machine).
        batch: Batch size for the peak memory (default: the latency table's, else 1).
    """

    space: str
    budget: Budget
    latency_table: Path | None = None
    batch: int | None = None

    def load(self) -> tuple[SearchSpace, CostTable]:
        """Return the search space and its cost table.

        Raises:
            InputError: If there is no such space or latency table.
        """
        space = SearchSpace.load(self.space)
        timed = self.budget.latency is not None or self.latency_table is not None
        latencies = find_latencies(space, self.latency_table) if timed else None
        return space, cost_table(space, self.budget, latencies, resolve_batch(self.batch, latencies))


def space_costs(options: CostOptions) -> dict[str, Any]:
    """Return the size of a space with its least, greatest and all-vanilla cost.

    Under a budget also the number of architectures within it, and the histogram of all MACs.

    Raises:
        InputError: If there is no such space, or nothing in it is within the budget.
    """
    space, table = options.load()
    within = feasible(space, table, options.budget)
    vanilla = Architecture.of(
        space.backbone, "vanilla", input_size=space.input_size, num_classes=space.num_classes
    )
    content = {
        "space": space.name,
        "architectures": space.count(),
        "least": table.least(),
        "all vanilla": vars(vanilla.cost()),
        "greatest": table.greatest(),
    }
    if options.budget == Budget():
        return content
    edges, architectures = histogram(table)
    return {
        **content,
        "budget": options.budget.limits(),
        "within_budget": within.count(),
        "share": within.count() / space.count(),
        "slack": within.slack,
        "histogram": {"macs": edges, "architectures": architectures},
    }


def architecture_cost(text: str, options: CostOptions) -> dict[str, Any]:
    """Return the cost of an architecture file, or of a choice at every block of a space's backbone.

    Raises:
        InputError: If the text is neither, or a latency or memory is wanted and the architecture is not of
            the space.
    """
    architecture, name = find_architecture(text, options.space)
    if options.latency_table or options.budget.latency or options.budget.memory:
        space, table = options.load()
        cost = table.cost(space.indices_of(architecture))
    else:
        with input_errors("cost"):
            cost = vars(architecture.cost())
    content: dict[str, Any] = {name: cost}
    if options.budget != Budget():
        content["within_budget"] = options.budget.allows(cost)
    return content


def find_architecture(text: str, space: str) -> tuple[Architecture, str]:
    """Return the architecture of a file, or of a choice at every block of a space's backbone, and its name.

    Raises:
        InputError: If the text is neither.
    """
    if text.endswith((".yaml", ".yml")):
        return Architecture.load(text), text
    loaded = SearchSpace.load(space)
    sizes = {"input_size": loaded.input_size, "num_classes": loaded.num_classes}
    try:
        choice = BlockChoice.parse(text)
    except ValueError as error:
        raise InputError(f"cost: {_hint(text) or error}") from error
    return Architecture.of(loaded.backbone, choice, **sizes), f"{loaded.backbone}, all {text}"


def _hint(name: str) -> str:
    """Return how to pass a space, study or file that was given as an operator; empty if it is none."""
    if name in space_names():
        return f"{name!r} is a search space, not an operator; give --space {name}"
    if close := get_close_matches(name, space_names(), n=1, cutoff=0.85):
        return f"{name!r} is neither an operator nor a search space; did you mean --space {close[0]}?"
    with suppress(OSError, ValueError):  # raised for names that no file can have
        if (RUNS / name / "study.db").is_file():
            return f"{name!r} is a study, not an operator; 'nas-recalib export {name}' writes its best"
        if Path(name).is_file() or Path(f"{name}.yaml").is_file():
            return f"{name!r} is not an operator; the name of an architecture file ends in .yaml"
    return ""


def cost_lines(costs: dict[str, Any]) -> Text:
    """Return a line for each cost."""
    lines = []
    for key, value in costs.items():
        name = printable(key)
        if isinstance(value, dict):
            macs, params = value["macs"], value["params"]
            others = [format_cost(cost, value[cost]) for cost in value if cost not in ("macs", "params")]
            rounded = (f"{format_quantity(macs)} MACs", f"{format_quantity(params)} params", *others)
            lines.append(f"{name}: {macs:,} MACs, {params:,} params ({', '.join(rounded)})")
        else:
            text = f"{value:,}" if type(value) is int else value
            lines.append(f"{name.replace('_', ' ')}: {text}")
    return Text("\n".join(lines))


def space_lines(costs: dict[str, Any]) -> RenderableType:
    """Return the costs of a space; under a budget also the share within it, and a histogram of MACs."""
    always = ("space", "architectures", "least", "all vanilla", "greatest")
    lines = cost_lines({name: costs[name] for name in always})
    if "budget" not in costs:
        return lines
    within, total = _readable(costs["within_budget"]), _readable(costs["architectures"])
    lines.append(f"\nwithin {Budget(**costs['budget'])}: {within} of {total} ({100 * costs['share']:.3g}%)")
    if any(costs["slack"].values()):
        slack = " or ".join(format_exactly(name, cells) for name, cells in costs["slack"].items())
        lines.append(f"\nthe count is approximate: it omits some architectures within {slack} of a limit")
    return Group(lines, Text(), _histogram(costs))


def _histogram(costs: dict[str, Any]) -> PlainTable:
    edges, counts = costs["histogram"]["macs"], costs["histogram"]["architectures"]
    limit = costs["budget"].get("macs")
    longest = max(_BARS[0], min(_BARS[1], columns() - _OTHER_COLUMNS))
    rows = [
        (
            f"{format_quantity(low)} to {format_quantity(high)}",
            _readable(count),
            "#" * math.ceil(longest * count / max(counts)),
            f"<- {format_quantity(limit)}" if limit is not None and low <= limit < high else "",
        )
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return PlainTable(("MACs", "count", "", ""), "rrll", rows, "MACs of all architectures")


def _readable(count: int) -> str:
    """Return a number such as 12,345 or 1.07e22."""
    return f"{count:,}" if count < 10**6 else f"{count:.3g}".replace("e+", "e")


def cost_check(text: str | None, space: str) -> Check:
    """Return the counts of FlopCounterMode and thop for an architecture file or a choice.

    Raises:
        InputError: If the text is neither, or thop cannot be imported.
    """
    if text is None:
        raise InputError("check: needs an architecture file, or a choice such as psconv+ab")
    architecture, _ = find_architecture(text, space)
    sizes = {"input_size": architecture.input_size, "num_classes": architecture.num_classes}
    return check_cost(architecture.shape, architecture.blocks, **sizes)


def as_dict(check: Check) -> dict[str, Any]:
    """Return the counts for JSON."""
    return {
        "flop_counter": vars(check.flop_counter),
        "thop": vars(check.thop),
        "differences": [{"why": d.why, "times": d.times, **vars(d.cost)} for d in check.differences],
        "unexplained": vars(check.unexplained),
    }


def check_lines(check: Check) -> Text:
    """Return a line for each counter, and one for each reason why thop's count differs."""
    same = "the same" if check.flop_counter == check.ours else _counts(check.flop_counter - check.ours, "+")
    lines = [
        f"FlopCounterMode on the whole network: {_counts(check.flop_counter)}: {same}",
        f"thop on the whole network: {_counts(check.thop)}: {_counts(check.thop - check.ours, '+')}",
        *(f"  {_counts(d.cost, '+')}: {d.times} x {d.why}" for d in check.differences),
    ]
    if check.unexplained == Cost(0, 0):
        lines.append("our count and these differences add up to thop's count, to the last digit")
    else:
        lines.append(f"not explained: {_counts(check.unexplained, '+')}")
    return Text("\n".join(lines))


def _counts(cost: Cost, sign: str = "") -> str:
    return f"{cost.macs:{sign},} MACs, {cost.params:{sign},} params"
