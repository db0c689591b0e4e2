"""Terminal tables of a study: results, how sure the best is, status, details of a trial."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.costs import format_quantity
from nas_recalib.errors import printable
from nas_recalib.report.terminal import PlainTable, duration
from nas_recalib.study.statistics import FEWEST
from nas_recalib.study.status import RunningTrial, StudyStatus, TrialDetails
from nas_recalib.study.summary import ENOUGH_FOR_IMPORTANCE, Summary, TrialRow, conflicting, leaders

_MORE = f"add --confirm {FEWEST} or more"


def verdict(summary: Summary) -> str:
    """Whether the leaders can be told apart; where none was confirmed, how to find out."""
    diverged = [row for row in summary.rows if row.diverged]
    sentences = [
        _of_the_leaders(summary),
        f"{_trial_counts(diverged)} diverged with a new seed" if diverged else "",
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
            f"{_trial_counts(rivals)} cannot be told apart from {best.number}: "
            f"too few seeds for an interval ({count}): {_MORE}"
        )
    if not tied:
        return f"trial {best.number} is better than {_trial_counts(rivals)} at 95% with {count}"
    least = min([best, *tied], key=lambda row: row.macs)
    return (
        f"{_trial_counts(tied)} cannot be told apart from {best.number} at 95% with {count}; "
        f"{least.number} has the fewest MACs of them"
    )


def _of_the_unconfirmed(summary: Summary) -> str:
    waiting = [row for row in leaders(summary.rows) if row.confirmed is None]
    if summary.best.confirmed is None or not waiting:
        return ""
    return f"among the leaders of the search, not confirmed: {_trial_counts(waiting)}; --confirm N goes on"


def _seeds(rows: Sequence[TrialRow]) -> str:
    counts = [len(row.confirmation.accuracies) for row in rows if row.confirmation]
    least, most = min(counts), max(counts)
    if least < most:
        return f"{least} to {most} new seeds"
    return "1 new seed" if most == 1 else f"{most} new seeds"


def _trial_counts(rows: Sequence[TrialRow]) -> str:
    """As in `trial 31` or `trials 12, 7 and 4`."""
    *others, last = (str(row.number) for row in rows)
    return f"trials {', '.join(others)} and {last}" if others else f"trial {last}"


def study_tables(summary: Summary, top: int) -> RenderableType:
    """Best architecture, trials, front and importance of a study, one below the other."""
    best = summary.best
    parts: list[RenderableType] = [
        Text("\n".join(map(printable, _headline(summary).splitlines()))),
        Text(),
        _trials("Trials", summary.rows[:top]),
        Text(),
        _trials(
            f"Front of {' against '.join(conflicting(summary.config))}{_volume(summary)}",
            [row for number in summary.front for row in summary.rows if row.number == number],
        ),
        Text(),
        _blocks(best),
        Text(),
        _importance(summary),
    ]
    return Group(*parts)


def _volume(summary: Summary) -> str:
    return f" (hypervolume {summary.hypervolumes[-1][1]:.4f})" if summary.hypervolumes else ""


def _headline(summary: Summary) -> str:
    best, config, fidelity = summary.best, summary.config, summary.config.fidelity
    pruned = sum(row.pruned for row in summary.rows)
    failed = "".join(f", {n} {kind}" for kind, n in summary.failures.items())
    return (
        f"{summary.study}: {summary.counts} ({pruned} pruned), "
        f"{summary.replayed} duplicates answered from cache{failed}\n"
        f"within {config.budget}, on {config.data}: {fidelity.resolution} px, "
        f"width {fidelity.width:g}, {fidelity.epochs} epochs, "
        f"{fidelity.validation:,} validation images, seed {config.seed}\n"
        f"best: trial {best.number}, {accuracy_text(best)}, "
        f"{format_quantity(best.macs)} MACs, {format_quantity(best.params)} params{timed_text(best)}\n"
        f"{verdict(summary)}"
    )


def timed_text(row: TrialRow) -> str:
    """A trial's latency, predicted and measured, to go after its other figures; empty where there is none."""
    if row.latency_ms is None:
        return ""
    measured = "not measured" if row.measured_ms is None else f"{row.measured_ms:.3f} ms measured"
    over = ", OVER THE LIMIT" if row.over else ""
    return f", {row.latency_ms:.3f} ms predicted, {measured}{over}"


