"""Terminal tables of a study: results, how certain the best trial is, status, details of a trial."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget, format_quantity
from nas_recalib.costs.budget import format_cost
from nas_recalib.errors import printable
from nas_recalib.report.terminal import PlainTable, duration
from nas_recalib.study.predicted import PredictedBest
from nas_recalib.study.statistics import MIN_VALUES
from nas_recalib.study.status import RunningTrial, StudyStatus, TrialDetails
from nas_recalib.study.summary import ENOUGH_FOR_IMPORTANCE, Summary, TrialRow, leaders, pareto_objectives

_TOO_FEW = f"add --confirm {MIN_VALUES} or more"


def verdict(summary: Summary) -> str:
    """Return whether the best trial is clearly better than the others, or how to find out."""
    diverged = [row for row in summary.rows if row.diverged]
    unconfirmed = [row for row in leaders(summary.rows) if row.confirmed is None]
    sentences = [_compare_leaders(summary)]
    if diverged:
        sentences.append(f"{_trial_numbers(diverged)} diverged with a new seed")
    if unconfirmed and summary.best.confirmed is not None:
        sentences.append(
            f"not confirmed among the leaders: {_trial_numbers(unconfirmed)}; run the search again with "
            "--confirm N to re-train them"
        )
    return ". ".join(sentences)


def confirmation_text(row: TrialRow) -> str:
    """Return the mean over new seeds, such as `0.8100 ± 0.0040 (3)` for three; empty without any.

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
    """Return a trial's accuracy in a line of text, beginning with that over new seeds if there is one."""
    searched = f"{row.accuracy:.4f} ± {row.standard_error:.4f}"
    if row.confirmation is None:
        return f"accuracy {searched}"
    if row.diverged:
        return f"accuracy {searched} in the search, {confirmation_text(row)}"
    return f"accuracy {confirmation_text(row)} over new seeds, {row.accuracy:.4f} in the search"


def budget_text(budget: Budget) -> str:
    """Return `within 4.000G MACs`, or `without a budget`."""
    return f"within {budget}" if budget.limits() else "without a budget"


def _compare_leaders(summary: Summary) -> str:
    best = summary.best
    if best.confirmation is None or best.confirmed is None:
        return (
            "the best value comes from one training per network and is biased upwards; "
            "add --confirm 5 to re-train the leaders with new seeds"
        )
    rivals = [
        row for row in summary.rows if row.confirmed is not None and not row.over_limit and row is not best
    ]
    tied = [row for row in rivals if row.number in summary.tied]
    count = _seed_count([best, *(tied or rivals)])
    if not rivals:
        few = f", too few for an interval: {_TOO_FEW}" if best.confirmation.half_width is None else ""
        return f"only trial {best.number} was confirmed, with {count}{few}"
    if best.confirmation.half_width is None:
        return (
            f"trial {best.number} is not distinguishable from {_trial_numbers(rivals)}: "
            f"too few seeds for an interval ({count}): {_TOO_FEW}"
        )
    if not tied:
        return f"trial {best.number} is better than {_trial_numbers(rivals)} at 95% with {count}"
    least = min([best, *tied], key=lambda row: row.macs)
    return (
        f"trial {best.number} is not distinguishable from {_trial_numbers(tied)} at 95% with {count}; "
        f"trial {least.number} has the fewest MACs of them"
    )


def _seed_count(rows: Sequence[TrialRow]) -> str:
    counts = [len(row.confirmation.accuracies) for row in rows if row.confirmation]
    least, most = min(counts), max(counts)
    if least < most:
        return f"{least} to {most} new seeds"
    return "1 new seed" if most == 1 else f"{most} new seeds"


def _trial_numbers(rows: Sequence[TrialRow]) -> str:
    """Return `trial 31` or `trials 12, 7 and 4`."""
    *others, last = (str(row.number) for row in rows)
    return f"trials {', '.join(others)} and {last}" if others else f"trial {last}"


def study_tables(summary: Summary, top: int) -> RenderableType:
    """Return the headline, the best `top` trials, the front, the best blocks and the importances."""
    volume = f" (hypervolume {summary.hypervolumes[-1][1]:.4f})" if summary.hypervolumes else ""
    front = [row for number in summary.front for row in summary.rows if row.number == number]
    title = f"Pareto front of {' against '.join(pareto_objectives(summary.config))}{volume}"
    parts: list[RenderableType] = [
        Text("\n".join(map(printable, _headline(summary).splitlines()))),
        _trials("Trials", summary.rows[:top]),
        _trials(title, front),
        _blocks(
            Architecture.parse(summary.best.architecture), f"Best architecture (trial {summary.best.number})"
        ),
        _importance(summary),
    ]
    return Group(parts[0], *(line for part in parts[1:] for line in (Text(), part)))


def _headline(summary: Summary) -> str:
    best, config, fidelity = summary.best, summary.config, summary.config.fidelity
    counts = {
        "pruned": sum(row.pruned for row in summary.rows),
        "duplicates answered from cache": summary.cached,
        **summary.failures,
    }
    others = "".join(f", {count} {name}" for name, count in counts.items() if count)
    return (
        f"{summary.study}: {summary.counts}{others}\n"
        f"{budget_text(config.budget)}, on {config.data}: {fidelity.resolution} px, "
        f"width {fidelity.width:g}, {fidelity.epochs} epochs, "
        f"{fidelity.validation:,} validation images, seed {config.seed}\n"
        f"best: trial {best.number}, {accuracy_text(best)}, "
        f"{format_quantity(best.macs)} MACs, {format_quantity(best.params)} params{latency_text(best)}\n"
        f"{verdict(summary)}"
    )


