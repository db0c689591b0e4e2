"""Optuna storages by URL (SQLite, database servers, journals, gRPC proxies), and how passwords are hidden."""

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
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nas_recalib.errors import InputError
from nas_recalib.study.retrying_storage import RetryingStorage

_FILE = re.compile(r"(sqlite[\w+]*|journal):(?!//[^/])")
_USER = re.compile(r"(?<=://)([^:@/?#]*):([^@/?#]*)@")
_QUERY = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token)[^=&#]*)=([^&#]*)", re.IGNORECASE)
_UNENCODED = re.compile(r"://[^:/]*:(.*)@", re.DOTALL)  # a password that should have been percent-encoded
_MASK = "***"
_WHOLE_URL_HIDDEN = "the given URL"
_SHORT = 4  # characters; a shorter password is part of too many words


def has_ambiguous_password(url: str) -> bool:
    """Return whether a server's URL has an '@' that may be part of its password or the end of it."""
    rest = url.partition("://")[2]
    signs = rest.count("@")
    return not _FILE.match(url) and signs > 0 and (signs > 1 or "@" not in re.split("[/?#]", rest)[0])


def hide_password(url: str) -> str:
    """Return a storage URL with *** for its password, or 'the given URL' if the password is ambiguous."""
    if _FILE.match(url):
        return url
    if has_ambiguous_password(url):
        return _WHOLE_URL_HIDDEN
    return _QUERY.sub(rf"\1={_MASK}", _USER.sub(rf"\1:{_MASK}@", url))


def lacks_password(url: str) -> bool:
    """Return whether a URL cannot be used because `hide_password` removed its password."""
    return url == _WHOLE_URL_HIDDEN or ("://" in url and _MASK in url)


def scrub(text: str, url: str) -> str:
    """Return a text with *** for a URL's passwords, in each encoding that a library might write them in.

    A password of fewer than four characters is replaced only after `:` or `=` or between quotes (`:a@`,
    `password=a`, `"a"`), as it is part of ordinary words too.
    """
    if _FILE.match(url):
        return text
    passwords = {match[2] for pattern in (_USER, _QUERY) for match in pattern.finditer(url)}
    if has_ambiguous_password(url):
        passwords |= {match[1] for match in _UNENCODED.finditer(url)}
    decoded = {form for text in passwords for form in (text, unquote(text), unquote_plus(text))} - {""}
    encoded = {form for text in decoded for form in (text, quote(text, safe=""), quote_plus(text))}
    forms = encoded | {repr(form)[1:-1] for form in encoded}
    patterns = [
        re.escape(form) if len(form) >= _SHORT else rf"(?<=[:='\"`]){re.escape(form)}(?=[@&;'\"`\s]|$)"
        for form in sorted(forms, key=len, reverse=True)
    ]
    return re.sub("|".join(patterns), _MASK, text) if patterns else text


PATIENCE = 300.0  # seconds
GRPC_PORT = 13000
_KEEPALIVE = {  # options of PostgreSQL connections: an unreachable server is noticed within a minute
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# SQLSTATEs and SQLite messages of a table, or a row in it, that another process has just created.
_CREATED_MEANWHILE = re.compile("42P07|42710|23505|table .* already exists|UNIQUE constraint failed: .*")


def storage_kind(url: str) -> str:
    """Return what a storage URL names: sqlite, postgresql, mysql, ..., journal or grpc.

    Raises:
        InputError: If the URL cannot be used.
    """
    scheme = url.partition(":")[0]
    if has_ambiguous_password(url):
        raise InputError("storage: write each of @ / ? # in the URL's user and password as %40 %2F %3F %23")
    if scheme == "journal":
        _journal_path(url)
    elif scheme == "grpc":
        _grpc_address(url)
    else:
        return _database_url(url).get_backend_name()
    return scheme


def connect(url: str, patience: float = PATIENCE) -> BaseStorage:
    """Connect to a storage; a process connects to each server only once.

    Args:
        url: URL of the storage.
        patience: Seconds for which each call is repeated while the server of a shared storage is
            unreachable. The first connection is repeated only if the server is starting up or full.

    Raises:
        InputError: If the URL cannot be used, or its driver is not installed.
        StorageInternalError: If a shared storage cannot be connected to.
        SQLAlchemyError: If an SQLite database cannot be opened.
    """
    if storage_kind(url) in ("sqlite", "journal"):
        return open_storage(url, patience)
    return _cached_storage(url, patience, os.getpid())


def open_storage(url: str, patience: float = PATIENCE) -> BaseStorage:
    """Connect to a storage as `connect` does, by a new connection."""
    kind = storage_kind(url)
    make = {"journal": _journal, "grpc": _grpc}.get(kind, _database)
    if kind == "sqlite":
        return make(url)
    return RetryingStorage(  # type: ignore[abstract]  # its methods are generated
        lambda: make(url), hide_password(url), lambda error: describe_error(error, url), patience
    )


_cached_storage = lru_cache(maxsize=8)(lambda url, patience, _process: open_storage(url, patience))


def is_in_memory(url: str) -> bool:
    """Return whether a storage is lost when the process ends."""
    return storage_kind(url) == "sqlite" and _sqlite_path(url) in ("", ":memory:")


def sqlite_url(path: Path) -> str:
    """Return the URL by which SQLAlchemy opens an SQLite file, whatever characters its path has.

    The URL needs no quotes in a shell, and has no braces, which Optuna would format.
    """
    return "sqlite:///" + "".join(quote(sign) if sign.isascii() else sign for sign in str(path))


def storage_file(url: str) -> Path | None:
    """Return the file of a storage; None if the storage is a server or in memory."""
    kind = storage_kind(url)
    if kind == "journal":
        return _journal_path(url)
    return Path(_sqlite_path(url)) if kind == "sqlite" and not is_in_memory(url) else None


def _journal_path(url: str) -> Path:
    """Return the path in journal:///PATH or journal:PATH; raise InputError if there is none."""
    path = url.removeprefix("journal:")
    if path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise InputError("storage: a journal is a file: journal:///absolute/path or journal:path")
    if not path or path.endswith("/"):
        raise InputError("storage: name the journal's file, such as journal:///shared/studies.log")
    return Path(path).absolute()


def describe_error(error: BaseException, url: str) -> str:
    """Return the first line of the message of a storage's exception, without passwords."""
    message: Any = _driver_error(error) or error
    if callable(getattr(message, "details", None)):  # an error of gRPC
        message = message.details() or message.code().name
    lines = scrub(str(message), url).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _driver_error(error: BaseException) -> Any:
    """Return the exception of the database driver that Optuna and SQLAlchemy wrapped, as far as they did."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return getattr(cause, "orig", None) or cause


@contextmanager
def storage_errors(url: str, name: str) -> Iterator[None]:
    """Raise InputError with one line for any error of a storage.

    Args:
        url: URL of the storage.
        name: Name of the storage in the message.

    Raises:
        InputError: In place of the storage's exception, which is not chained as it may hold the password.
    """
    database_errors = (SQLAlchemyError, StorageInternalError, ImportError, LookupError, OSError)
    try:
        yield
    except InputError:
        raise
    except (*database_errors, RuntimeError, ValueError) as error:
        raise InputError(f"storage: {name} cannot be used: {describe_error(error, url)}") from None


def raised_by_storage(error: BaseException) -> bool:
    """Return whether a storage raised an exception, judged by its type or the modules in its traceback."""
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
            "storage: the given URL cannot be used; expected sqlite:///PATH, postgresql://USER@HOST/NAME, "
            "journal:///PATH, grpc://HOST:PORT or another URL that SQLAlchemy has a dialect for"
        ) from None
    if parsed.get_backend_name() == "sqlite" and url.partition("?")[2] and not parsed.query:
        raise InputError("storage: write a ? in the path of an SQLite file as %3F; an option is NAME=VALUE")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise InputError(f"storage: {parsed.port} is not a port")
    return parsed


def _with_driver(url: str) -> str:
    return re.sub("^postgres(ql)?:", "postgresql+psycopg:", url)


def _sqlite_path(url: str) -> str:
    """Return the path that SQLite opens; empty or ":memory:" for a database in memory.

    With the option `uri`, SQLite parses the path that SQLAlchemy passes to it as a URL: file:PATH?mode=ro.
    """
    parsed = _database_url(url)
    database, options = parsed.database or "", parsed.query
    is_uri = str(options.get("uri")).lower() in ("true", "t", "yes", "y", "on", "1")
    if not is_uri or not database.startswith("file:"):
        return database
    if options.get("mode") == "memory":
        return ":memory:"
    path = re.split("[?#]", database.removeprefix("file:"))[0]
    return unquote(re.sub("^//[^/]*", "", path))


def _database(url: str) -> BaseStorage:
    parsed = _database_url(url)
    formatted = _with_driver(url).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    try:
        storage = _create_tables(lambda: RDBStorage(formatted, engine_kwargs=_engine_options(parsed)))
    except ImportError:
        driver = parsed.drivername
        advice = "pip install 'nas-recalib[postgresql]'" if driver == "postgresql+psycopg" else "install it"
        raise InputError(f"storage: the driver of {driver} is not installed: {advice}") from None
    except (ArgumentError, ValueError) as error:  # SQLAlchemy or the driver cannot parse the URL
        message = describe_error(error, url)
        raise InputError(f"storage: {hide_password(url)} cannot be used: {message}") from None
    return optuna.storages.get_storage(storage)


def _engine_options(url: URL) -> dict[str, Any]:
    """Return options of SQLAlchemy's engine: at most two connections, as many processes share a server."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": 30}, "pool_events": [(_truncate_journal, "connect")]}
    pool = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 1}
    if url.drivername != "postgresql+psycopg":
        return pool
    return pool | {"connect_args": {key: value for key, value in _KEEPALIVE.items() if key not in url.query}}


def _truncate_journal(connection: Any, _: object) -> None:
    """Let SQLite truncate its journal after every commit; deleting it takes twice as long."""
    if connection.execute("PRAGMA journal_mode").fetchone() == ("delete",):
        connection.execute("PRAGMA journal_mode=TRUNCATE").close()


def _create_tables(make: Callable[[], RDBStorage]) -> RDBStorage:
    """Open a database, repeatedly if another process creates the same tables at the same time."""
    for _ in range(4):
        try:
            return make()
        except (SQLAlchemyError, StorageInternalError) as error:
            cause = _driver_error(error)
            if not _CREATED_MEANWHILE.fullmatch(getattr(cause, "sqlstate", None) or str(cause)):
                raise
        time.sleep(0.2)
    return make()


def _journal(url: str) -> BaseStorage:
    """Return Optuna's journal storage, locked by a file that only one process can create (O_EXCL).

    This lock works on local disks and on NFS from version 3 on, which recognises a repeated request. Optuna's
    other lock, a symbolic link, is for NFS 2 and would wait half a minute for itself after a repeated
    request. A lock whose holder was killed is broken after 30 seconds.
    """
    path = str(_journal_path(url))
    return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))


def _grpc(url: str) -> BaseStorage:
    host, port = _grpc_address(url)
    # gRPC's fork handlers can hang a child process; the variable is read when gRPC is imported.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            proxy = optuna.storages.GrpcStorageProxy(host=host, port=port)
    except ImportError:
        raise InputError("storage: gRPC is not installed: pip install 'nas-recalib[grpc]'") from None
    with suppress(KeyError):
        proxy.get_study_id_from_name("")  # connect now: creating the proxy does not
    return proxy


def _grpc_address(url: str) -> tuple[str, int]:
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname, parsed.port or GRPC_PORT
    except ValueError:
        host, port = None, 0
    if not host or "@" in url or parsed.path.strip("/") or parsed.query or parsed.fragment:
        raise InputError("storage: a gRPC proxy is named by grpc://HOST:PORT, without user, password or path")
    return f"[{host}]" if ":" in host else host, port
