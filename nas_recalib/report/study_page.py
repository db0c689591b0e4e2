"""HTML report of a study, one file that opens offline."""

import html
from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go
from plotly.io import to_html

from nas_recalib.architecture import Architecture
from nas_recalib.costs import format_quantity
from nas_recalib.report.study import accuracy_text, confirmation_text, verdict
from nas_recalib.study.statistics import Confirmation
from nas_recalib.study.summary import Summary, TrialRow, conflicting

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums } .muted { color: #666 }
"""


def document(title: str, parts: Iterable[str], style: str = "") -> str:
    """One HTML page.

    Args:
        title: Not yet escaped.
        parts: Of its body, as HTML.
        style: CSS beyond that of all pages.
    """
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{style}</style></head><body>"
    )
    return "\n".join((head, *parts, "</body></html>\n"))


def study_page(summary: Summary) -> str:
    """HTML with the accuracy against MACs, the course of the search, the best architecture and all trials."""
    best = summary.best
    title = f"{summary.study}: {accuracy_text(best)} at {format_quantity(best.macs)} MACs"
    fidelity = summary.config.fidelity
    intro = (
        f"{summary.counts} within {summary.config.budget} on {summary.config.data}; "
        f"{fidelity.epochs} epochs at {fidelity.resolution} px, width {fidelity.width:g}. "
        f"Error bars are one standard error of {fidelity.validation:,} validation images; "
        "they hold nothing of seed noise. Those of what was confirmed are 95% intervals of the mean over new "
        "seeds, on the same images."
    )
    figures = [_scatter(summary), _course(summary), _volume(summary), _map(best)]
    drawn = [
        to_html(figure, full_html=False, include_plotlyjs="inline" if index == 0 else False)
        for index, figure in enumerate(figures)
    ]
    told = (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(verdict(summary))}</p>"
        f"<p class=muted>{html.escape(intro)}</p>"
    )
    return document(title, (told, *drawn, _table(summary)))


def _scatter(summary: Summary) -> go.Figure:
    complete = [row for row in summary.rows if not row.pruned]
    front = [row for number in summary.front for row in complete if row.number == number]
    figure = go.Figure()
    kinds = {
        "searched": [r for r in complete if not r.baseline],
        "baseline": [r for r in complete if r.baseline],
    }
    for name, rows in kinds.items():
        figure.add_scatter(
            x=[row.macs for row in rows],
            y=[row.accuracy for row in rows],
            error_y={"array": [row.error for row in rows], "thickness": 1},
            mode="markers",
            name=name,
            text=[f"trial {row.number}: {row.operators()}" for row in rows],
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
    points = [(row, row.confirmation) for row in rows if row.confirmation and row.confirmed is not None]
    if points:
        figure.add_scatter(
            x=[row.macs for row, _ in points],
            y=[found.mean for _, found in points],
            error_y={**_bars([found for _, found in points]), "thickness": 1},
            mode="markers",
            marker={"symbol": "diamond", "size": 9},
            name="confirmed",
            text=[f"trial {row.number}: {confirmation_text(row)}" for row, _ in points],
        )


def _bars(confirmations: list[Confirmation]) -> dict[str, Any]:
    """Return the lengths of error bars, above and below, that end at 0 and 1 at the latest."""
    above: list[float | None] = []
    below: list[float | None] = []
    for found in confirmations:
        low, high = found.interval or (None, None)
        above.append(None if found.mean is None or high is None else high - found.mean)
        below.append(None if found.mean is None or low is None else found.mean - low)
    return {"array": above, "arrayminus": below, "symmetric": False}


def _course(summary: Summary) -> go.Figure:
    rows = sorted(summary.rows, key=lambda row: row.number)
    best = 0.0
    leaders = []
    for row in rows:
        best = max(best, 0.0 if row.pruned else row.accuracy)
        leaders.append(best or None)
    figure = go.Figure()
    numbers = [row.number for row in rows]
    colours = ["#bbb" if row.pruned else "#1f77b4" for row in rows]
    figure.add_scatter(
        x=numbers,
        y=[r.accuracy for r in rows],
        mode="markers",
        name="trials (pruned in grey)",
        marker_color=colours,
    )
    figure.add_scatter(x=numbers, y=leaders, mode="lines", line_shape="hv", name="best so far")
    figure.update_layout(title="Course of the search", xaxis_title="trial", yaxis_title="validation accuracy")
    return figure


def _volume(summary: Summary) -> go.Figure:
    figure = go.Figure()
    numbers, volumes = zip(*summary.hypervolumes, strict=True) if summary.hypervolumes else ((), ())
    figure.add_scatter(x=numbers, y=volumes, mode="lines", line_shape="hv")
    figure.update_layout(
        title=f"Hypervolume of the front of {' against '.join(conflicting(summary.config))}",
        xaxis_title="trial",
        yaxis_title="hypervolume (fraction of the reference box)",
    )
    return figure


def _map(best: TrialRow) -> go.Figure:
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


def _table(summary: Summary) -> str:
    headings = ("trial", "confirmed, 95% (seeds)", "accuracy", "MACs", "params", "epochs", "operators")
    heading = "".join(f"<th>{name}</th>" for name in headings)
    lines = [
        f"<tr><td class=n>{row.number}</td><td class=n>{confirmation_text(row)}</td>"
        f"<td class=n>{row.accuracy:.4f} ± {row.error:.4f}</td>"
        f"<td class=n>{row.macs:,}</td><td class=n>{row.params:,}</td><td class=n>{row.epochs}</td>"
        f"<td>{html.escape(row.operators())}</td></tr>"
        for row in summary.rows
    ]
    return f"<h2>Trials</h2><table><tr>{heading}</tr>{''.join(lines)}</table>"
