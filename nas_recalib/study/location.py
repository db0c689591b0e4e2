"""Location of a study, a path or a storage URL: opened, created and read."""

import re
import shlex
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
    file_of,
    hide_password,
    in_memory,
    raised_by_storage,
    reason,
    sqlite_url,
    storage_errors,
)
from nas_recalib.study.stored import read_stored
from nas_recalib.study.trials import ACCURACY

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CORRELATION = "correlation"  # a study's attribute that says that it is not a search


@dataclass(frozen=True)
class StudyLocation:
    """Where a study lives.

    Attributes:
        name: Of the study.
        folder: runs/<study>.
        storage: URL of another storage than the folder's own study.db; see nas_recalib.study.storage.
    """

    name: str
    folder: Path
    storage: str | None = None

    @classmethod
    def of(cls, name: str, runs: Path, storage: str | None = None) -> "StudyLocation":
        """A study's place by name.

        Raises:
            InputError: If the name could not be that of a folder, or the storage cannot be one.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"study: {name!r} is not a name; use up to 100 letters, digits, '.', '_', '-'")
        if storage and in_memory(storage):
            raise InputError(f"storage: {storage} is gone when the search ends; name a file or a server")
        return cls(name, runs / name, storage)

    @property
    def shared(self) -> bool:
        """Whether others may write to it besides who works in the folder."""
        return self.storage is not None

    @property
    def database(self) -> Path:
        return self.folder / "study.db"

    @property
    def url(self) -> str:
        return self.storage or sqlite_url(self.database.resolve())

    @property
    def shown(self) -> str:
        """The storage without its password."""
        return hide_password(self.storage) if self.storage else str(self.database)

    def reason(self, error: Exception) -> str:
        """What a storage said, in one line and without the password."""
        return reason(error, self.url)


def find_study(location: StudyLocation) -> optuna.Study | None:
    """Opens a study, or gives None where there is none.

    Raises:
        InputError: If its storage cannot be reached, or its folder contains another study, as a copy does.
    """
    with storage_errors(location.url, location.shown):
        file = file_of(location.url)
        if file and not file.is_file():  # looking would make it
            return None
        storage = connect(location.url)
        with suppress(KeyError):
            return optuna.load_study(study_name=location.name, storage=storage)
        if not location.shared:
            _refuse_another(location, optuna.get_all_study_names(storage))
        return None


def _refuse_another(location: StudyLocation, contained: Sequence[str]) -> None:
    """Raise InputError where a study's own file contains studies, none of them of its name."""
    if contained:
        name = shlex.quote(contained[0])
        raise InputError(
            f"study: {location.folder} contains the study {contained[0]!r}, not {location.name!r}; rename it to "
            f"{name} (a copy: in another folder, which --runs-dir then names), or read it by: "
            f"nas-recalib show {name} --storage {location.url}"
        )


def open_study(location: StudyLocation) -> optuna.Study:
    """Opens a study that exists.

    Raises:
        InputError: If there is none, or its storage cannot be reached.
    """
    study = find_study(location)
    if study is None:
        known = sorted(path.parent.name for path in location.folder.parent.glob("*/study.db"))
        there = (
            f"; in {location.folder.parent} there are: {', '.join(known) or 'none'}"
            if not location.storage
            else ""
        )
        raise InputError(f"study: there is no {location.name!r} in {location.shown}{there}")
    return study


def create_study(location: StudyLocation, objectives: Sequence[str] = (ACCURACY,)) -> optuna.Study:
    """Opens a study, making it where it is missing.

    Args:
        location: Where.
        objectives: Accuracy, then the costs that are to be low besides.

    Raises:
        InputError: If its storage cannot be reached, or the study is not one of ours.
    """
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (len(objectives) - 1)]
    with storage_errors(location.url, location.shown):
        study = optuna.create_study(
            study_name=location.name,
            storage=connect(location.url),
            directions=directions,
            load_if_exists=True,
        )
    if study.directions != directions:
        raise InputError(f"study: {location.name!r} in {location.shown} was not made by nas-recalib")
    return study


@contextmanager
def storage_failures(location: StudyLocation, study: optuna.Study) -> Iterator[None]:
    """Raise StopSearch with one line for whatever an open study's storage fails with inside.

    Args:
        location: Location of the study.
        study: The open study.

    Raises:
        StopSearch: In place of an exception of the storage; where the study was deleted, it says so.
    """
    try:
        yield
    except Exception as error:
        refused = isinstance(error, InputError | StopSearch)  # in one line already
        if isinstance(error.__cause__ if refused else error, KeyError) and _is_gone(location, study):
            raise StopSearch(
                f"study: {location.name!r} was deleted from {location.shown} while the command ran"
            ) from error
        if refused or not raised_by_storage(error):
            raise
        raise StopSearch(f"storage: {location.shown} failed: {location.reason(error)}") from error


def _is_gone(location: StudyLocation, study: optuna.Study) -> bool:
    try:
        return study._storage.get_study_id_from_name(location.name) != study._study_id
    except KeyError:
        return True
    except Exception:  # of a storage that does not answer nothing is known
        return False


def read_config(study: optuna.Study) -> SearchConfig | None:
    """What the study is about, or None where nothing has been written yet.

    Raises:
        InputError: If it was written by something else.
    """
    content = study.user_attrs.get("config")
    if content is None and CORRELATION in study.user_attrs:
        raise InputError(f"study: {study.study_name!r} is one of 'nas-recalib correlate', not a search")
    return None if content is None else read_stored(SearchConfig, content, study.study_name)