def latency_text(row: TrialRow) -> str:
    """Return a trial's predicted and measured latency, to append to other figures; empty without one."""
    if row.latency_ms is None:
        return ""
    measured = "not measured" if row.measured_ms is None else f"{row.measured_ms:.3f} ms measured"
    over = ", OVER THE LIMIT" if row.over_limit else ""
    return f", {row.latency_ms:.3f} ms predicted, {measured}{over}"


def _trials(title: str, rows: Sequence[TrialRow]) -> PlainTable:
    timed = any(row.latency_ms is not None for row in rows)
    confirmed = any(row.confirmation for row in rows)
    headings = (
        "trial",
        *(("confirmed, 95% (seeds)",) if confirmed else ()),
        *("accuracy", "MACs", "params"),
        *(("ms predicted", "measured") if timed else ()),
        *("epochs", "s"),
    )
    cells = [
        (
            str(row.number),
            *((confirmation_text(row),) if confirmed else ()),
            f"{row.accuracy:.4f} ± {row.standard_error:.4f}",
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
    return predicted, f"{measured} over" if row.over_limit else measured


def predicted_text(best: PredictedBest) -> str:
    """Return what is expected of the predicted best architecture, in a line of text."""
    low, high = best.interval
    trained = "never trained" if best.trial is None else f"trained as trial {best.trial}"
    costs = ", ".join(format_cost(name, cost) for name, cost in best.costs.items())
    return f"predicted accuracy {best.accuracy:.4f} ({low:.4f} to {high:.4f}), {trained}, {costs}"


def predicted_tables(best: PredictedBest) -> RenderableType:
    """Return what is expected of the predicted best architecture, and its blocks."""
    note = "the interval assumes that the effects of blocks add up"
    lines = Text(f"{predicted_text(best)}\n{note}")
    return Group(lines, Text(), _blocks(best.architecture, "Predicted best architecture"))


def _blocks(architecture: Architecture, title: str) -> PlainTable:
    cells = [
        (name, str(choice.convolution), str(choice.recalibration))
        for name, choice in architecture.blocks.items()
    ]
    return PlainTable(("block", "convolution", "recalibration"), "lll", cells, title)


def _importance(summary: Summary) -> RenderableType:
    title = "Importance for accuracy"
    if summary.importance:
        cells = [(position, f"{share:.3f}") for position, share in summary.importance.items()]
        return PlainTable(("position", "share"), "lr", cells, title)
    complete = [row for row in summary.rows if not row.pruned]
    if len(complete) < ENOUGH_FOR_IMPORTANCE:
        reason = f"needs {ENOUGH_FOR_IMPORTANCE} trials trained to the end ({len(complete)} so far)"
    elif len({row.accuracy for row in complete}) == 1:
        reason = f"unknown, all {len(complete)} trials have the same accuracy"
    else:
        reason = "unknown, the trials do not differ in their choices"
    return Text(f"{title}: {reason}")


def status_tables(status: StudyStatus) -> RenderableType:
    """Return the counts of a study in two lines, then its running trials."""
    best = f", best {status.best[1]:.4f} (trial {status.best[0]})" if status.best else ""
    counts = {
        "running": len(status.running),
        "to resume": status.to_resume,
        "enqueued": status.waiting,
        **{f"failed: {kind}": count for kind, count in status.failures.items()},
    }
    line = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing running"
    head = f"{status.study}: {status.trained} trained{best}, {status.per_hour} in the last hour\n{line}"
    return Group(Text(head), Text(), _running(status)) if status.running else Text(head)


def trial_tables(details: TrialDetails) -> RenderableType:
    """Return everything about a trial, line by line."""
    lines = [f"trial {details.number}: {details.state}, begun {details.started}, ended {details.finished}"]
    if details.resumed_by is not None:
        lines.append(f"resumed by trial {details.resumed_by}")
    lines.append("accuracies: " + (" ".join(f"{value:.4f}" for value in details.curve) or "none"))
    lines += [printable(f"{name}: {value}") for name, value in details.attributes.items()]
    return Text("\n".join([*lines, *map(printable, details.traceback.splitlines())]))


def _running(status: StudyStatus) -> PlainTable:
    has_heartbeats = any(trial.heartbeat_age is not None for trial in status.running)
    rows = [
        (
            str(trial.number),
            trial.worker,
            duration(trial.seconds),
            *((_heartbeat(trial),) if has_heartbeats else ()),
            f"{trial.epochs}/{status.epochs}",
            "" if trial.accuracy is None else f"{trial.accuracy:.4f}",
            trial.operators,
        )
        for trial in status.running
    ]
    heartbeat = ("heartbeat",) if has_heartbeats else ()
    headings = ("trial", "worker", "since", *heartbeat, "epoch", "accuracy", "operators (blocks each)")
    return PlainTable(headings, "rl" + "r" * (len(headings) - 3) + "l", rows)


def _heartbeat(trial: RunningTrial) -> str:
    return "none" if trial.heartbeat_age is None else f"{duration(max(0.0, trial.heartbeat_age))} ago"
