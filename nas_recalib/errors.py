"""What went wrong, in the user's words."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message names it and says what is allowed."""


class StopSearch(RuntimeError):
    """A search cannot go on, through no fault of its input."""


class StopTraining(RuntimeError):
    """A training cannot continue, through no fault of its input; the same command resumes it."""


class OtherProcessEnded(StopTraining):
    """Another of the processes that train together ended early; that one says why."""


class Diverged(RuntimeError):
    """A training loss is not a number any more."""


def in_one_line(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def printable(text: str) -> str:
    """Text with escapes in the place of whatever would end a line, move a cursor or not be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
