"""Test of a storage (`storage check`), and a server for one through Optuna's gRPC proxy (`storage serve`)."""

import errno
import math
import secrets
import socket
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, run_grpc_proxy_server
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from nas_recalib.errors import InputError, StopSearch
from nas_recalib.study.storage import (
    connect,
    describe_error,
    hide_password,
    open_storage,
    sqlite_url,
    storage_errors,
    storage_file,
    storage_kind,
)

TRIALS = 10
_EPOCHS = 5
_BLOCKS = 32
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse.", "lustre", "beegfs", "gpfs", "9p", "afs")
_CURVE = {epoch: epoch / _EPOCHS for epoch in range(1, _EPOCHS + 1)}


@dataclass(frozen=True)
class StorageReport:
    """Result of the test of a storage.

    Attributes:
        storage: URL of the storage, without the password.
        kind: sqlite, postgresql, journal, grpc or another name of SQLAlchemy.
        description: Server and version, or the file system that the file is on.
        round_trip_seconds: Median time of a read.
        written_trial_seconds: Median time to write a trial as a search does.
        connections: Number of processes that may connect to the server at once, if it says so.
        warnings: Sentences about what may go wrong.
    """

    storage: str
    kind: str
    description: str
    round_trip_seconds: float
    written_trial_seconds: float
    connections: int | None
    warnings: tuple[str, ...]

    @property
    def workers(self) -> int | None:
        """Number of workers that can write one trial a minute each, in half of the time.

        Writes to one study are taken to follow each other. None if it cannot be measured from here.
        """
        if self.kind in ("journal", "grpc"):
            return None
        if self.kind == "sqlite":
            return 1
        return min(self._workers_by_time, self.connections or self._workers_by_time)

    @property
    def good_for(self) -> str:
        if self.kind == "sqlite":
            return "one process; for several use PostgreSQL, a journal file, or a gRPC proxy for this file"
        if self.kind == "journal":
            return "the processes that share its disk, if O_EXCL works there (any local disk, NFS from 3 on)"
        if self.kind == "grpc":
            return "as many workers as the storage behind the proxy; check that storage"
        time_per_trial = _milliseconds(self.written_trial_seconds)
        reason = f"60 s / {time_per_trial} / 2 = {self._workers_by_time}, using half of the time"
        if self.connections is not None:
            reason += f"; its connections allow {self.connections} processes"
        return f"{self.workers} workers at one trial a minute each ({reason})"

    @property
    def _workers_by_time(self) -> int:
        return math.floor(60 / self.written_trial_seconds / 2)

    def lines(self) -> list[str]:
        round_trip, trial = map(_milliseconds, (self.round_trip_seconds, self.written_trial_seconds))
        return [
            f"{self.storage}: {self.description}",
            f"a round trip takes {round_trip}, writing a trial {trial} (medians of {TRIALS})",
            f"good for {self.good_for}",
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self) | {"workers": self.workers, "good_for": self.good_for, "problem": None}
        content["what"] = content.pop("description")
        return content


def check_storage(url: str) -> StorageReport:
    """Test a storage: write trials to a new study, read them back by a second connection, delete the study.

    A missing SQLite file is not created, and a journal is not written to, as it never shrinks: a temporary
    file of the same kind in the same folder is tested instead.

    Raises:
        InputError: If the URL cannot be used.
        StopSearch: If the storage fails or loses what was written; the message says what.
    """
    kind, shown_url = storage_kind(url), hide_password(url)
    try:
        with _url_to_test(url, kind) as tested_url:
            first, second = open_storage(tested_url, 0), open_storage(tested_url, 0)
            name = f"nas-recalib-check-{secrets.token_hex(8)}"
            try:
                study = first.create_new_study([StudyDirection.MAXIMIZE], name)
                writes = [_timed(lambda: _write(first, study)) for _ in range(TRIALS)]
                reads = [_timed(lambda: second.get_study_id_from_name(name)) for _ in range(TRIALS)]
                _compare(second.get_all_trials(study))
            finally:
                cleaner = open_storage(tested_url, 0)
                with suppress(KeyError):  # the study was not created
                    cleaner.delete_study(cleaner.get_study_id_from_name(name))
            description, connections = _describe(first, kind, url)
    except (SQLAlchemyError, StorageInternalError, OSError, RuntimeError) as error:
        raise StopSearch(f"storage: {shown_url} cannot be used: {describe_error(error, url)}") from None
    warnings = []
    file_system = _file_system(storage_file(url))
    if kind == "sqlite" and file_system and file_system.startswith(_NETWORK_FILE_SYSTEMS):
        warnings.append(f"the file locks of SQLite are unreliable on {file_system}")
    medians = statistics.median(reads), statistics.median(writes)
    return StorageReport(shown_url, kind, description, *medians, connections, tuple(warnings))


