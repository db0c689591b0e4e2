"""Storage that repeats calls after transient database errors."""

import logging
import random
import re
import sys
import time
from collections.abc import Callable, Container, Sequence
from enum import Enum
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

_T = TypeVar("_T")
_log = logging.getLogger("nas_recalib")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds
_BUSY = re.compile("08...|57P0[123]|53300|40001|40P01")  # SQLSTATE: gone, shut down, full, deadlock
_FULL = re.compile("too many (clients|connections)|connection slots|read-only|hot standby")
_MYSQL_LOST = {1040, 1053, 2002, 2003, 2006, 2013}


class Trouble(Enum):
    """What kind of failure an exception tells of."""

    LOST = "the server is not there, or went away meanwhile"
    BUSY = "the server is there, and takes nothing now"
    REFUSED = "no connection, though the server takes connections"
    OTHER = "anything else that a storage fails with"


def trouble(error: BaseException) -> Trouble | None:
    """What an exception of a storage tells of; None for one that is its answer (no such study, say)."""
    if _is_grpc(error):
        code = error.code().name if hasattr(error, "code") else ""
        return Trouble.LOST if code in ("UNAVAILABLE", "CANCELLED") else Trouble.OTHER
    if isinstance(error, OSError):
        return Trouble.OTHER
    if not isinstance(error, SQLAlchemyError | StorageInternalError):
        return None
    told = [_database_trouble(cause) for cause in _causes(error) if isinstance(cause, DBAPIError)]
    return next((kind for kind in Trouble if kind in told), Trouble.OTHER)


class RetryingStorage(BaseStorage):
    """Optuna's storage of a server, each call of which is tried again while the server is not there.

    A call whose connection broke may or may not have taken effect, and is made once more:

    * Attributes, parameters and intermediate values are written under a key; twice is once.
    * To finish a trial, or to delete a study, that already is as asked is a success.
    * A new trial may be there twice, the first of them running for ever under nobody's hands.
    * A waiting trial that was taken may be answered for as another's (False): nobody then runs it, which is
      better than two.

    Args:
        make: Connects to the storage.
        name: Of the storage, in what is said while waiting.
        reason: What an exception says, in one line that may be shown.
        patience: Seconds to go on trying once it has been connected to.

    Raises:
        StorageInternalError: By each method, with a line that may be shown, where a storage fails for good.
    """

    def __init__(
        self,
        make: Callable[[], BaseStorage],
        name: str,
        reason: Callable[[BaseException], str],
        patience: float,
    ) -> None:
        self._name, self._reason, self._patience = name, reason, patience
        self.storage = self._retry(make, first=True)

    def _retry(
        self, call: Callable[[], _T], again: Callable[[], _T] | None = None, first: bool = False
    ) -> _T:
        """Calls until there is an answer.

        Args:
            call: What to do.
            again: What to do instead after a connection broke in the middle of it.
            first: Whether nothing has been heard of the server yet: if it is not there now, its name is wrong
                rather than it away.
        """
        begun, pause, refused, said = time.monotonic(), _FIRST_PAUSE, False, False
        while True:
            try:
                result = call()
            except Exception as error:
                kind, told = trouble(error), self._reason(error)
                if kind is None:
                    raise
                left = self._patience - (time.monotonic() - begun)
                hopeless = kind is Trouble.OTHER or (kind is Trouble.REFUSED and refused)
                if hopeless or left <= 0 or (kind is Trouble.LOST and first):
                    raise StorageInternalError(told) from None
                refused = kind is Trouble.REFUSED  # perhaps it came up in between: once more
            else:
                if said:
                    _log.warning("storage: %s answers again", self._name)
                return result
            call = again or call
            if refused:
                continue
            if not said:
                _log.warning("storage: %s: %s; trying for %.0f s", self._name, told, self._patience)
                said = True
            time.sleep(min(left, pause * random.uniform(0.5, 1.5)))  # hundreds come back at once otherwise
            pause = min(2 * pause, _LONGEST_PAUSE)
            _renew(getattr(self, "storage", None))

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._retry(lambda: self.storage.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        def again() -> None:
            try:
                self.storage.delete_study(study_id)
            except KeyError:
                return

        self._retry(lambda: self.storage.delete_study(study_id), again)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._retry(lambda: self.storage.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._retry(lambda: self.storage.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._retry(lambda: self.storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._retry(lambda: self.storage.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._retry(lambda: self.storage.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._retry(lambda: self.storage.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._retry(lambda: self.storage.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._retry(self.storage.get_all_studies)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._retry(lambda: self.storage.create_new_trial(study_id, template_trial))

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._retry(
            lambda: self.storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        )

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._retry(
            lambda: self.storage.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        def once() -> bool:
            return self.storage.set_trial_state_values(trial_id, state, values)

        def again() -> bool:
            try:
                return once()
            except UpdateFinishedTrialError:
                trial = self.storage.get_trial(trial_id)
                if trial.state == state and (values is None or list(values) == trial.values):
                    return True
                raise

        return self._retry(once, again)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._retry(lambda: self.storage.set_trial_intermediate_value(trial_id, step, intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._retry(lambda: self.storage.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._retry(lambda: self.storage.set_trial_system_attr(trial_id, key, value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._retry(lambda: self.storage.get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._retry(lambda: self.storage.get_all_trials(study_id, deepcopy, states))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return self._retry(lambda: self.storage.get_best_trial(study_id))

    def remove_session(self) -> None:
        self.storage.remove_session()


def _renew(storage: BaseStorage | None) -> None:
    """Gives a gRPC proxy's client a new channel: an old one looks ever more seldom, up to 2 minutes apart."""
    if isinstance(storage, GrpcStorageProxy):
        storage.__setstate__(storage.__getstate__())


def _causes(error: BaseException | None) -> list[BaseException]:
    """An exception and what it came of; Optuna answers a broken query with another, which fails too."""
    chain: list[BaseException] = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _is_grpc(error: BaseException) -> bool:
    grpc = sys.modules.get("grpc")
    return grpc is not None and isinstance(error, grpc.RpcError)


def _database_trouble(error: DBAPIError) -> Trouble:
    driver: Any = error.orig
    if error.connection_invalidated or (driver.args and driver.args[0] in _MYSQL_LOST):
        return Trouble.LOST
    state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
    if state:
        return Trouble.BUSY if _BUSY.fullmatch(state) else Trouble.OTHER
    module = type(driver).__module__.partition(".")[0]
    if module != "psycopg" or type(driver).__name__ != "OperationalError":
        return Trouble.OTHER
    return _unconnected(driver)


def _unconnected(error: Any) -> Trouble:
    """Why psycopg got no connection: there is no SQLSTATE then, and servers speak many languages."""
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import PGconn, Ping

    connection = error.pgconn
    if connection is None:  # its host has no address
        return Trouble.LOST
    if _FULL.search(str(error)):
        return Trouble.BUSY
    host, port = connection.host.decode(), connection.port.decode()
    answer = PGconn.ping(make_conninfo(host=host, port=port, connect_timeout=5).encode())
    return {Ping.OK: Trouble.REFUSED, Ping.REJECT: Trouble.BUSY}.get(Ping(answer), Trouble.LOST)
