"""How sure it is that the best of a study is the best, in plain words."""

from collections.abc import Sequence

from nas_recalib.study.summary import Summary, TrialRow, leaders


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
    """As in `0.8100 ± 0.0040 (3)`, the mean over so many new seeds; empty where there are none."""
    found = row.confirmation
    if found is None:
        return ""
    if found.diverged:
        return f"diverged (seed {', '.join(map(str, found.diverged))})"
    spread = "" if found.half_width is None else f" ± {found.half_width:.4f}"
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
            "the best is that of single trainings, which favour the lucky: "
            "search with --confirm N tells, by N new seeds for each leader"
        )
    rivals = [row for row in summary.rows if row.confirmed is not None and not row.over and row is not best]
    tied = [row for row in rivals if row.number in summary.tied]
    count = _seeds([best, *(tied or rivals)])
    if not rivals:
        return f"trial {best.number} alone was confirmed, with {count}"
    if best.confirmation.half_width is None:
        return f"{_trials(rivals)} cannot be told apart from {best.number}: {count} gives no interval"
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