@contextmanager
def _url_to_test(url: str, kind: str) -> Iterator[str]:
    """Yield the URL to write to: the given one, or that of a temporary file beside the given file."""
    path = storage_file(url)
    if path is None or (kind == "sqlite" and path.is_file()):
        yield url
        return
    if path.is_file():
        open_storage(url, 0)  # reads all of the journal
    beside = path.absolute().parent / f".nas-recalib-check-{secrets.token_hex(8)}"
    try:
        yield f"journal:{beside}" if kind == "journal" else sqlite_url(beside)
    finally:
        for file in beside.parent.glob(f"{beside.name}*"):
            file.unlink(missing_ok=True)


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
    intact = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE
        and trial.values == [1.0]
        and trial.intermediate_values == _CURVE
        and trial.user_attrs["seconds"] == 1.5
        and len(trial.params) == _BLOCKS
    ]
    if len(intact) < TRIALS or [trial.number for trial in trials] != list(range(TRIALS)):
        raise StorageInternalError(f"of {TRIALS} trials written, {len(intact)} were read back as written")


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def _describe(storage: BaseStorage, kind: str, url: str) -> tuple[str, int | None]:
    """Return the server and version, or the file system, and the number of connections that are allowed."""
    inner = getattr(storage, "storage", storage)
    engine = getattr(getattr(inner, "_backend", None), "engine", None)
    if engine is None:
        file_system = _file_system(storage_file(url))
        return ("Optuna's gRPC proxy" if kind == "grpc" else f"a journal on {file_system}"), None
    with engine.connect() as connection:

        def query(statement: str) -> str:
            return str(connection.exec_driver_sql(statement).scalar())

        if kind == "postgresql":
            reserved = int(query("SHOW superuser_reserved_connections"))
            return f"PostgreSQL {query('SHOW server_version')}", int(query("SHOW max_connections")) - reserved
        if kind == "sqlite":
            return f"SQLite {query('SELECT sqlite_version()')} on {_file_system(storage_file(url))}", None
        version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
        return f"{engine.dialect.name} {version}".strip(), None


def _file_system(path: Path | None) -> str | None:
    """Return the type of the file system that a file is on, or would be, such as ext4."""
    mounts = Path("/proc/self/mounts")
    if path is None or not mounts.is_file():
        return None
    folder = path.absolute().parent.resolve()
    rows = [row.split() for row in mounts.read_text().splitlines()]
    kinds = {Path(row[1].replace("\\040", " ")): row[2] for row in rows}
    return next((kinds[above] for above in (folder, *folder.parents) if above in kinds), None)


def serve_storage(url: str, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serve a database through Optuna's gRPC proxy until interrupted.

    Args:
        url: URL of a database; the proxy serves neither a journal nor another proxy.
        host: Address to listen on.
        port: Port to listen on.
        ready: Function that is called once the storage has answered and the port is known to be free.

    Raises:
        InputError: If the storage or the port cannot be used.
    """
    if storage_kind(url) in ("journal", "grpc"):
        raise InputError("storage: only a database can be served, such as postgresql://USER@HOST/NAME")
    try:
        import grpc  # noqa: F401
    except ImportError:
        raise InputError("storage: gRPC is not installed: pip install 'nas-recalib[grpc]'") from None
    _require_free_port(host, port)
    with storage_errors(url, hide_password(url)):
        storage = connect(url)
    ready()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        run_grpc_proxy_server(storage, host=f"[{host}]" if ":" in host else host, port=port)


def _require_free_port(host: str, port: int) -> None:
    """Raise InputError if a port is taken: gRPC would share it, and each server get some of the calls."""
    host = host.strip("[]")
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        problem = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise InputError(f"port: {host}:{port} {problem}; choose another --port") from None
