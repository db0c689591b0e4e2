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