def _trials(title: str, rows: Sequence[TrialRow]) -> PlainTable:
    timed = any(row.latency_ms is not None for row in rows)
    latency = ("ms predicted", "measured") if timed else ()
    confirmed = any(row.confirmation for row in rows)
    confirmation = ("confirmed, 95% (seeds)",) if confirmed else ()
    headings = ("trial", *confirmation, "accuracy", "MACs", "params", *latency, "epochs", "s")
    cells = [
        (
            str(row.number),
            *((confirmation_text(row),) if confirmed else ()),
            f"{row.accuracy:.4f} ± {row.error:.4f}",
            format_quantity(row.macs),
            format_quantity(row.params),
            *(_latency(row) if timed else ()),
            f"{row.epochs}{' pruned' if row.pruned else ''}",
            f"{row.seconds:.0f}",
            row.operators(),
        )
        for row in rows
    ]
    return PlainTable((*headings, "operators (blocks each)"), "r" * len(headings) + "l", cells, title)


def _latency(row: TrialRow) -> tuple[str, str]:
    predicted, measured = (
        "" if value is None else f"{value:.3f}" for value in (row.latency_ms, row.measured_ms)
    )
    return predicted, f"{measured} over" if row.over else measured


def _blocks(row: TrialRow) -> PlainTable:
    cells = [
        (name, str(choice.convolution), str(choice.recalibration))
        for name, choice in Architecture.parse(row.architecture).blocks.items()
    ]
    title = f"Best architecture (trial {row.number})"
    return PlainTable(("block", "convolution", "recalibration"), "lll", cells, title)


def _importance(summary: Summary) -> RenderableType:
    title = "Importance for accuracy"
    if not summary.importance:
        return Text(f"{title}: {_without_importance(summary)}")
    cells = [(position, f"{share:.3f}") for position, share in summary.importance.items()]
    return PlainTable(("position", "share"), "lr", cells, title)


def _without_importance(summary: Summary) -> str:
    complete = [row for row in summary.rows if not row.pruned]
    if len(complete) < ENOUGH_FOR_IMPORTANCE:
        return f"needs {ENOUGH_FOR_IMPORTANCE} trials trained to the end ({len(complete)} so far)"
    if len({row.accuracy for row in complete}) == 1:
        return f"unknown, all {len(complete)} trials have the same accuracy"
    return "unknown, the trials do not differ in their choices"


def status_tables(status: StudyStatus) -> RenderableType:
    """Counts in two lines, then what is being trained."""
    best = f", best {status.best[1]:.4f} (trial {status.best[0]})" if status.best else ""
    counts = {
        "running": len(status.running),
        "to resume": status.to_resume,
        "enqueued": status.waiting,
        **{f"failed: {kind}": count for kind, count in status.failures.items()},
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing running"
    head = f"{status.study}: {status.trained} trained{best}, {status.per_hour} in the last hour\n{told}"
    if not status.running:
        return Text(head)
    return Group(Text(head), Text(), _running(status))


def trial_tables(details: TrialDetails) -> RenderableType:
    """Everything about a trial, line by line."""
    lines = [f"trial {details.number}: {details.state}, begun {details.begun}, ended {details.ended}"]
    if details.continued_by is not None:
        lines.append(f"resumed by trial {details.continued_by}")
    lines.append("accuracies: " + (" ".join(f"{value:.4f}" for value in details.curve) or "none"))
    lines += [printable(f"{name}: {value}") for name, value in details.attributes.items()]
    return Text("\n".join([*lines, *map(printable, details.traceback.splitlines())]))


def _running(status: StudyStatus) -> PlainTable:
    beating = any(one.silent is not None for one in status.running)
    heartbeat = ("heartbeat",) if beating else ()  # a search that has its storage to itself needs none
    rows = [
        (
            str(one.number),
            one.worker,
            duration(one.seconds),
            *((_heartbeat(one),) if beating else ()),
            f"{one.epochs}/{status.epochs}",
            "" if one.accuracy is None else f"{one.accuracy:.4f}",
            one.operators,
        )
        for one in status.running
    ]
    headings = ("trial", "worker", "since", *heartbeat, "epoch", "accuracy", "operators (blocks each)")
    return PlainTable(headings, "rl" + "r" * (len(headings) - 3) + "l", rows)


def _heartbeat(one: RunningTrial) -> str:
    return "none" if one.silent is None else f"{duration(max(0.0, one.silent))} ago"
