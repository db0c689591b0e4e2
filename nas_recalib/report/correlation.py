"""Results of a correlation study as terminal tables and as Markdown, and progress lines while it runs."""

import math
import time
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.correlation.plan import Done
from nas_recalib.correlation.recommend import Findings, format_seconds
from nas_recalib.report.terminal import PlainTable, duration, remaining_seconds

READING = (
    "tau is Kendall's tau-b and rho Spearman's rank correlation with the mean accuracy of the longer "
    "training: 1 is the same order, 0 none. In brackets 95% bootstrap intervals over the architectures."
)


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
