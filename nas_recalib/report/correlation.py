"""How far cheap signals agree with longer training: for a terminal, as a page, and as Markdown."""

import html
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.plan import Done
from nas_recalib.correlation.recommend import Judged, Verdict, seconds_text
from nas_recalib.costs import format_quantity
from nas_recalib.report.charts import STYLE, cost_chart, panel
from nas_recalib.report.study_page import document
from nas_recalib.report.terminal import PlainTable, duration

_READING = (
    "tau is Kendall's tau-b and rho Spearman's rank correlation with the mean accuracy of the longer "
    "training: 1 is the same order, 0 none. In brackets 95% intervals of a bootstrap over the architectures."
)
_MARKS = (
    "Circles are trainings, joined by fidelity, triangles scores without training, squares baselines (at the "
    "left edge what costs nothing). The band is the ceiling, the diamond one seed of the longer training "
    "against another, the ring what is recommended."
)
_PAGE_STYLE = """
.wide { overflow-x: auto } figure { margin: 0 } .small figcaption { font-weight: 600 }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap: 1.5rem }
.chart { max-width: 46rem } .told { border-left: 4px solid #0060a0; padding-left: 1rem }
pre { overflow-x: auto; background: #f6f6f6; padding: .8rem } tr.best { font-weight: 600 }
td.left { white-space: nowrap }
"""


def correlation_tables(judged: Judged) -> RenderableType:
    """What was compared, every signal, the ceiling and what is recommended."""
    headings = _headings(judged)
    rows = [_cells(judged, verdict) for verdict in judged.verdicts]
    table = PlainTable(headings, "ll" + "r" * (len(headings) - 2), rows, "Signals")
    told = (Text(line) for line in (_ceiling(judged), "", _recommended(judged)))
    return Group(*map(Text, _about(judged)), Text(), table, Text(), *told)


def correlation_markdown(judged: Judged) -> str:
    """The signals as a table, the ceiling and what is recommended."""
    headings = _headings(judged)
    rows = [_cells(judged, verdict) for verdict in judged.verdicts]
    rules = ["---" if index < 2 else "---:" for index in range(len(headings))]
    table = [_markdown_row(cells) for cells in (headings, rules, *rows)]
    paragraphs = (*_about(judged), "\n".join(table), _READING, _ceiling(judged), _recommended(judged))
    return "\n\n".join(paragraphs).replace("<", "&lt;") + "\n"


def correlation_page(judged: Judged) -> str:
    """HTML that stands alone: what is recommended, tau against cost, and every signal against accuracy."""
    correlation = judged.correlation
    title = f"{correlation.study}: which cheap signals order architectures as longer training does"
    names = [Architecture.parse(text).operators() for text in correlation.architectures]
    commands = html.escape("\n".join(correlation.commands))

    def parts() -> Iterator[str]:
        yield f"<h1>{html.escape(title)}</h1>"
        yield from (f"<p class=muted>{html.escape(line)}</p>" for line in _about(judged))
        yield f"<p class=told>{html.escape(_recommended(judged))}</p>"
        yield f"<p>{html.escape(_ceiling(judged))}</p><p class=muted>{html.escape(_READING)}</p>"
        yield f"<h2>Agreement against cost</h2><figure class=chart>{cost_chart(judged)}"
        yield f"<figcaption class=muted>{_MARKS}</figcaption></figure>"
        yield f"<h2>Signals</h2>{_signals(judged)}"
        yield "<h2>Each signal against the longer training</h2>"
        if correlation.seeds > 1:
            yield "<p class=muted>Bars go from the worst seed to the best.</p>"
        yield "<div class=small>"
        yield from (_figure(judged, verdict, names) for verdict in judged.verdicts)
        yield f"</div><h2>Architectures</h2>{_architectures(judged, names)}"
        yield f"<h2>Commands</h2><pre><code>{commands}</code></pre>"

    return document(title, parts(), STYLE + _PAGE_STYLE)


def _about(judged: Judged) -> tuple[str, str]:
    c = judged.correlation
    fidelity = ", ".join(f"{name} {'all' if value is None else value}" for name, value in c.reference.items())
    seeds = "one seed" if c.seeds == 1 else f"{c.seeds} seeds"
    cost = seconds_text(c.reference_seconds)
    return (
        f"{c.study}: {len(c.architectures)} architectures of {c.space} within {c.budget}, on {c.data}; "
        f"{c.device}, seed {c.seed}",
        f"The longer training, {seeds} for each architecture, {cost} each: {fidelity}",
    )


