"""Results of a correlation study as terminal tables, Markdown and HTML, and progress lines while it runs."""

import html
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import plotly.graph_objects as go
from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.rank_correlation import Interval
from nas_recalib.correlation.recommend import Findings, SignalResult, format_seconds
from nas_recalib.correlation.signals import Signal
from nas_recalib.correlation.study import Done
from nas_recalib.costs import format_quantity
from nas_recalib.report.html_page import html_figure, html_page, html_table
from nas_recalib.report.terminal import PlainTable, duration, remaining_seconds

READING = (
    "tau is Kendall's tau-b and rho Spearman's rank correlation with the mean accuracy of the longer "
    "training: 1 is the same order, 0 none. In brackets 95% bootstrap intervals over the architectures."
)
_LARGEST = 1e300  # beyond it, differences overflow
_escape = partial(html.escape, quote=False)  # Plotly shows &lt; as < but &quot; as it is
_MARKS = (
    "Bars are 95% intervals. A line joins the signals of a fidelity; what costs nothing is at the left edge. "
    "The band is the noise ceiling, the diamond one seed of the longer training against another, the "
    "ring the recommended signal."
)
_STYLE = """
.wide { overflow-x: auto } .wide td { white-space: nowrap } figure { margin: 0 }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1.5rem }
.small figcaption { font-weight: 600 } .recommendation { border-left: 4px solid #0060a0; padding-left: 1rem }
pre { overflow-x: auto; background: #f6f6f6; padding: .8rem }
"""


def correlation_tables(findings: Findings) -> RenderableType:
    """Return the terminal report: what was compared, every signal, the noise ceiling, the recommendation."""
    headings, rows = signal_table(findings)
    table = PlainTable(headings, "ll" + "r" * (len(headings) - 2), rows, "Signals")
    conclusions = (describe_ceiling(findings), "", describe_recommendation(findings))
    return Group(*map(Text, describe_study(findings)), Text(), table, Text(), *map(Text, conclusions))


def correlation_markdown(findings: Findings) -> str:
    """Return the same report as Markdown."""
    headings, rows = signal_table(findings)
    rules = ["---" if index < 2 else "---:" for index in range(len(headings))]
    table = "\n".join(_markdown_row(cells) for cells in (headings, rules, *rows))
    conclusions = (describe_ceiling(findings), describe_recommendation(findings))
    return "\n\n".join((*describe_study(findings), table, READING, *conclusions)).replace("<", "&lt;") + "\n"


def describe_study(findings: Findings) -> tuple[str, str]:
    """Return a line about the architectures and one about the reference training."""
    c = findings.correlation
    fidelity = ", ".join(f"{name} {'all' if value is None else value}" for name, value in c.reference.items())
    seeds = "one seed" if c.seeds == 1 else f"{c.seeds} seeds"
    return (
        f"{c.study}: {len(c.architectures)} architectures of {c.space} within {c.budget}, on {c.data}; "
        f"{c.device}, seed {c.seed}",
        f"The longer training, {seeds} for each architecture, {format_seconds(c.reference_seconds)} each: "
        f"{fidelity}",
    )


def describe_ceiling(findings: Findings) -> str:
    """Return a sentence about how far seed noise lets any signal agree with the reference training."""
    ceiling, seeds = findings.ceiling, findings.correlation.seeds
    if seeds == 1:
        return "Noise ceiling: unknown, because one seed does not show the noise; add --seeds 2."
    return (
        f"Noise ceiling: one seed of the longer training agrees with another by a tau of "
        f"{ceiling.between_seeds}; the true order is expected to reach {ceiling.expected} against the means "
        f"of {seeds} seeds. The standard deviation of one seed's accuracy is "
        f"{format_accuracy(ceiling.seed_std)} within architectures; between architectures, without that "
        f"noise, it is {format_accuracy(ceiling.architecture_std)}."
    )


def describe_recommendation(findings: Findings) -> str:
    """Return the recommended fidelity and why it is recommended."""
    recommendation = findings.recommendation
    prefix = "Recommended:" if recommendation.signal else "Nothing is recommended."
    return f"{prefix} {recommendation.reason}"


def format_accuracy(value: float) -> str:
    """Return an accuracy with four digits, `-` for NaN."""
    return "-" if math.isnan(value) else f"{value:.4f}"


