"""Storage of studies: a file, a database server, a shared disk or a gRPC proxy; passwords stay hidden."""

import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from traceback import walk_tb
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nas_recalib.errors import InputError
from nas_recalib.study.retrying_storage import RetryingStorage

_FILE = re.compile(r"(sqlite[\w+]*|journal):(?!//[^/])")
_USER = re.compile(r"(?<=://)([^:@/?#]*):([^@/?#]*)@")
_QUERY = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token)[^=&#]*)=([^&#]*)", re.IGNORECASE)
_LOOSE = re.compile(r"://[^:/]*:(.*)@", re.DOTALL)  # in a URL whose password should have been encoded
_HIDDEN = "***"
_UNSHOWN = "the given URL"
_SHORT = 4  # letters; a shorter password is part of too many words


def ambiguous(url: str) -> bool:
    """Whether a server's URL has an '@' that may as well be its password's as the end of it."""
    rest = url.partition("://")[2]
    signs = rest.count("@")
    return not _FILE.match(url) and signs > 0 and (signs > 1 or "@" not in re.split("[/?#]", rest)[0])


def hide_password(url: str) -> str:
    """A storage's URL to show, or 'the given URL' where its password cannot be told from the rest."""
    if _FILE.match(url):
        return url
    if ambiguous(url):
        return _UNSHOWN
    return _QUERY.sub(rf"\1={_HIDDEN}", _USER.sub(rf"\1:{_HIDDEN}@", url))


def lacks_password(shown: str) -> bool:
    """Return whether `hide_password` left out what a URL needs."""
    return shown == _UNSHOWN or ("://" in shown and _HIDDEN in shown)


def scrub(text: str, url: str) -> str:
    """A text with a URL's passwords as ***, in each form that a library might write them in.

    A password of fewer than four characters is replaced only where it stands as a value (`:a@`,
    `password=a`, `"a"`): every other word holds it too.
    """
    forms = {form for password in _passwords(url) for form in _forms(password)}
    patterns = [
        re.escape(form) if len(form) >= _SHORT else rf"(?<=[:='\"`]){re.escape(form)}(?=[@&;'\"`\s]|$)"
        for form in sorted(forms, key=len, reverse=True)
    ]
    return re.sub("|".join(patterns), _HIDDEN, text) if patterns else text


def _passwords(url: str) -> set[str]:
    if _FILE.match(url):
        return set()
    loose = [match[1] for match in _LOOSE.finditer(url)] if ambiguous(url) else []
    return {match[2] for pattern in (_USER, _QUERY) for match in pattern.finditer(url)}.union(loose) - {""}


def _forms(password: str) -> set[str]:
    plain = {password, unquote(password), unquote_plus(password)}
    encoded = {encode for text in plain for encode in (text, quote(text, safe=""), quote_plus(text))}
    return encoded | {repr(text)[1:-1] for text in encoded}


PATIENCE = 300.0  # seconds
GRPC_PORT = 13000
_KEPT_ALIVE = {  # of PostgreSQL's connections: a server that is gone is noticed within a minute
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_STORAGES_RAISE = (
    SQLAlchemyError,
    StorageInternalError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)
# SQLSTATE or SQLite's words where another process made that table, or a row in it, meanwhile.
_RACED = re.compile("42P07|42710|23505|table .* already exists|UNIQUE constraint failed: .*")


def kind_of(url: str) -> str:
    """What a storage's URL names: sqlite, postgresql, mysql, ..., journal or grpc.

    Raises:
        InputError: If it names nothing that could be used.
    """
    scheme = url.partition(":")[0]
    if ambiguous(url):
        raise InputError("storage: write each of @ / ? # in the URL's user and password as %40 %2F %3F %23")
    if scheme == "journal":
        journal_path(url)
        return scheme
    if scheme == "grpc":
        _grpc_place(url)
        return scheme
    return _database_url(url).get_backend_name()


def shared(url: str) -> bool:
    """Whether several processes may write to a storage at once: all but SQLite.

    Raises:
        InputError: If the URL names nothing that could be used.
    """
    return kind_of(url) != "sqlite"


def connect(url: str, patience: float = PATIENCE) -> BaseStorage:
    """Connects to a storage; to a server once in a process, however often it is asked for.

    Args:
        url: Of the storage.
        patience: Seconds that each call goes on trying while a shared storage's server is not there. The
            first connection is not waited for unless the server says that it is starting up or full.

    Raises:
        InputError: If the URL names nothing that could be used, or its driver is not installed.
        StorageInternalError: If a shared storage cannot be connected to.
        SQLAlchemyError: If an SQLite database cannot be opened.
    """
    if kind_of(url) in ("sqlite", "journal"):
        return open_storage(url, patience)
    return _server(url, patience, os.getpid())


def open_storage(url: str, patience: float = PATIENCE) -> BaseStorage:
    """As `connect`, by a connection of its own."""
    kind = kind_of(url)
    make = {"journal": _journal, "grpc": _grpc}.get(kind, _database)
    if kind == "sqlite":
        return make(url)
    return RetryingStorage(lambda: make(url), hide_password(url), lambda error: reason(error, url), patience)


_server = lru_cache(maxsize=8)(lambda url, patience, _process: open_storage(url, patience))


def engine_of(storage: BaseStorage) -> Engine | None:
    """SQLAlchemy's engine of a storage that is a database's."""
    inner = getattr(storage, "storage", storage)
    return getattr(getattr(inner, "_backend", None), "engine", None)


def in_memory(url: str) -> bool:
    """Whether a storage is gone with the process."""
    return kind_of(url) == "sqlite" and _sqlite_file(url) in ("", ":memory:")


def sqlite_url(path: Path) -> str:
    """Return the URL by which SQLAlchemy opens an SQLite file, whatever characters its path has.

    The URL needs no quotes in a shell, and no braces are left in it, which Optuna would format.
    """
    return "sqlite:///" + "".join(quote(sign) if sign.isascii() else sign for sign in str(path))


def file_of(url: str) -> Path | None:
    """Return the file that a storage is, or None where it is a server or in memory."""
    kind = kind_of(url)
    if kind == "journal":
        return journal_path(url)
    return Path(_sqlite_file(url)) if kind == "sqlite" and not in_memory(url) else None


def journal_path(url: str) -> Path:
    """The file of journal:///PATH or journal:PATH.

    Raises:
        InputError: If there is none.
    """
    path = url.removeprefix("journal:")
    if path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise InputError("storage: a journal is a file: journal:///absolute/path or journal:path")
    if not path or path.endswith("/"):
        raise InputError("storage: name the journal's file, such as journal:///shared/studies.log")
    return Path(path).absolute()


def reason(error: BaseException, url: str) -> str:
    """What a storage said, in one line and without the password."""
    source: Any = error.__cause__ if isinstance(error, StorageInternalError) else error
    said: Any = getattr(source, "orig", None) or source or error
    if callable(getattr(said, "details", None)):  # gRPC's
        said = said.details() or said.code().name
    lines = scrub(str(said), url).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def storage_errors(url: str, name: str) -> Iterator[None]:
    """Has what a storage fails with refused in one line.

    Args:
        url: Of the storage.
        name: What it is called before the user.

    Raises:
        InputError: In place of what the storage raised; nothing that it raised is chained, for it may hold
            the password.
    """
    try:
        yield
    except InputError:
        raise
    except _STORAGES_RAISE as error:
        raise InputError(f"storage: {name} cannot be used: {reason(error, url)}") from None


def raised_by_storage(error: BaseException) -> bool:
    """Return whether an exception comes out of a storage: by its type, or by what its traceback passes."""
    if isinstance(error, SQLAlchemyError | StorageInternalError):
        return True
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(module.startswith("optuna.storages.") for module in modules)


def _database_url(url: str) -> URL:
    try:
        parsed = make_url(_with_driver(url))
        parsed.get_dialect()
    except (SQLAlchemyError, ValueError, ImportError):
        raise InputError(
            "storage: the given URL cannot be used; there are sqlite:///PATH, postgresql://USER@HOST/NAME, "
            "journal:///PATH, grpc://HOST:PORT and what else SQLAlchemy has a dialect for"
        ) from None
    if parsed.get_backend_name() == "sqlite" and url.partition("?")[2] and not parsed.query:
        raise InputError("storage: write a ? in the path of an SQLite file as %3F; an option is NAME=VALUE")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise InputError(f"storage: {parsed.port} is not a port")
    return parsed


def _with_driver(url: str) -> str:
    return re.sub("^postgres(ql)?:", "postgresql+psycopg:", url)


def _sqlite_file(url: str) -> str:
    """Return the path that SQLite opens; empty or ":memory:" where it keeps a database in memory.

    With the option `uri` SQLite reads what SQLAlchemy gives it as a URL once more: file:PATH?mode=ro.
    """
    parsed = _database_url(url)
    database, options = parsed.database or "", parsed.query
    if not _is_true(options.get("uri")) or not database.startswith("file:"):
        return database
    if options.get("mode") == "memory":
        return ":memory:"
    path = re.split("[?#]", database.removeprefix("file:"))[0]
    return unquote(re.sub("^//[^/]*", "", path))


def _is_true(option: object) -> bool:
    return str(option).lower() in ("true", "t", "yes", "y", "on", "1")


def _database(url: str) -> BaseStorage:
    parsed = _database_url(url)
    formatted = _with_driver(url).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    try:
        storage = _after_the_race(lambda: RDBStorage(formatted, engine_kwargs=_engine_options(parsed)))
    except ImportError:
        driver = parsed.drivername
        named = "pip install 'nas-recalib[postgresql]'" if driver == "postgresql+psycopg" else "install it"
        raise InputError(f"storage: the driver of {driver} is not installed: {named}") from None
    except (ArgumentError, ValueError) as error:  # SQLAlchemy or the driver cannot make sense of it
        raise InputError(f"storage: {hide_password(url)} cannot be used: {reason(error, url)}") from None
    return optuna.storages.get_storage(storage)


def _engine_options(url: URL) -> dict[str, Any]:
    """Of SQLAlchemy's engine; a process has at most two connections to a server, for hundreds share it."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 30}, "pool_events": [(_keep_journal, "connect")]}
    pool = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 1}
    if url.drivername != "postgresql+psycopg":
        return pool
    return pool | {"connect_args": {key: value for key, value in _KEPT_ALIVE.items() if key not in url.query}}


def _keep_journal(connection: Any, _: object) -> None:
    """Has SQLite empty its journal after every commit; to delete it takes twice as long."""
    if connection.execute("PRAGMA journal_mode").fetchone() == ("delete",):
        connection.execute("PRAGMA journal_mode=TRUNCATE").close()


def _after_the_race(make: Callable[[], RDBStorage]) -> RDBStorage:
    """A database's tables are made by whoever comes first; who came second finds them when it looks again."""
    for _ in range(4):
        try:
            return make()
        except (SQLAlchemyError, StorageInternalError) as error:
            source: Any = error.__cause__ if isinstance(error, StorageInternalError) else error
            told = getattr(source, "orig", None)
            if not _RACED.fullmatch(getattr(told, "sqlstate", None) or str(told)):
                raise
        time.sleep(0.2)
    return make()


def _journal(url: str) -> BaseStorage:
    """Optuna's journal, locked by a file that only one process can create (O_EXCL).

    That works on local disks and on NFS from version 3 on, where a request that is sent again after a lost
    answer is known for the same one; Optuna's other lock, a symbolic link, is for NFS 2 and would then wait
    half a minute for itself. A lock whose holder was killed is broken after 30 seconds.
    """
    path = str(journal_path(url))
    return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))


def _grpc(url: str) -> BaseStorage:
    host, port = _grpc_place(url)
    # gRPC's handlers of forks can hang a child; it is read when gRPC is imported.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            proxy = optuna.storages.GrpcStorageProxy(host=host, port=port)
    except ImportError:
        raise InputError("storage: gRPC is not installed: pip install 'nas-recalib[grpc]'") from None
    with suppress(KeyError):
        proxy.get_study_id_from_name("")  # the first call is the first to connect
    return proxy


def _grpc_place(url: str) -> tuple[str, int]:
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname, parsed.port or GRPC_PORT
    except ValueError:
        host, port = None, 0
    if not host or "@" in url or parsed.path.strip("/") or parsed.query or parsed.fragment:
        raise InputError("storage: a gRPC proxy is named by grpc://HOST:PORT; it has no users or passwords")
    return f"[{host}]" if ":" in host else host, port
