"""HTML page of a study: accuracy against MACs, progress of the search, best architecture, all trials."""

import html
import math
from itertools import accumulate

import plotly.graph_objects as go

from nas_recalib.architecture import Architecture
from nas_recalib.costs import format_quantity
from nas_recalib.report.html_page import html_figure, html_page, html_table
from nas_recalib.report.study import accuracy_text, budget_text, confirmation_text, verdict
from nas_recalib.study.summary import Summary, TrialRow, pareto_objectives


def study_page(summary: Summary) -> str:
    """Return HTML with the figures of a study and the table of its trials."""
    best, fidelity = summary.best, summary.config.fidelity
    title = f"{summary.study}: {accuracy_text(best)} at {format_quantity(best.macs)} MACs"
    intro = (
        f"{summary.counts} {budget_text(summary.config.budget)} on {summary.config.data}; "
        f"{fidelity.epochs} epochs at {fidelity.resolution} px, width {fidelity.width:g}. "
        f"Error bars are one standard error of {fidelity.validation:,} validation images, "
        "without seed noise. Those of confirmed trials are 95% intervals of the mean over new seeds, on the "
        "same images."
    )
    figures = (_scatter(summary), _progress(summary), _hypervolume(summary), _blocks(best))
    rows = [
        (
            *(str(row.number), confirmation_text(row), f"{row.accuracy:.4f} ± {row.standard_error:.4f}"),
            *(f"{row.macs:,}", f"{row.params:,}", str(row.epochs), row.operators()),
        )
        for row in summary.rows
    ]
    headings = ("trial", "confirmed, 95% (seeds)", "accuracy", "MACs", "params", "epochs", "operators")
    parts = (
        f"<p>{html.escape(verdict(summary))}</p><p class=muted>{html.escape(intro)}</p>",
        *map(html_figure, figures),
        f"<h2>Trials</h2>{html_table(headings, rows, 'rrrrrrl')}",
    )
    return html_page(title, parts)


def _scatter(summary: Summary) -> go.Figure:
    complete = [row for row in summary.rows if not row.pruned]
    front = [row for number in summary.front for row in complete if row.number == number]
    figure = go.Figure()
    for name, baseline in (("searched", False), ("baseline", True)):
        rows = [row for row in complete if bool(row.baseline) == baseline]
        figure.add_scatter(
            x=[row.macs for row in rows],
            y=[row.accuracy for row in rows],
            error_y={"array": [row.standard_error for row in rows], "thickness": 1},
            mode="markers",
            name=name,
            text=[f"trial {row.number}: {html.escape(row.operators(), quote=False)}" for row in rows],
        )
    _add_confirmed(figure, complete)
    figure.add_scatter(
        x=[row.macs for row in front], y=[row.accuracy for row in front], mode="lines", name="front"
    )
    if summary.config.budget.macs:
        figure.add_vline(x=summary.config.budget.macs, line_dash="dot", annotation_text="budget")
    figure.update_layout(title="Accuracy against cost", xaxis_title="MACs", yaxis_title="validation accuracy")
    figure.update_xaxes(tickformat=".4s")
    return figure


def _add_confirmed(figure: go.Figure, rows: list[TrialRow]) -> None:
    """Add the means over new seeds, with error bars that end at 0 and 1 at the latest."""
    points = [
        (row, row.confirmed, *(row.confirmation.interval or (math.nan, math.nan)))  # NaN draws no bar
        for row in rows
        if row.confirmation and row.confirmed is not None
    ]
    if not points:
        return
    figure.add_scatter(
        x=[row.macs for row, *_ in points],
        y=[mean for _, mean, _, _ in points],
        error_y={
            "array": [high - mean for _, mean, _, high in points],
            "arrayminus": [mean - low for _, mean, low, _ in points],
            "symmetric": False,
            "thickness": 1,
        },
        mode="markers",
        marker={"symbol": "diamond", "size": 9},
        name="confirmed",
        text=[f"trial {row.number}: {confirmation_text(row)}" for row, *_ in points],
    )


def _progress(summary: Summary) -> go.Figure:
    rows = sorted(summary.rows, key=lambda row: row.number)
    best = accumulate((0.0 if row.pruned else row.accuracy for row in rows), max)
    figure = go.Figure()
    numbers = [row.number for row in rows]
    figure.add_scatter(
        x=numbers,
        y=[row.accuracy for row in rows],
        mode="markers",
        name="trials (pruned in grey)",
        marker_color=["#bbb" if row.pruned else "#1f77b4" for row in rows],
    )
    y = [value or None for value in best]
    figure.add_scatter(x=numbers, y=y, mode="lines", line_shape="hv", name="best so far")
    figure.update_layout(
        title="Progress of the search", xaxis_title="trial", yaxis_title="validation accuracy"
    )
    return figure


def _hypervolume(summary: Summary) -> go.Figure:
    figure = go.Figure()
    numbers, volumes = zip(*summary.hypervolumes, strict=True) if summary.hypervolumes else ((), ())
    figure.add_scatter(x=numbers, y=volumes, mode="lines", line_shape="hv")
    figure.update_layout(
        title=f"Hypervolume of the front of {' against '.join(pareto_objectives(summary.config))}",
        xaxis_title="trial",
        yaxis_title="hypervolume (fraction of the reference box)",
    )
    return figure


def _blocks(best: TrialRow) -> go.Figure:
    blocks = Architecture.parse(best.architecture).blocks
    figure = go.Figure()
    for kind in ("convolution", "recalibration"):
        figure.add_scatter(
            x=list(blocks),
            y=[str(getattr(choice, kind)) for choice in blocks.values()],
            mode="markers",
            marker={"size": 16, "symbol": "square"},
            name=kind,
        )
    figure.update_layout(title=f"Best architecture, block by block (trial {best.number})")
    return figure
