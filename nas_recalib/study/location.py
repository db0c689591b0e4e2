"""Location of a study, a path or a storage URL: opened, created, read, and locked by its workers."""

import fcntl
import re
import secrets
import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.study import StudyDirection

from nas_recalib.errors import InputError, StopSearch
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.storage import (
    connect,
    describe_error,
    hide_password,
    is_in_memory,
    raised_by_storage,
    sqlite_url,
    storage_errors,
    storage_file,
)
from nas_recalib.study.stored import read_stored
from nas_recalib.study.trials import ACCURACY

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CORRELATION = "correlation"  # user attribute of a study that `correlate` wrote, which is not a search


@dataclass(frozen=True)
class StudyLocation:
    """Location of a study: its name, its folder and its storage.

    Attributes:
        name: Name of the study.
        folder: Folder of the study, runs/<study>.
        storage: Storage URL that replaces study.db in the folder; see nas_recalib.study.storage.
    """

    name: str
    folder: Path
    storage: str | None = None

    @classmethod
    def of(cls, name: str, runs: Path, storage: str | None = None) -> "StudyLocation":
        """Return the location of a study in a folder of studies.

        Raises:
            InputError: If the name cannot name a folder, or the storage URL cannot be used.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"study: {name!r} is not a name; use up to 100 letters, digits, '.', '_', '-'")
        if storage and is_in_memory(storage):
            raise InputError(f"storage: {storage} is in memory and lost at the end; name a file or a server")
        return cls(name, runs / name, storage)

    @property
    def shared(self) -> bool:
        """Whether workers in other folders or on other machines may write to the study."""
        return self.storage is not None

    @property
    def database(self) -> Path:
        return self.folder / "study.db"

    @property
    def url(self) -> str:
        return self.storage or sqlite_url(self.database.resolve())

    @property
    def display_name(self) -> str:
        """Storage as messages name it: its URL without the password, or the path of study.db."""
        return hide_password(self.storage) if self.storage else str(self.database)


def find_study(location: StudyLocation) -> optuna.Study | None:
    """Open a study; return None if it does not exist.

    Raises:
        InputError: If its storage cannot be reached, or its folder contains another study, as a copy does.
    """
    with storage_errors(location.url, location.display_name):
        file = storage_file(location.url)
        if file and not file.is_file():  # connecting would create it
            return None
        storage = connect(location.url)
        with suppress(KeyError):
            return optuna.load_study(study_name=location.name, storage=storage)
        others = [] if location.shared else optuna.get_all_study_names(storage)
        if others:
            name = shlex.quote(others[0])
            raise InputError(
                f"study: {location.folder} contains the study {others[0]!r}, not {location.name!r}; rename "
                f"it to {name} (a copy: in another folder, which --runs-dir then names), or read it by: "
                f"nas-recalib show {name} --storage {location.url}"
            )
        return None


def open_study(location: StudyLocation) -> optuna.Study:
    """Open a study that exists.

    Raises:
        InputError: If there is none, or its storage cannot be reached.
    """
    study = find_study(location)
    if study is None:
        existing = ""
        if not location.storage:
            runs = location.folder.parent
            names = sorted(path.parent.name for path in runs.glob("*/study.db"))
            existing = f"; in {runs} there are: {', '.join(names) or 'none'}"
        raise InputError(f"study: there is no {location.name!r} in {location.display_name}{existing}")
    return study


def create_study(location: StudyLocation, objectives: Sequence[str] = (ACCURACY,)) -> optuna.Study:
    """Open a study, and create it if it does not exist.

    Args:
        location: Location of the study.
        objectives: Accuracy, then the costs that are minimised besides it.

    Raises:
        InputError: If its storage cannot be reached, or the study was not made by this package.
    """
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (len(objectives) - 1)]
    name = location.name
    with storage_errors(location.url, location.display_name):
        storage = connect(location.url)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, load_if_exists=True
        )
    if study.directions != directions:
        raise InputError(f"study: {name!r} in {location.display_name} was not made by nas-recalib")
    return study


@contextmanager
def storage_failures(location: StudyLocation, study: optuna.Study) -> Iterator[None]:
    """Raise StopSearch with one line if the storage of an open study fails inside the context.

    Args:
        location: Location of the study.
        study: The open study.

    Raises:
        StopSearch: In place of an exception of the storage, or if the study was deleted meanwhile.
    """
    try:
        yield
    except Exception as error:
        has_message = isinstance(error, InputError | StopSearch)  # in one line already
        storage = location.display_name
        if isinstance(error.__cause__ if has_message else error, KeyError) and _was_deleted(location, study):
            message = f"study: {location.name!r} was deleted from {storage} while the command ran"
            raise StopSearch(message) from error
        if has_message or not raised_by_storage(error):
            raise
        message = f"storage: {storage} failed: {describe_error(error, location.url)}"
        raise StopSearch(message) from error


def _was_deleted(location: StudyLocation, study: optuna.Study) -> bool:
    try:
        return study._storage.get_study_id_from_name(location.name) != study._study_id
    except KeyError:
        return True
    except Exception:  # the storage does not answer
        return False


def read_config(study: optuna.Study) -> SearchConfig | None:
    """Return the stored configuration of a search; None if none has been written yet.

    Raises:
        InputError: If the study was not made by `search`, or by another version of this package.
    """
    content = study.user_attrs.get("config")
    if content is None and CORRELATION in study.user_attrs:
        raise InputError(
            f"study: {study.study_name!r} was made by 'nas-recalib correlate' and is not a search"
        )
    return None if content is None else read_stored(SearchConfig, content, study.study_name)


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
