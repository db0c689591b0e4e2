"""`storage check` and `storage serve`: test a storage, and serve one through Optuna's gRPC proxy."""

import errno
import math
import secrets
import socket
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, run_grpc_proxy_server
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from nas_recalib.errors import InputError, StopSearch
from nas_recalib.study.storage import (
    connect,
    engine_of,
    file_of,
    hide_password,
    kind_of,
    open_storage,
    reason,
    sqlite_url,
    storage_errors,
)

TRIALS = 10
_EPOCHS = 5
_BLOCKS = 32
_NETWORKED = ("nfs", "cifs", "smb", "fuse.", "lustre", "beegfs", "gpfs", "9p", "afs")
_CURVE = {epoch: epoch / _EPOCHS for epoch in range(1, _EPOCHS + 1)}


@dataclass(frozen=True)
class Check:
    """What was found out about a storage.

    Attributes:
        storage: Its URL, without the password.
        kind: sqlite, postgresql, journal, grpc or what else SQLAlchemy calls it.
        what: Server and version, or the file system that the file is on.
        round_trip: Median of a read, in seconds.
        written_trial: Median of a trial written as a search does, in seconds.
        connections: Processes that may connect to the server at once, where it says so.
        warnings: What may go wrong.
    """

    storage: str
    kind: str
    what: str
    round_trip: float
    written_trial: float
    connections: int | None
    warnings: tuple[str, ...]

    @property
    def workers(self) -> int | None:
        """That write one trial a minute each, one after another as a study's are, in half of the time.

        None where it cannot be told from here.
        """
        if self.kind in ("journal", "grpc"):
            return None
        if self.kind == "sqlite":
            return 1
        return min(self._by_time, self.connections or self._by_time)

    @property
    def good_for(self) -> str:
        if self.kind == "sqlite":
            return "one process; for more take PostgreSQL, a journal or a proxy in front of this"
        if self.kind == "journal":
            return "the processes that share its disk, if O_EXCL works there (any local disk, NFS from 3 on)"
        if self.kind == "grpc":
            return "what the storage behind the proxy is good for; ask there"
        told = f"60 s / {_milliseconds(self.written_trial)} / 2 = {self._by_time}, half of its time to spare"
        if self.connections is not None:
            told += f"; its connections allow {self.connections} processes"
        return f"{self.workers} workers at one trial a minute each ({told})"

    @property
    def _by_time(self) -> int:
        return math.floor(60 / self.written_trial / 2)

    def lines(self) -> list[str]:
        speed = f"{_milliseconds(self.round_trip)}, a written trial {_milliseconds(self.written_trial)}"
        return [
            f"{self.storage}: {self.what}",
            f"a round trip takes {speed} (medians of {TRIALS})",
            f"good for {self.good_for}",
            *(f"but {warning}" for warning in self.warnings),
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "storage": self.storage,
            "kind": self.kind,
            "what": self.what,
            "round_trip_seconds": self.round_trip,
            "written_trial_seconds": self.written_trial,
            "connections": self.connections,
            "workers": self.workers,
            "good_for": self.good_for,
            "warnings": list(self.warnings),
            "problem": None,
        }


def check_storage(url: str) -> Check:
    """Writes trials to a study of a random name, reads them back by another connection, deletes the study.

    A file that is not there is not made, and a journal, which forgets nothing, is not written to: another of
    their kind beside it is, and is deleted.

    Raises:
        InputError: If the URL names nothing that could be used.
        StopSearch: If the storage does not do what it should; the message says what.
    """
    kind, shown = kind_of(url), hide_password(url)
    try:
        with _stand_in(url, kind) as used:
            first, second = open_storage(used, 0), open_storage(used, 0)
            name = f"nas-recalib-check-{secrets.token_hex(8)}"
            try:
                study = first.create_new_study([StudyDirection.MAXIMIZE], name)
                written = [_timed(lambda: _write(first, study)) for _ in range(TRIALS)]
                read = [_timed(lambda: second.get_study_id_from_name(name)) for _ in range(TRIALS)]
                _compare(second.get_all_trials(study))
            finally:
                _delete(open_storage(used, 0), name)
            what, connections = _describe(first, kind, url)
    except (SQLAlchemyError, StorageInternalError, OSError, RuntimeError) as error:
        raise StopSearch(f"storage: {shown} cannot be used: {reason(error, url)}") from None
    system = _file_system(file_of(url))
    networked = kind == "sqlite" and system and system.startswith(_NETWORKED)
    warnings = (f"the locks of SQLite are not to be relied on where files are on {system}",) * bool(networked)
    medians = statistics.median(read), statistics.median(written)
    return Check(shown, kind, what, *medians, connections, warnings)


