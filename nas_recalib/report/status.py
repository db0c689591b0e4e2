"""How a search stands, for a terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from nas_recalib.errors import printable
from nas_recalib.report.terminal import PlainTable, duration
from nas_recalib.study.standing import RunningTrial, Standing, TrialStory


def standing_tables(standing: Standing) -> RenderableType:
    """Counts in two lines, then what is being trained."""
    best = f", best {standing.best[1]:.4f} (trial {standing.best[0]})" if standing.best else ""
    counts = {
        "running": len(standing.running),
        "to resume": standing.owed,
        "enqueued": standing.waiting,
        **{f"failed: {kind}": count for kind, count in standing.failures.items()},
    }
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing running"
    head = f"{standing.study}: {standing.trained} trained{best}, {standing.per_hour} in the last hour\n{told}"
    if not standing.running:
        return Text(head)
    return Group(Text(head), Text(), _running(standing))


def trial_tables(story: TrialStory) -> RenderableType:
    """Everything about a trial, line by line."""
    lines = [f"trial {story.number}: {story.state}, begun {story.begun}, ended {story.ended}"]
    if story.continued_by is not None:
        lines.append(f"resumed by trial {story.continued_by}")
    lines.append("accuracies: " + (" ".join(f"{value:.4f}" for value in story.curve) or "none"))
    lines += [printable(f"{name}: {value}") for name, value in story.attributes.items()]
    return Text("\n".join([*lines, *map(printable, story.traceback.splitlines())]))


def _running(standing: Standing) -> PlainTable:
    beating = any(one.silent is not None for one in standing.running)
    heartbeat = ("heartbeat",) if beating else ()  # a search that has its storage to itself needs none
    rows = [
        (
            str(one.number),
            one.worker,
            duration(one.seconds),
            *((_heartbeat(one),) if beating else ()),
            f"{one.epochs}/{standing.epochs}",
            "" if one.accuracy is None else f"{one.accuracy:.4f}",
            one.operators,
        )
        for one in standing.running
    ]
    headings = ("trial", "worker", "since", *heartbeat, "epoch", "accuracy", "operators (blocks each)")
    return PlainTable(headings, "rl" + "r" * (len(headings) - 3) + "l", rows)


def _heartbeat(one: RunningTrial) -> str:
    return "none" if one.silent is None else f"{duration(max(0.0, one.silent))} ago"
