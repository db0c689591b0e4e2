"""Journal of result rows in a file, of which none is lost if the process is killed."""

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
        file: File to append to.
        rows: Rows written so far.
    """

    file: BinaryIO
    rows: list[dict[str, Any]]

    def add(self, row: dict[str, Any]) -> None:
        """Write a row and flush it to the disk."""
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
    """Open a journal and lock it for this process inside the context.

    Args:
        path: Path of the file, which is created if it is missing.
        header: Options that all rows have in common.

    Raises:
        InputError: If the journal was started with another header or cannot be read, or another process
            writes to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path}: another process writes to it") from error
        lines = _complete_lines(path, file)
        if not lines:
            file.write(_line(header))
        elif differing := _differing(lines[0], json.loads(_line(header))):
            key, there, asked = differing
            raise InputError(
                f"{path}: was started with another {key}: {there!r}, not {asked!r}; run it as before, or "
                "name another file with --journal"
            )
        yield Journal(file, lines[1:])


def _complete_lines(path: Path, file: BinaryIO) -> list[dict[str, Any]]:
    """Read the complete lines, and truncate the file after the last of them."""
    file.seek(0)
    content = file.read()
    complete = content[: content.rfind(b"\n") + 1]
    lines = []
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}:{number}: not a row of a journal") from error
    file.truncate(len(complete))
    return lines


def _differing(there: dict[str, Any], asked: dict[str, Any]) -> tuple[str, Any, Any] | None:
    keys = (key for key in {**there, **asked} if there.get(key) != asked.get(key))
    return next(((key, there.get(key), asked.get(key)) for key in keys), None)


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"
