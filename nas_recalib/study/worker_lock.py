"""File locks of worker processes: one worker per folder or several, and which of them have ended."""

import fcntl
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas_recalib.errors import InputError


@contextmanager
def locked_worker(folder: Path, exclusive: bool, advice: str = "") -> Iterator[str]:
    """Hold the lock of this process as a worker on a study while the context lasts.

    The kernel releases the lock when the process ends, however it ends.

    Args:
        folder: Folder of the study, on this machine.
        exclusive: Whether this must be the only worker in the folder.
        advice: Sentence that tells a refused user how several processes can work on one study.

    Yields:
        Name of the worker: host and random token.

    Raises:
        InputError: If the folder cannot be written to, or another worker holds the exclusive lock.
    """
    token = secrets.token_hex(4)
    path = folder / "lock" if exclusive else _lock_path(folder, token)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    except OSError as error:
        raise InputError(f"runs: {folder} cannot be written: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"study: another process is using {folder}"
            raise InputError(f"{message}; {advice}" if advice else message) from error
        handle.write("" if exclusive else _boot_id())
        handle.flush()
        yield f"{socket.gethostname()}/{token}"
        if not exclusive:
            path.unlink(missing_ok=True)


def worker_has_ended(folder: Path, worker: str) -> bool:
    """Return whether a worker has certainly ended.

    Args:
        folder: Folder of the study, on this machine.
        worker: Name of the worker.

    Returns:
        False if the worker is alive, or runs on a machine or in a folder whose locks cannot be seen here.
    """
    path = _lock_path(folder, worker.rpartition("/")[2])
    try:
        with path.open() as handle:
            if handle.read() != _boot_id():
                return False
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (OSError, ValueError):
        return False
    return True


def _lock_path(folder: Path, token: str) -> Path:
    return folder / "workers" / f"{token}.lock"


def _boot_id() -> str:
    """Return an identifier of this machine since it booted: locks on network file systems are unreliable."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return socket.gethostname()
