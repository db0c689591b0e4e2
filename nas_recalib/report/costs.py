"""Terminal tables of costs: an architecture, a choice, a space, and the cross-check with other counters."""

import math
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, CostTable, format_cost, format_quantity, histogram
from nas_recalib.costs.check import Check, check_cost
from nas_recalib.costs.macs import Cost
from nas_recalib.errors import InputError, printable
from nas_recalib.operators import BlockChoice
from nas_recalib.pricing import cost_table, feasible, find_latencies, resolve_batch
from nas_recalib.report.terminal import PlainTable, columns
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import space_names

RUNS = Path("runs")
_BARS, _BESIDE = (8, 50), 45  # letters of the longest bar, and columns beside it


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
        return space, cost_table(space, self.budget, latencies, resolve_batch(self.batch, latencies))


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
        cost = table.cost(space.indices_of(architecture))
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
        choice = BlockChoice.parse(what)
    except ValueError as error:
        raise InputError(f"cost: {_hint(what) or error}") from error
    return Architecture.of(loaded.backbone, choice, **sizes), f"{loaded.backbone}, all {what}"


def _hint(what: str) -> str:
    """Return what else a name that is no operator stands for, and how to give that; empty if nothing."""
    if what in space_names():
        return f"{what!r} is a search space, not an operator; give --space {what}"
    if close := get_close_matches(what, space_names(), n=1, cutoff=0.85):
        return f"{what!r} is neither an operator nor a search space; did you mean --space {close[0]}?"
    with suppress(OSError, ValueError):  # what no file can be called
        if (RUNS / what / "study.db").is_file():
            return f"{what!r} is a study, not an operator; 'nas-recalib export {what}' writes its best"
        if Path(what).is_file() or Path(f"{what}.yaml").is_file():
            return f"{what!r} is not an operator; the name of an architecture file ends in .yaml"
    return ""


def cost_lines(costs: dict[str, Any]) -> Text:
    """Return one line for each figure."""
    lines = []
    for key, value in costs.items():
        name = printable(key)
        if isinstance(value, dict):
            macs, params, *others = value
            short = f"{format_quantity(value[macs])} MACs, {format_quantity(value[params])} params"
            more = "".join(f", {format_cost(other, value[other])}" for other in others)
            lines.append(f"{name}: {value[macs]:,} MACs, {value[params]:,} params ({short}{more})")
        else:
            text = f"{value:,}" if type(value) is int else value
            lines.append(f"{name.replace('_', ' ')}: {text}")
    return Text("\n".join(lines))


def space_lines(costs: dict[str, Any]) -> RenderableType:
    """Return the lines of `cost_lines`; under a budget also the share that fits, and a histogram of MACs."""
    figures = cost_lines(
        {name: costs[name] for name in ("space", "architectures", "least", "all vanilla", "greatest")}
    )
    if "budget" not in costs:
        return figures
    within, whole = _readable(costs["within_budget"]), _readable(costs["architectures"])
    lines = [f"within {Budget(**costs['budget'])}: {within} of {whole} ({100 * costs['share']:.3g}%)"]
    if any(costs["slack"].values()):
        slack = " or ".join(f"{format_cost(name, cells)}" for name, cells in costs["slack"].items())
        lines.append(f"not counted: some that are less than {slack} under a limit")
    return Group(figures, Text("\n".join(lines)), Text(), _histogram(costs))


def _histogram(costs: dict[str, Any]) -> PlainTable:
    edges, counts = costs["histogram"]["macs"], costs["histogram"]["architectures"]
    limit = costs["budget"].get("macs")
    longest = max(_BARS[0], min(_BARS[1], columns() - _BESIDE))
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
    """12,345 and 1.07e22."""
    return f"{count:,}" if count < 10**6 else f"{count:.3g}".replace("e+", "e")


def cost_check(what: str | None, space: str) -> Check:
    """Counts what the cost command was given by other means, too.

    Raises:
        InputError: If that is neither an architecture file nor a choice, or thop cannot be imported.
    """
    if what is None:
        raise InputError("check: needs an architecture file, or a choice such as psconv+ab")
    architecture, _ = find_architecture(what, space)
    sizes = {"input_size": architecture.input_size, "num_classes": architecture.num_classes}
    return check_cost(architecture.shape, architecture.blocks, **sizes)


def as_dict(check: Check) -> dict[str, Any]:
    return {
        "flop_counter": vars(check.flop_counter),
        "thop": vars(check.thop),
        "differences": [{"why": d.why, "times": d.times, **vars(d.cost)} for d in check.differences],
        "unexplained": vars(check.unexplained),
    }


def check_lines(check: Check) -> Text:
    """Return one line for each counter, and one for each reason why thop's count differs."""
    same = "the same" if check.flop_counter == check.ours else f"{_signed(check.flop_counter - check.ours)}"
    lines = [
        f"FlopCounterMode on the whole network: {_plain(check.flop_counter)}: {same}",
        f"thop on the whole network: {_plain(check.thop)}: {_signed(check.thop - check.ours)}",
        *(f"  {_signed(one.cost)}: {one.times} x {one.why}" for one in check.differences),
    ]
    if check.unexplained == Cost(0, 0):
        lines.append("ours and these differences are thop's count, to the last digit")
    else:
        lines.append(f"not explained: {_signed(check.unexplained)}")
    return Text("\n".join(lines))


def _plain(cost: Cost) -> str:
    return f"{cost.macs:,} MACs, {cost.params:,} params"


def _signed(cost: Cost) -> str:
    return f"{cost.macs:+,} MACs, {cost.params:+,} params"
