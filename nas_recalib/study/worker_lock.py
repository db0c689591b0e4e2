"""Locks of worker processes on one machine, by which a dead worker is noticed at once."""

import fcntl
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas_recalib.errors import InputError

_ALONE = "lock"


@contextmanager
def locked_worker(folder: Path, alone: bool, advice: str = "") -> Iterator[str]:
    """Has this process be a worker on a study for as long as the context lasts.

    The kernel lets go of its lock when the process ends, however it ends.

    Args:
        folder: Of the study, on this machine.
        alone: Whether no other may be one on the same folder.
        advice: Sentence for the user whose process is refused: how several can work on one study.

    Yields:
        The worker's name.

    Raises:
        InputError: If the folder cannot be written to, or another search holds it.
    """
    token = secrets.token_hex(4)
    path = folder / _ALONE if alone else _path(folder, token)
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
        handle.write("" if alone else _kernel())
        handle.flush()
        yield f"{socket.gethostname()}/{token}"
        if not alone:
            path.unlink(missing_ok=True)


def worker_has_ended(folder: Path, worker: str) -> bool:
    """Whether a worker is known to have ended; False where it lives, or runs where its lock says nothing."""
    path = _path(folder, worker.rpartition("/")[2])
    try:
        with path.open() as handle:
            if handle.read() != _kernel():
                return False
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (OSError, ValueError):
        return False
    return True


def _path(folder: Path, token: str) -> Path:
    return folder / "workers" / f"{token}.lock"


def _kernel() -> str:
    """What tells the machine since it was started; locks over a network are not relied on."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return socket.gethostname()
