"""How a search stands, for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nas_recalib.report.terminal import duration, printable
from nas_recalib.study.standing import RunningTrial, Standing, TrialStory


def standing_tables(standing: Standing) -> RenderableType:
    """Counts in two lines, then what is being trained."""
    best = f", best {standing.best[1]:.4f} (trial {standing.best[0]})" if standing.best else ""
    counts = {
        "running": len(standing.running),
        "to be gone on with": standing.owed,
        "enqueued": standing.waiting,
        **{f"failed: {kind}": count for kind, count in standing.failures.items()},
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing running"
    trained = f"{standing.study}: {standing.trained} trained{best}, {standing.per_hour} in the last hour"
    head = printable(f"{trained}\n{told}")
    if not standing.running:
        return Text(head)
    table = Table("trial", "worker", "since", "last sign", "epoch", "accuracy", "architecture")
    for one in standing.running:
        table.add_row(*(Text(printable(cell)) for cell in _cells(one, standing.epochs)))
    return Group(Text(head), Text(), table)


def trial_tables(story: TrialStory) -> RenderableType:
    """Everything about a trial, line by line."""
    lines = [f"trial {story.number}: {story.state}, begun {story.begun}, ended {story.ended}"]
    if story.continued_by is not None:
        lines.append(f"gone on with by trial {story.continued_by}")
    lines.append("accuracies: " + (" ".join(f"{value:.4f}" for value in story.curve) or "none"))
    lines += [f"{name}: {value}" for name, value in story.attributes.items()]
    return Text(printable("\n".join([*lines, *([story.traceback] if story.traceback else [])])))


def _cells(one: RunningTrial, epochs: int) -> tuple[str, ...]:
    silent = "" if one.silent is None else f"{duration(max(0.0, one.silent))} ago"
    accuracy = "" if one.accuracy is None else f"{one.accuracy:.4f}"
    since, epoch = duration(one.seconds), f"{one.epochs}/{epochs}"
    return str(one.number), one.worker, since, silent, epoch, accuracy, one.architecture