def _ceiling(judged: Judged) -> str:
    limit, seeds = judged.ceiling, judged.correlation.seeds
    if seeds == 1:
        return "Ceiling: not known, one seed says nothing of its noise."
    return (
        f"Ceiling: one seed of the longer training agrees with another by a tau of {limit.between_seeds}; "
        f"the true order is expected to reach {limit.expected} against the means of {seeds} seeds. One "
        f"seed's accuracy has a standard deviation of {_accuracy(limit.seed_std)} within architectures, and "
        f"architectures one of {_accuracy(limit.architecture_std)} without that noise."
    )


def _recommended(judged: Judged) -> str:
    told = judged.recommendation
    return f"{'Recommended:' if told.signal else 'Nothing is recommended.'} {told.reason}"


def _accuracy(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _headings(judged: Judged) -> tuple[str, ...]:
    over = (f"tau over {judged.baseline}",) if judged.baseline else ()
    return ("signal", "kind", "cost", "tau", "rho", *over)


def _cells(judged: Judged, verdict: Verdict) -> tuple[str, ...]:
    signal, told = verdict.signal, verdict.agreement
    name = f"{signal.name} (recommended)" if signal.name == judged.recommendation.signal else signal.name
    over = (f"{verdict.over_baseline:+}",) if judged.baseline else ()
    return (name, signal.kind, seconds_text(signal.seconds), f"{told.tau}", f"{told.rho}", *over)


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (" ".join(cell.replace("|", r"\|").split()) for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _signals(judged: Judged) -> str:
    rows = []
    for verdict in judged.verdicts:
        best = " class=best" if verdict.signal.name == judged.recommendation.signal else ""
        rows.append(f"<tr{best}>{_row(_cells(judged, verdict), 'left', 'left')}</tr>")
    return _table(_headings(judged), rows)


def _figure(judged: Judged, verdict: Verdict, names: Sequence[str]) -> str:
    given = zip(verdict.signal.values, judged.correlation.means, strict=True)
    lost = sum(not (math.isfinite(value) and math.isfinite(mean)) for value, mean in given)
    note = f"; {lost} not drawn, no numbers" if lost else ""
    told = f"{verdict.signal.name}: tau {verdict.agreement.tau}{note}"
    return f"<figure><figcaption>{html.escape(told)}</figcaption>{panel(judged, verdict, names)}</figure>"


def _architectures(judged: Judged, names: Sequence[str]) -> str:
    """The most accurate first, under the numbers that the charts show."""
    c = judged.correlation
    order = sorted(range(len(names)), key=lambda i: -math.inf if math.isnan(c.means[i]) else c.means[i])
    rows = []
    for i in reversed(order):
        runs = ", ".join(map(_accuracy, c.runs[i]))
        cells = (
            str(i + 1),
            _accuracy(c.means[i]),
            runs,
            format_quantity(c.macs[i]),
            format_quantity(c.params[i]),
        )
        rows.append(f"<tr>{_row(cells)}<td class=left>{html.escape(names[i])}</td></tr>")
    headings = ("number", "mean accuracy", "of each seed", "MACs", "params", "operators (blocks each)")
    return _table(headings, rows)


def _row(cells: Sequence[str], *classes: str) -> str:
    """Cells, numbers to the right but for the first, which have classes of their own."""
    kinds = (*classes, *("n",) * (len(cells) - len(classes)))
    return "".join(f"<td class={k}>{html.escape(cell)}</td>" for k, cell in zip(kinds, cells, strict=True))


def _table(headings: Sequence[str], rows: Sequence[str]) -> str:
    heading = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in headings)
    return f"<div class=wide><table><tr>{heading}</tr>{''.join(rows)}</table></div>"


@dataclass
class WorkReporter:
    """Tells of each piece of work, and how long the rest will take.

    Attributes:
        goal: Pieces in all.
        say: Takes each line.
        clock: Tells the seconds.
    """

    goal: int
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _begun: float = field(init=False)
    _done: int = 0

    def __post_init__(self) -> None:
        self._begun = self.clock()

    def __call__(self, done: Done) -> None:
        self._done += 1
        left = (self.clock() - self._begun) / self._done * (self.goal - self._done)
        task = done.task
        what = "scores" if task.scores else f"{task.fidelity}, seed {task.seed}"
        came = f"{done.accuracies[-1]:.4f}, " if done.accuracies else ""
        failed = f"{done.failure.kind}: {done.failure.message}, " if done.failure else ""
        self.say(
            f"{self._done}/{self.goal}: architecture {task.index + 1}, {what}: {came}{failed}"
            f"{done.seconds:.0f} s; about {duration(left)} left"
        )
