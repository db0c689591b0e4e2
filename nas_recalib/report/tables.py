"""Summaries as tables for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.costs import format_quantity
from nas_recalib.errors import printable
from nas_recalib.report.verdict import accuracy_text, confirmation_text, verdict
from nas_recalib.study.summary import Summary, TrialRow, conflicting


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
    ]
    if summary.importance:
        parts += [Text(), _importance(summary)]
    return Group(*parts)


def _volume(summary: Summary) -> str:
    return f" (hypervolume {summary.hypervolumes[-1][1]:.4f})" if summary.hypervolumes else ""


def _headline(summary: Summary) -> str:
    best, config, fidelity = summary.best, summary.config, summary.config.fidelity
    pruned = sum(row.pruned for row in summary.rows)
    failed = "".join(f", {n} {kind}" for kind, n in summary.failures.items())
    return (
        f"{summary.study}: {summary.counts} ({pruned} pruned), "
        f"{summary.replayed} answered from what was known{failed}\n"
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


def _trials(title: str, rows: tuple[TrialRow, ...] | list[TrialRow]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    timed = any(row.latency_ms is not None for row in rows)
    latency = ("ms predicted", "measured") if timed else ()
    confirmed = any(row.confirmation for row in rows)
    confirmation = ("confirmed, 95% (seeds)",) if confirmed else ()
    for heading in ("trial", *confirmation, "accuracy", "MACs", "params", *latency, "epochs", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("operators (blocks each)")
    for row in rows:
        table.add_row(
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
    return table


def _latency(row: TrialRow) -> tuple[str, str]:
    predicted, measured = (
        "" if value is None else f"{value:.3f}" for value in (row.latency_ms, row.measured_ms)
    )
    return predicted, f"{measured} over" if row.over else measured


def _blocks(row: TrialRow) -> Table:
    table = Table(
        title=f"Best architecture (trial {row.number})",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for heading in ("block", "convolution", "recalibration"):
        table.add_column(heading, no_wrap=True)
    for name, choice in Architecture.parse(row.architecture).blocks.items():
        table.add_row(name, str(choice.convolution), str(choice.recalibration))
    return table


def _importance(summary: Summary) -> Table:
    table = Table(
        title="Importance for accuracy",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    table.add_column("position")
    table.add_column("share", justify="right")
    for position, share in summary.importance.items():
        table.add_row(position, f"{share:.3f}")
    return table
