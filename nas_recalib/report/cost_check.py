"""The count of a network beside two other counters', for the command line."""

from typing import Any

from rich.text import Text

from nas_recalib.costs.check import Check, check_cost
from nas_recalib.costs.macs import Cost
from nas_recalib.errors import InputError
from nas_recalib.report.costs import find_architecture


def cost_check(what: str | None, space: str) -> Check:
    """Counts what the cost command was given by other means, too.

    Raises:
        InputError: If that is neither an architecture file nor a choice, or thop cannot be imported.
    """
    if what is None:
        raise InputError("check: needs an architecture file, or a choice such as psconv+ab")
    architecture, _ = find_architecture(what, space)
    return check_cost(architecture)


def as_dict(check: Check) -> dict[str, Any]:
    return {
        "flop_counter": vars(check.whole),
        "thop": vars(check.thop),
        "differences": [{"why": d.why, "times": d.times, **vars(d.cost)} for d in check.differences],
        "unexplained": vars(check.unexplained),
    }


def check_lines(check: Check) -> Text:
    """Return one line for each counter, and one for each reason why thop's count differs."""
    same = "the same" if check.whole == check.ours else f"{_signed(check.whole - check.ours)}"
    lines = [
        f"FlopCounterMode on the whole network: {_plain(check.whole)}: {same}",
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
