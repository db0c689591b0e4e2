"""Summaries as tables for a terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.costs import format_quantity
from nas_recalib.errors import printable
from nas_recalib.report.terminal import PlainTable
from nas_recalib.report.verdict import accuracy_text, confirmation_text, verdict
from nas_recalib.study.summary import ENOUGH_FOR_IMPORTANCE, Summary, TrialRow, conflicting


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
        f"within {config.budget}, on {config.data}: {fidelity['resolution']} px, "
        f"width {fidelity['width']:g}, {fidelity['epochs']} epochs, "
        f"{fidelity['validation']:,} validation images, seed {config.seed}\n"
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
