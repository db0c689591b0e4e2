"""The Optuna study: opened, made and read."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from nas_recalib.errors import InputError
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.trials import ACCURACY

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CORRELATION = "correlation"  # a study's attribute that says that it is not a search


@dataclass(frozen=True)
class StudyPlace:
    """Where a study lives.

    Attributes:
        name: Of the study.
        folder: runs/<study>.
        storage: URL of another storage than the folder's own study.db, as SQLAlchemy takes it.
    """

    name: str
    folder: Path
    storage: str | None = None

    @classmethod
    def of(cls, name: str, runs: Path, storage: str | None = None) -> "StudyPlace":
        """A study's place by name.

        Raises:
            InputError: If the name could not be that of a folder.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"study: {name!r} is not a name; use up to 100 letters, digits, '.', '_', '-'")
        if storage and _in_memory(storage):
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
        return self.storage or f"sqlite:///{self.database.resolve()}"

    @property
    def shown(self) -> str:
        """The storage without its password."""
        if self.storage is None:
            return str(self.database)
        try:
            return make_url(self.storage).render_as_string(hide_password=True)
        except SQLAlchemyError:
            return "the given URL"

    def reason(self, error: Exception) -> str:
        """What a storage said, in one line and without the password."""
        source = error.__cause__ if isinstance(error, StorageInternalError) else error
        lines = str(getattr(source, "orig", None) or source or error).strip().splitlines()
        line = lines[0] if lines else type(error).__name__
        try:
            password = make_url(self.storage).password if self.storage else None
        except SQLAlchemyError:
            password = None
        return line.replace(f":{password}@", ":***@") if password else line


def find_study(place: StudyPlace) -> optuna.Study | None:
    """Opens a study, or gives None where there is none.

    Raises:
        InputError: If its storage cannot be reached.
    """
    if not _may_exist(place.url):
        return None
    with _storage_errors(place):
        try:
            return optuna.load_study(study_name=place.name, storage=_connect(place))
        except KeyError:
            return None


def open_study(place: StudyPlace) -> optuna.Study:
    """Opens a study that exists.

    Raises:
        InputError: If there is none, or its storage cannot be reached.
    """
    study = find_study(place)
    if study is None:
        known = sorted(path.parent.name for path in place.folder.parent.glob("*/study.db"))
        there = (
            f"; in {place.folder.parent} there are: {', '.join(known) or 'none'}" if not place.storage else ""
        )
        raise InputError(f"study: there is no {place.name!r} in {place.shown}{there}")
    return study


def create_study(place: StudyPlace, objectives: Sequence[str] = (ACCURACY,)) -> optuna.Study:
    """Opens a study, making it where it is missing.

    Args:
        place: Where.
        objectives: Accuracy, then the costs that are to be low besides.

    Raises:
        InputError: If its storage cannot be reached, or the study is not one of ours.
    """
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * (len(objectives) - 1)]
    with _storage_errors(place):
        study = optuna.create_study(
            study_name=place.name, storage=_connect(place), directions=directions, load_if_exists=True
        )
    if study.directions != directions:
        raise InputError(f"study: {place.name!r} in {place.shown} was not made by nas-recalib")
    return study


def read_config(study: optuna.Study) -> SearchConfig | None:
    """What the study is about, or None where nothing has been written yet.

    Raises:
        InputError: If it was written by something else.
    """
    content = study.user_attrs.get("config")
    if content is None and CORRELATION in study.user_attrs:
        raise InputError(f"study: {study.study_name!r} is one of 'nas-recalib correlate', not a search")
    if content is None:
        return None
    try:
        return SearchConfig.from_dict(content)
    except (TypeError, KeyError) as error:
        raise InputError(
            f"study: {study.study_name!r} was not made by this version of nas-recalib"
        ) from error


def _in_memory(storage: str) -> bool:
    try:
        url = make_url(storage)
    except SQLAlchemyError:
        return False
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def _may_exist(storage: str) -> bool:
    """False for the file of an SQLite database that is not there; looking would make it."""
    try:
        url = make_url(storage)
    except SQLAlchemyError:
        return True
    return url.get_backend_name() != "sqlite" or Path(str(url.database)).is_file()


def _connect(place: StudyPlace) -> Any:
    url = place.url.replace("{", "{{").replace("}", "}}")  # Optuna formats the URL
    sqlite = {"connect_args": {"timeout": 30}, "pool_events": [(_keep_journal, "connect")]}
    return optuna.storages.RDBStorage(url, engine_kwargs=sqlite if url.startswith("sqlite") else {})


def _keep_journal(connection: Any, _: object) -> None:
    """Has SQLite empty its journal after every commit; to delete it takes twice as long."""
    if connection.execute("PRAGMA journal_mode").fetchone() == ("delete",):
        connection.execute("PRAGMA journal_mode=TRUNCATE").close()


@contextmanager
def _storage_errors(place: StudyPlace) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError, StorageInternalError) as error:
        raise InputError(f"storage: {place.shown} cannot be used: {place.reason(error)}") from error