@contextmanager
def _stand_in(url: str, kind: str) -> Iterator[str]:
    """The URL to write to."""
    path = file_of(url)
    if path is None or (kind == "sqlite" and path.is_file()):
        yield url
        return
    if path.is_file():
        open_storage(url, 0)  # which reads it all
    beside = path.absolute().parent / f".nas-recalib-check-{secrets.token_hex(8)}"
    try:
        yield f"journal:{beside}" if kind == "journal" else sqlite_url(beside)
    finally:
        for left in beside.parent.glob(f"{beside.name}*"):
            left.unlink(missing_ok=True)


def _write(storage: BaseStorage, study: int) -> None:
    options = CategoricalDistribution(("vanilla", "scconv", "psconv", "msar"))
    template = create_trial(
        state=TrialState.RUNNING,
        params={f"block{block}": "scconv" for block in range(_BLOCKS)},
        distributions={f"block{block}": options for block in range(_BLOCKS)},
        user_attrs={f"attribute{number}": "x" * 40 for number in range(16)},
    )
    trial = storage.create_new_trial(study, template)
    for epoch, accuracy in _CURVE.items():
        storage.set_trial_intermediate_value(trial, epoch, accuracy)
    storage.set_trial_user_attr(trial, "seconds", 1.5)
    storage.set_trial_state_values(trial, TrialState.COMPLETE, [1.0])


def _compare(trials: list[FrozenTrial]) -> None:
    whole = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE
        and trial.values == [1.0]
        and trial.intermediate_values == _CURVE
        and trial.user_attrs["seconds"] == 1.5
        and len(trial.params) == _BLOCKS
    ]
    if len(whole) < TRIALS or [trial.number for trial in trials] != list(range(TRIALS)):
        raise StorageInternalError(f"of {TRIALS} trials written, {len(whole)} were read back as written")


def _delete(storage: BaseStorage, name: str) -> None:
    try:
        storage.delete_study(storage.get_study_id_from_name(name))
    except KeyError:  # it did not come to that
        return


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def _describe(storage: BaseStorage, kind: str, url: str) -> tuple[str, int | None]:
    """Server and version, or file system; and how many may connect."""
    engine = engine_of(storage)
    if engine is None:
        system = _file_system(file_of(url))
        return ("Optuna's gRPC proxy" if kind == "grpc" else f"a journal on {system}"), None
    with engine.connect() as connection:
        version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
        if kind == "postgresql":
            return f"PostgreSQL {_one(connection, 'SHOW server_version')}", _connections(connection)
        if kind == "sqlite":
            version = _one(connection, "SELECT sqlite_version()")
            return f"SQLite {version} on {_file_system(file_of(url))}", None
        return f"{engine.dialect.name} {version}".strip(), None


def _connections(connection: Connection) -> int:
    """What PostgreSQL leaves to users who are not its administrators."""
    reserved = _one(connection, "SHOW superuser_reserved_connections")
    return int(_one(connection, "SHOW max_connections")) - int(reserved)


def _one(connection: Connection, statement: str) -> str:
    return str(connection.exec_driver_sql(statement).scalar())


def _file_system(path: Path | None) -> str | None:
    """The kind of file system that a file is on, or would be."""
    mounts = Path("/proc/self/mounts")
    if path is None or not mounts.is_file():
        return None
    folder = path.absolute().parent.resolve()
    rows = [row.split() for row in mounts.read_text().splitlines()]
    kinds = {Path(row[1].replace("\\040", " ")): row[2] for row in rows}
    return next((kinds[above] for above in (folder, *folder.parents) if above in kinds), None)


def serve_storage(url: str, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serves a storage until interrupted.

    Args:
        url: Of a database; neither a journal, which the proxy does not know, nor another proxy.
        host: Address to listen on.
        port: To listen on.
        ready: Called once the storage has answered and the port is known to be free.

    Raises:
        InputError: If the storage cannot be used, or the port cannot be had.
    """
    if kind_of(url) in ("journal", "grpc"):
        raise InputError("storage: a database can be served, such as postgresql://USER@HOST/NAME")
    try:
        import grpc  # noqa: F401
    except ImportError:
        raise InputError("storage: gRPC is not installed: pip install 'nas-recalib[grpc]'") from None
    _refuse_taken(host, port)
    with storage_errors(url, hide_password(url)):
        storage = connect(url)
    ready()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        run_grpc_proxy_server(storage, host=f"[{host}]" if ":" in host else host, port=port)


def _refuse_taken(host: str, port: int) -> None:
    """GRPC itself would share the port with whoever has it, and each get some of the calls."""
    host = host.strip("[]")
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
    except OSError as error:
        told = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
        raise InputError(f"port: {host}:{port} {told}") from None
