"""What rich renders, on standard output."""

from rich.console import Console, RenderableType


def print_table(renderable: RenderableType) -> None:
    """To standard output: fitted to a terminal, unfolded and uncoloured elsewhere."""
    console = Console()
    if console.is_terminal:
        console.print(renderable)
        return
    plain = Console(width=240, no_color=True, highlight=False)
    with plain.capture() as captured:
        plain.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def printable(text: str) -> str:
    r"""What others wrote, with the codes of the control characters in it (\x1b) instead of those."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def duration(seconds: float) -> str:
    """As in `1 h 05 min` or `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
