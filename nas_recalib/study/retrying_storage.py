"""Retrying storage: repeats a call to a database server or gRPC proxy after a transient error."""

import abc
import logging
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial, wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

_T = TypeVar("_T")
_log = logging.getLogger("nas_recalib")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds
_BUSY = re.compile("08...|57P0[123]|53300|40001|40P01")  # SQLSTATE: gone, shut down, full, deadlock
_FULL = re.compile("too many (clients|connections)|connection slots|read-only|hot standby")
_MYSQL_LOST = {1040, 1053, 2002, 2003, 2006, 2013}


class StorageFailure(Enum):
    """Kinds of storage failures; of several in one chain of exceptions the first listed here counts."""

    LOST = "the server is unreachable, or the connection broke"
    BUSY = "the server is reachable and accepts no requests now"
    REFUSED = "the connection was refused although the server accepts connections"
    PERMANENT = "any other failure of a storage"


class RetryingStorage(BaseStorage):
    """Optuna storage on a server, each call of which is repeated while the server is unreachable.

    A call whose connection broke may or may not have taken effect, and is repeated:

    * Attributes, parameters and intermediate values are written under a key, so writing twice is harmless.
    * Finishing a trial that is already finished with the same state and values succeeds, and so does
      deleting a study that is already deleted.
    * A new trial may be created twice; the first of them then stays in the state RUNNING without a worker.
    * Starting a waiting trial may return False (another worker has it) although this call started it. No
      worker then trains it, which is better than two.

    The methods that are not defined here are generated below from those of BaseStorage.

    Args:
        make: Function that connects to the storage.
        name: Name of the storage in messages.
        describe_error: Function that returns one line on an exception, without passwords.
        patience: Seconds for which a call is repeated, once the storage has been connected to.

    Raises:
        StorageInternalError: By each method if the storage fails permanently; the message is one line
            without passwords.
    """

    def __init__(
        self,
        make: Callable[[], BaseStorage],
        name: str,
        describe_error: Callable[[BaseException], str],
        patience: float,
    ) -> None:
        self._name, self._describe_error, self._patience = name, describe_error, patience
        self.storage = self._retry(make, connecting=True)

    def _retry(
        self, call: Callable[[], _T], repeat: Callable[[], _T] | None = None, connecting: bool = False
    ) -> _T:
        """Call a function until it returns, or fails permanently.

        Args:
            call: Function to call first.
            repeat: Function to call instead after a failure (default: the same one).
            connecting: Whether this is the first connection. An unreachable server then fails at once, as its
                name is probably wrong.
        """
        start, pause, refused, announced = time.monotonic(), _FIRST_PAUSE, False, False
        while True:
            try:
                result = call()
            except Exception as error:
                failure, message = classify_error(error), self._describe_error(error)
                if failure is None:
                    raise
                remaining = self._patience - (time.monotonic() - start)
                permanent = failure is StorageFailure.PERMANENT or (
                    failure is StorageFailure.REFUSED and refused
                )
                if permanent or remaining <= 0 or (failure is StorageFailure.LOST and connecting):
                    raise StorageInternalError(message) from None
                refused = failure is StorageFailure.REFUSED  # the server may have just started: repeat once
            else:
                if announced:
                    _log.warning("storage: %s answers again", self._name)
                return result
            call = repeat or call
            if refused:
                continue
            if not announced:
                _log.warning("storage: %s: %s; retrying for %.0f s", self._name, message, self._patience)
                announced = True
            time.sleep(min(remaining, pause * random.uniform(0.5, 1.5)))  # spread over hundreds of workers
            pause = min(2 * pause, _LONGEST_PAUSE)
            _renew_channel(getattr(self, "storage", None))

    def delete_study(self, study_id: int) -> None:
        def repeat() -> None:
            with suppress(KeyError):
                self.storage.delete_study(study_id)

        self._retry(lambda: self.storage.delete_study(study_id), repeat)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        def call() -> bool:
            return self.storage.set_trial_state_values(trial_id, state, values)

        def repeat() -> bool:
            try:
                return call()
            except UpdateFinishedTrialError:
                trial = self.storage.get_trial(trial_id)
                if trial.state == state and (values is None or list(values) == trial.values):
                    return True
                raise

        return self._retry(call, repeat)

    def remove_session(self) -> None:
        self.storage.remove_session()


def _retrying_method(name: str) -> Callable[..., Any]:
    """Return a method that calls the method of the same name of the inner storage, with retries."""

    @wraps(getattr(BaseStorage, name), updated=())  # not its mark as abstract
    def method(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        return self._retry(partial(getattr(self.storage, name), *args, **kwargs))

    return method


for _name in RetryingStorage.__abstractmethods__ | {
    "get_best_trial",
    "get_trial_id_from_study_id_trial_number",
}:
    setattr(RetryingStorage, _name, _retrying_method(_name))
abc.update_abstractmethods(RetryingStorage)  # type: ignore[type-abstract]


def classify_error(error: BaseException) -> StorageFailure | None:
    """Return the kind of failure of an exception; None if it is an answer of the storage (KeyError, say)."""
    if _is_grpc_error(error):
        code = error.code().name if hasattr(error, "code") else ""
        return StorageFailure.LOST if code in ("UNAVAILABLE", "CANCELLED") else StorageFailure.PERMANENT
    if isinstance(error, OSError):
        return StorageFailure.PERMANENT
    if not isinstance(error, SQLAlchemyError | StorageInternalError):
        return None
    kinds = set()
    cause: BaseException | None = error
    while cause is not None:  # Optuna answers a broken query with another, which fails too
        if isinstance(cause, DBAPIError):
            kinds.add(_classify_database_error(cause))
        cause = cause.__cause__ or cause.__context__
    return next((kind for kind in StorageFailure if kind in kinds), StorageFailure.PERMANENT)


def _is_grpc_error(error: BaseException) -> bool:
    grpc = sys.modules.get("grpc")
    return grpc is not None and isinstance(error, grpc.RpcError)


def _classify_database_error(error: DBAPIError) -> StorageFailure:
    driver_error: Any = error.orig
    if error.connection_invalidated or (driver_error.args and driver_error.args[0] in _MYSQL_LOST):
        return StorageFailure.LOST
    state = getattr(driver_error, "sqlstate", None) or getattr(driver_error, "pgcode", None)
    if state:
        return StorageFailure.BUSY if _BUSY.fullmatch(state) else StorageFailure.PERMANENT
    kind = type(driver_error)
    if kind.__module__.partition(".")[0] != "psycopg" or kind.__name__ != "OperationalError":
        return StorageFailure.PERMANENT
    return _classify_connection_error(driver_error)


def _classify_connection_error(error: Any) -> StorageFailure:
    """Return why psycopg got no connection: it has no SQLSTATE then, and its messages are translated."""
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn, Ping

    connection = error.pgconn
    if connection is None:  # the host name has no address
        return StorageFailure.LOST
    if _FULL.search(str(error)):
        return StorageFailure.BUSY
    host, port = connection.host.decode(), connection.port.decode()
    answer = Ping(PGconn.ping(make_conninfo(host=host, port=port, connect_timeout=5).encode()))
    by_answer = {Ping.OK: StorageFailure.REFUSED, Ping.REJECT: StorageFailure.BUSY}
    return by_answer.get(answer, StorageFailure.LOST)


def _renew_channel(storage: BaseStorage | None) -> None:
    """Give a gRPC proxy's client a new channel: an old one reconnects ever more rarely, up to 2 min apart."""
    if isinstance(storage, GrpcStorageProxy):
        storage.__setstate__(storage.__getstate__())
