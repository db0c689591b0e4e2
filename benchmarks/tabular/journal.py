"""Rows appended to a file one by one; a process killed at any moment loses none that it had finished."""

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nas_recalib.errors import InputError


@dataclass(frozen=True)
class Journal:
    """An open journal.

    Attributes:
        file: At its end.
        rows: Those written so far.
    """

    file: BinaryIO
    rows: list[dict[str, Any]]

    def add(self, row: dict[str, Any]) -> None:
        """Writes a row through to the disk."""
        self.file.write(_line(row))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.rows.append(row)


def commit() -> str:
    """Return the commit of the working tree, marked where files differ from it."""
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


@contextmanager
def open_journal(path: Path, header: Mapping[str, Any]) -> Iterator[Journal]:
    """A journal, for this process alone for as long as the context lasts.

    Args:
        path: Of its file, which is made where it is missing.
        header: What the rows are about.

    Raises:
        InputError: If it was begun with another header, is something else, or another process writes to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path}: another process writes to it") from error
        lines = _whole_lines(path, file)
        if not lines:
            file.write(_line(header))
        elif differing := _differing(lines[0], json.loads(_line(header))):
            key, there, asked = differing
            raise InputError(
                f"{path}: was begun with another {key}: it has {there!r}, asked was {asked!r}; "
                "go on as it was, or name another file with --journal"
            )
        yield Journal(file, lines[1:])


def _whole_lines(path: Path, file: BinaryIO) -> list[dict[str, Any]]:
    """What was written to the end; the rest of a line that was not is cut off."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    lines = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}:{number}: not a row of a journal") from error
    file.truncate(len(whole))
    return lines


def _differing(there: dict[str, Any], asked: dict[str, Any]) -> tuple[str, Any, Any] | None:
    keys = (key for key in {**there, **asked} if there.get(key) != asked.get(key))
    return next(((key, there.get(key), asked.get(key)) for key in keys), None)


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"