def signal_table(findings: Findings) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the headings and the rows of the table of signals; the first two columns are text."""
    over = (f"tau over {findings.baseline}",) if findings.baseline else ()
    rows = []
    for result in findings.results:
        signal, agreement = result.signal, result.agreement
        recommended = " (recommended)" if signal.name == findings.recommendation.signal else ""
        cells = (signal.kind, format_seconds(signal.seconds), str(agreement.tau), str(agreement.rho))
        difference = (f"{result.over_baseline:+}",) if findings.baseline else ()
        rows.append((f"{signal.name}{recommended}", *cells, *difference))
    return ("signal", "kind", "cost", "tau", "rho", *over), rows


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (" ".join(cell.replace("|", r"\|").split()) for cell in cells)
    return f"| {' | '.join(escaped)} |"


def task_reporter(
    total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[Done], None]:
    """Return a function that prints a line about each finished task, with the time left.

    Args:
        total: Number of tasks.
        say: Function that prints a line.
        clock: Function that returns the time in seconds.
    """
    remaining, count = remaining_seconds(clock), 0

    def report(done: Done) -> None:
        nonlocal count
        count += 1
        task = done.task
        work = "scores" if task.scores else f"{task.fidelity}, seed {task.seed}"
        accuracy = f"{done.accuracies[-1]:.4f}, " if done.accuracies else ""
        failure = f"{done.failure.kind}: {done.failure.message}, " if done.failure else ""
        say(
            f"{count}/{total}: architecture {task.index + 1}, {work}: {accuracy}{failure}"
            f"{done.seconds:.0f} s; about {duration(remaining(total - count))} left"
        )

    return report


def correlation_page(findings: Findings) -> str:
    """Return HTML with the recommendation, all figures, all signals and all architectures of a study."""
    correlation = findings.correlation
    names = [Architecture.parse(text).operators() for text in correlation.architectures]
    headings, rows = signal_table(findings)
    signals = [result.signal.name for result in findings.results]
    recommended = findings.recommendation.signal
    best = signals.index(recommended) if recommended else None

    def parts() -> Iterator[str]:
        yield from (f"<p class=muted>{html.escape(line)}</p>" for line in describe_study(findings))
        yield f"<p class=recommendation>{html.escape(describe_recommendation(findings))}</p>"
        yield f"<p>{html.escape(describe_ceiling(findings))}</p><p class=muted>{html.escape(READING)}</p>"
        yield f"<h2>Rank correlation against cost</h2><figure>{html_figure(cost_figure(findings), '560px')}"
        yield f"<figcaption class=muted>{_MARKS}</figcaption></figure><h2>Signals</h2>"
        yield f"<div class=wide>{html_table(headings, rows, 'll' + 'r' * (len(headings) - 2), best)}</div>"
        yield "<h2>Each signal against the longer training</h2>"
        if correlation.seeds > 1:
            yield "<p class=muted>Bars go from the worst seed to the best.</p>"
        yield "<div class=small>"
        for result in findings.results:
            figure = html_figure(signal_figure(findings, result, names), "300px")
            missing = _drawable(findings, result).count(False)
            note = f"; {missing} without a finite value are not drawn" if missing else ""
            caption = html.escape(f"{result.signal.name}: tau {result.agreement.tau}{note}")
            yield f"<figure><figcaption>{caption}</figcaption>{figure}</figure>"
        yield f"</div><h2>Architectures</h2>{_architecture_table(findings, names)}"
        yield f"<h2>Commands</h2><pre><code>{html.escape(chr(10).join(correlation.commands))}</code></pre>"

    title = f"{correlation.study}: which cheap signals rank architectures as longer training does"
    return html_page(title, parts(), _STYLE)


def signal_figure(findings: Findings, result: SignalResult, names: Sequence[str]) -> go.Figure:
    """Return a scatter plot of a signal and the mean accuracy of the longer training.

    Args:
        findings: Findings of the study.
        result: Result of the signal.
        names: Description of each architecture, shown when the pointer rests on a point.
    """
    correlation, values = findings.correlation, result.signal.values
    points = [i for i, drawn in enumerate(_drawable(findings, result)) if drawn]
    means, runs = correlation.means, correlation.runs
    figure = go.Figure()
    figure.add_scatter(
        x=[values[i] for i in points],
        y=[means[i] for i in points],
        error_y={
            "array": [max(runs[i]) - means[i] for i in points],
            "arrayminus": [means[i] - min(runs[i]) for i in points],
            "visible": correlation.seeds > 1,
            "thickness": 1,
        },
        mode="markers",
        text=[f"{i + 1}: {_escape(names[i])}" for i in points],
    )
    figure.update_layout(
        xaxis_title=_escape(result.signal.name), yaxis_title="accuracy", margin={"t": 10, "r": 10}
    )
    drawn = [values[i] for i in points]
    if drawn and 0 < min(drawn) < max(drawn) / 100:
        figure.update_xaxes(type="log")
    return figure


def cost_figure(findings: Findings) -> go.Figure:
    """Return tau of every signal against its seconds, with the noise ceiling and the reference's cost."""
    seconds, ceiling = findings.correlation.reference_seconds, findings.ceiling
    points = [(result.signal, result.agreement.tau) for result in findings.results]
    free = min([c for c in (*(signal.seconds for signal, _ in points), seconds) if c > 0], default=1.0) / 2
    figure = go.Figure()

    def add(name: str, points: Sequence[tuple[Signal, Interval]], symbol: str, mode: str = "markers") -> None:
        taus = [tau for _, tau in points]
        figure.add_scatter(
            x=[signal.seconds or free for signal, _ in points],  # a logarithmic axis has no zero
            y=[tau.value for tau in taus],
            error_y={
                "array": [tau.high - tau.value for tau in taus],
                "arrayminus": [tau.value - tau.low for tau in taus],
                "thickness": 1,
            },
            mode=mode,
            marker={"symbol": symbol, "size": 18 if symbol == "circle-open" else 9},
            name=_escape(name),
            text=[f"{_escape(s.name)}, {format_seconds(s.seconds)}: tau {tau}" for s, tau in points],
            hoverinfo="text",
        )

    trainings = [point for point in points if point[0].kind == "training"]
    for fidelity in dict.fromkeys(signal.fidelity for signal, _ in trainings):
        add(fidelity, [p for p in trainings if p[0].fidelity == fidelity], "circle", "lines+markers")
    add("zero-cost proxies", [point for point in points if point[0].kind == "score"], "triangle-up")
    add("baselines", [point for point in points if point[0].kind == "baseline"], "square")
    add("recommended", [p for p in points if p[0].name == findings.recommendation.signal], "circle-open")
    if not math.isnan(ceiling.expected.value):
        band = {"y0": ceiling.expected.low, "y1": ceiling.expected.high}
        figure.add_hrect(**band, fillcolor="#f0b400", opacity=0.2, line_width=0)
        label = f"noise ceiling: {ceiling.expected.value:.2f}"
        figure.add_hline(y=ceiling.expected.value, line_dash="dash", annotation_text=label)
    if seconds > 0:
        reference = Signal("one seed of the longer training against another", "training", (), seconds)
        add(reference.name, [(reference, ceiling.between_seeds)], "diamond")
        name = f"one longer training: {format_seconds(seconds)}"
        figure.add_scatter(x=[seconds, seconds], y=[0, 1], mode="lines", line_dash="dot", name=name)
    figure.update_layout(xaxis_title="seconds for one architecture", yaxis_title="tau")
    figure.update_xaxes(type="log")
    return figure


def _drawable(findings: Findings, result: SignalResult) -> list[bool]:
    pairs = zip(result.signal.values, findings.correlation.means, strict=True)
    return [all(abs(number) < _LARGEST for number in pair) for pair in pairs]


def _architecture_table(findings: Findings, names: Sequence[str]) -> str:
    """Return the table of architectures, the most accurate first, with the numbers that the figures show."""
    c = findings.correlation
    order = sorted(range(len(names)), key=lambda i: -math.inf if math.isnan(c.means[i]) else c.means[i])
    rows = [
        (
            *(str(i + 1), format_accuracy(c.means[i]), ", ".join(map(format_accuracy, c.runs[i]))),
            *(format_quantity(c.macs[i]), format_quantity(c.params[i]), names[i]),
        )
        for i in reversed(order)
    ]
    headings = ("number", "mean accuracy", "of each seed", "MACs", "params", "operators (blocks each)")
    return f"<div class=wide>{html_table(headings, rows, 'rrrrrl')}</div>"
