"""What went wrong, in the user's words."""

import codecs
from numbers import Integral

EXISTS = "is there already; add --force to overwrite it, or name another file"
SUBSTITUTE = "nas-recalib.substitute"  # name of the handler of characters that an encoding lacks
_SUBSTITUTES = {"±": "+/-", "…": "...", "×": "x", "—": "-", "–": "-", "“": '"', "”": '"', "’": "'"}  # noqa: RUF001


class InputError(ValueError):
    """Something the user gave cannot be used; the message names it and says what is allowed."""


class FormatNote(UserWarning):
    """A file of an earlier format means something else than the same words mean today."""


class StopSearch(RuntimeError):
    """A search cannot go on, through no fault of its input."""


class StopTraining(RuntimeError):
    """A training cannot continue, through no fault of its input; the same command resumes it."""


class OtherProcessEnded(StopTraining):
    """Another of the processes that train together ended early; that one says why."""


class Diverged(RuntimeError):
    """A training loss is not a number any more."""


def whole_number(name: str, value: object, least: int, most: int) -> int:
    """Return an argument of any integer type, NumPy's included, as an int.

    Raises:
        InputError: If it is not a whole number within the bounds; the argument is named.
    """
    if not isinstance(value, bool) and isinstance(value, Integral) and least <= int(value) <= most:
        return int(value)
    raise InputError(f"{name}: {value!r} is not a whole number from {least:,} to {most:,}")


def in_one_line(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def printable(text: str) -> str:
    """Text with escapes in the place of whatever would end a line, move a cursor or not be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def encodable(text: str, encoding: str) -> str:
    """Return text with substitutes for the characters that an encoding lacks, as `+/-` for `±`."""
    return text.encode(encoding, SUBSTITUTE).decode(encoding)


def _substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (_SUBSTITUTES.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return "".join(plain), error.end


codecs.register_error(SUBSTITUTE, _substitute)
