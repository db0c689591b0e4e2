"""Plain tables that fit the terminal, durations and the estimate of the time left."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from nas_recalib.errors import encodable, printable

UNFOLDED = 10_000  # columns where output is no terminal, so that nothing wraps
_NARROWEST = 20  # columns; a terminal that claims fewer scrolls
_GAP, _INDENT = 2, 4
_READABLE = 24  # columns that text needs; with fewer it moves to a further line
_WORD = re.compile(r"(?:\d+ )?\S+\s*")  # with the count before it
_BREAK = re.compile(r"[^+,;:=(/_-]*[+,;:=(/_-]?")


@dataclass(frozen=True)
class PlainTable:
    """Table without rules that fits its terminal and never cuts a cell.

    Where the columns do not fit side by side, text wraps; where that leaves it too narrow to read, each row
    continues on an indented line. Numbers are neither wrapped nor shortened.

    Attributes:
        headings: Headings of the columns.
        layout: One letter for each column: "r" for numbers, aligned on the right, "l" for text, and "w" for
            words that a user copies, which are not wrapped either.
        rows: Cells, in the order of the headings.
        title: Line above the headings, if there is one.
    """

    headings: Sequence[str]
    layout: str
    rows: Sequence[Sequence[str]]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        heads, lines = self.lines(options.max_width, options.encoding)
        for style, part in (("bold", heads), ("", lines)):
            if part:
                yield Text("\n".join(part), style, no_wrap=True, overflow="ignore")

    def lines(self, width: int, encoding: str = "utf-8") -> tuple[list[str], list[str]]:
        """Return the lines of the title and headings, and those of the rows.

        Args:
            width: Number of columns of the terminal.
            encoding: Encoding of the output, in which "±" may need more than one column.
        """
        rows = [[encodable(printable(cell), encoding) for cell in row] for row in (self.headings, *self.rows)]
        groups = self._groups([max(map(cell_len, column)) for column in zip(*rows, strict=True)], width)
        heads, *others = (list(self._row(row, groups)) for row in rows)
        title = _wrapped(encodable(printable(self.title), encoding), width) if self.title else []
        return [*title, *heads], [line for lines in others for line in lines]

    def _groups(self, widths: Sequence[int], width: int) -> list[dict[int, int]]:
        """Return the columns of each line of a row, with their widths."""
        groups: list[list[int]] = [[]]
        used = 0
        for index, wanted in enumerate(widths):
            needed = wanted if self.layout[index] in "rw" else min(wanted, _READABLE)
            if groups[-1] and used + needed > width:
                groups.append([])
                used = _INDENT
            groups[-1].append(index)
            used += needed + _GAP
        return [self._shared(group, widths, width - _INDENT * bool(n)) for n, group in enumerate(groups)]

    def _shared(self, group: Sequence[int], widths: Sequence[int], width: int) -> dict[int, int]:
        """Return the widths of columns side by side; what numbers leave is shared among those of text."""
        room = width - _GAP * (len(group) - 1) - sum(widths[i] for i in group if self.layout[i] in "rw")
        text = sorted((i for i in group if self.layout[i] == "l"), key=lambda i: widths[i])
        shares = {}
        for place, index in enumerate(text):
            shares[index] = min(widths[index], max(1, room // (len(text) - place)))
            room -= shares[index]
        return {index: shares.get(index, widths[index]) for index in group}

    def _row(self, row: Sequence[str], groups: Sequence[dict[int, int]]) -> Iterator[str]:
        for number, group in enumerate(groups):
            cells = {i: [row[i]] if self.layout[i] in "rw" else _wrapped(row[i], group[i]) for i in group}
            for line in range(max(map(len, cells.values()))):
                parts = []
                for index, width in group.items():
                    part = cells[index][line] if line < len(cells[index]) else ""
                    space = " " * (width - cell_len(part))
                    parts.append(space + part if self.layout[index] == "r" else part + space)
                text = (" " * _INDENT * bool(number) + (" " * _GAP).join(parts)).rstrip()
                if text or not number:  # a row without a note has no line for it
                    yield text


def print_table(renderable: RenderableType) -> None:
    """Print to standard output: fitted to a terminal, unfolded and uncoloured elsewhere."""
    console = Console(markup=False, emoji=False)  # `[red]` and `:x:` in names are no markup
    if console.is_terminal:
        console.print(renderable, width=max(_NARROWEST, console.width))
        return
    plain = Console(width=UNFOLDED, no_color=True, highlight=False, markup=False, emoji=False)
    with plain.capture() as captured:
        plain.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def columns() -> int:
    """Return the width of the terminal, or 80 where output is no terminal."""
    console = Console()
    return console.width if console.is_terminal else 80


def duration(seconds: float) -> str:
    """Return a duration such as `1 h 05 min` or `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def remaining_seconds(clock: Callable[[], float] = time.monotonic) -> Callable[[int], float]:
    """Return a function that estimates the time left from the pace since now.

    Call it once after each piece of work, with the number of pieces that are left.
    """
    start, done = clock(), 0

    def remaining(left: int) -> float:
        nonlocal done
        done += 1
        return (clock() - start) / done * left

    return remaining


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text, broken between words; words that are too long break after a separator."""
    lines, line = [], ""
    for piece in _pieces(text, width):
        if line and cell_len(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return [*lines, line.rstrip()]


def _pieces(text: str, width: int) -> Iterator[str]:
    for word in _WORD.findall(text):
        if cell_len(word.rstrip()) <= width:
            yield word
            continue
        for part in filter(None, _BREAK.findall(word)):
            yield from chop_cells(part, width) if cell_len(part.rstrip()) > width else (part,)
