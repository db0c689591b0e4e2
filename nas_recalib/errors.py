"""Exceptions with messages for users, argument checks, and printing of text in any encoding."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

EXISTS = "already exists; add --force to overwrite it, or name another file"
SUBSTITUTE = "nas-recalib.substitute"  # error handler for characters that an encoding lacks
_SUBSTITUTES = {"±": "+/-", "…": "...", "×": "x", "—": "-", "–": "-", "“": '"', "”": '"', "’": "'"}  # noqa: RUF001


class InputError(ValueError):
    """Invalid input; the message names it and what is allowed."""


class FormatNote(UserWarning):
    """A file of an earlier format has another meaning than the same text has today."""


class StopSearch(RuntimeError):
    """A search cannot continue, although its input is valid."""


class StopTraining(RuntimeError):
    """A training cannot continue, although its input is valid; the same command resumes it."""


class OtherProcessEnded(StopTraining):
    """Another process of a distributed training ended early; its message has the reason."""


class Diverged(RuntimeError):
    """A training loss is not finite."""


@contextmanager
def input_errors(prefix: str, caught: type[Exception] = ValueError) -> Iterator[None]:
    """Raise errors again as InputErrors whose messages begin with a prefix.

    Args:
        prefix: Text before the colon.
        caught: Class of the errors.
    """
    try:
        yield
    except caught as error:
        raise InputError(f"{prefix}: {getattr(error, 'strerror', None) or error}") from error


def whole_number(name: str, value: object, least: int, most: int) -> int:
    """Return an argument of any integer type, NumPy's included, as an int.

    Raises:
        InputError: If it is not a whole number within the bounds; the argument is named.
    """
    if not isinstance(value, bool) and isinstance(value, Integral) and least <= int(value) <= most:
        return int(value)
    raise InputError(f"{name}: {value!r} is not a whole number from {least:,} to {most:,}")


def in_one_line(error: BaseException) -> str:
    """Return the type of an exception and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def printable(text: str) -> str:
    """Return text with line breaks, control characters and unprintable characters escaped."""
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
