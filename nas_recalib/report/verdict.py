"""How sure it is that the best of a study is the best, in plain words."""

from collections.abc import Sequence

from nas_recalib.study.significance import FEWEST
from nas_recalib.study.summary import Summary, TrialRow, leaders

_MORE = f"add --confirm {FEWEST} or more"


def verdict(summary: Summary) -> str:
    """Whether the leaders can be told apart; where none was confirmed, how to find out."""
    diverged = [row for row in summary.rows if row.diverged]
    sentences = [
        _of_the_leaders(summary),
        f"{_trials(diverged)} diverged with a new seed" if diverged else "",
        _of_the_unconfirmed(summary),
    ]
    return ". ".join(filter(None, sentences))


def confirmation_text(row: TrialRow) -> str:
    """As in `0.8100 ± 0.0040 (3)`, the mean over so many new seeds; empty where there are none.

    An interval that would reach beyond 0 or 1 is written by its ends: `0.9800, 0.9312 to 1.0000 (3)`.
    """
    found = row.confirmation
    if found is None:
        return ""
    if found.diverged:
        return f"diverged (seed {', '.join(map(str, found.diverged))})"
    spread = ""
    if found.interval is not None:
        low, high = found.interval
        spread = f" ± {found.half_width:.4f}" if low > 0 and high < 1 else f", {low:.4f} to {high:.4f}"
    return f"{found.mean:.4f}{spread} ({len(found.accuracies)})"


def accuracy_text(row: TrialRow) -> str:
    """What is known of a trial's accuracy, in a line of text; what was confirmed comes first."""
    if row.confirmation is None:
        return f"accuracy {row.accuracy:.4f} ± {row.error:.4f}"
    if row.diverged:
        return f"accuracy {row.accuracy:.4f} ± {row.error:.4f} in the search, {confirmation_text(row)}"
    return f"accuracy {confirmation_text(row)} over new seeds, {row.accuracy:.4f} in the search"


def _of_the_leaders(summary: Summary) -> str:
    best = summary.best
    if best.confirmation is None or best.confirmed is None:
        return (
            "the best value comes from one training per network and is biased upwards; "
            "add --confirm 5 to re-train the leaders with new seeds"
        )
    rivals = [row for row in summary.rows if row.confirmed is not None and not row.over and row is not best]
    tied = [row for row in rivals if row.number in summary.tied]
    count = _seeds([best, *(tied or rivals)])
    if not rivals:
        few = f", too few for an interval: {_MORE}" if best.confirmation.half_width is None else ""
        return f"trial {best.number} alone was confirmed, with {count}{few}"
    if best.confirmation.half_width is None:
        return (
            f"{_trials(rivals)} cannot be told apart from {best.number}: "
            f"too few seeds for an interval ({count}): {_MORE}"
        )
    if not tied:
        return f"trial {best.number} is better than {_trials(rivals)} at 95% with {count}"
    least = min([best, *tied], key=lambda row: row.macs)
    return (
        f"{_trials(tied)} cannot be told apart from {best.number} at 95% with {count}; "
        f"{least.number} has the fewest MACs of them"
    )


def _of_the_unconfirmed(summary: Summary) -> str:
    waiting = [row for row in leaders(summary.rows) if row.confirmed is None]
    if summary.best.confirmed is None or not waiting:
        return ""
    return f"among the leaders of the search, not confirmed: {_trials(waiting)}; --confirm N goes on"


def _seeds(rows: Sequence[TrialRow]) -> str:
    counts = [len(row.confirmation.accuracies) for row in rows if row.confirmation]
    least, most = min(counts), max(counts)
    if least < most:
        return f"{least} to {most} new seeds"
    return "1 new seed" if most == 1 else f"{most} new seeds"


def _trials(rows: Sequence[TrialRow]) -> str:
    """As in `trial 31` or `trials 12, 7 and 4`."""
    *others, last = (str(row.number) for row in rows)
    return f"trials {', '.join(others)} and {last}" if others else f"trial {last}"
