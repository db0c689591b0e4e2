"""Calls are repeated after transient errors, and none takes effect twice."""

import logging
import time

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from psycopg import errors
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from nas_recalib.study import retrying_storage
from nas_recalib.study.retrying_storage import RetryingStorage

LOST = DBAPIError("", None, Exception("connection lost"), connection_invalidated=True)


class Lossy:
    """Storage whose calls take effect, but lose their answer the first time."""

    def __init__(self, storage):
        self.storage, self.lost = storage, []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            answer = getattr(self.storage, name)(*args, **kwargs)
            if name not in self.lost:
                self.lost.append(name)
                raise LOST
            return answer

        return call


@pytest.fixture(autouse=True)
def short_pause(monkeypatch):
    monkeypatch.setattr(retrying_storage, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def inner():
    return InMemoryStorage()


@pytest.fixture
def study(inner):
    return inner.create_new_study([StudyDirection.MAXIMIZE], "s")


def wrap(storage, patience=20.0):
    return RetryingStorage(lambda: storage, "the server", str, patience)


def waiting(inner, study):
    return inner.create_new_trial(study, optuna.trial.create_trial(state=TrialState.WAITING))


@pytest.mark.parametrize(
    ("state", "values"), [(TrialState.COMPLETE, [0.5]), (TrialState.PRUNED, None), (TrialState.FAIL, None)]
)
def test_a_trial_that_was_finished_is_not_finished_twice(inner, study, state, values):
    trial = inner.create_new_trial(study)
    lossy = Lossy(inner)
    assert wrap(lossy).set_trial_state_values(trial, state, values) is True
    assert lossy.lost == ["set_trial_state_values", "get_trial"]
    assert (inner.get_trial(trial).state, inner.get_trial(trial).values) == (state, values)


def test_a_trial_that_another_finished_differently_is_an_error(inner, study):
    trial = inner.create_new_trial(study)

    class Refusing(Lossy):
        def set_trial_state_values(self, *arguments):
            if not self.lost:
                self.lost.append("set_trial_state_values")
                inner.set_trial_state_values(trial, TrialState.FAIL)
                raise LOST
            return inner.set_trial_state_values(*arguments)

    with pytest.raises(UpdateFinishedTrialError):
        wrap(Refusing(inner)).set_trial_state_values(trial, TrialState.COMPLETE, [1.0])
    assert inner.get_trial(trial).state == TrialState.FAIL


def test_a_waiting_trial_is_never_started_twice(inner, study):
    trial = waiting(inner, study)
    assert wrap(Lossy(inner)).set_trial_state_values(trial, TrialState.RUNNING) is False
    assert wrap(inner).set_trial_state_values(waiting(inner, study), TrialState.RUNNING) is True


def test_values_that_are_written_twice_are_stored_once(inner, study):
    trial = inner.create_new_trial(study)
    storage = wrap(Lossy(inner))
    storage.set_trial_intermediate_value(trial, 1, 0.25)
    storage.set_trial_user_attr(trial, "a", [1])
    storage.set_trial_system_attr(trial, "b", 2)
    storage.set_study_user_attr(study, "c", 3)
    storage.set_study_system_attr(study, "d", 4)
    storage.set_trial_param(trial, "x", 1.0, optuna.distributions.CategoricalDistribution(("p", "q")))
    (read,) = storage.get_all_trials(study)
    assert read.intermediate_values == {1: 0.25}
    assert (read.user_attrs, read.system_attrs, read.params) == ({"a": [1]}, {"b": 2}, {"x": "q"})
    assert (storage.get_study_user_attrs(study), storage.get_study_system_attrs(study)) == (
        {"c": 3},
        {"d": 4},
    )


def test_a_study_that_was_deleted_or_created_is_no_error(inner, study):
    wrap(Lossy(inner)).delete_study(study)
    assert inner.get_all_studies() == []
    made = optuna.create_study(study_name="t", storage=wrap(Lossy(inner)), load_if_exists=True)
    assert [kept.study_name for kept in inner.get_all_studies()] == [made.study_name] == ["t"]


def test_one_message_when_retries_start_and_one_when_they_succeed(inner, study, caplog):
    failures = iter(range(4))

    class Away:
        def get_all_studies(self):
            for _ in failures:
                raise LOST
            return inner.get_all_studies()

    with caplog.at_level(logging.WARNING, "nas_recalib"):
        assert len(wrap(Away()).get_all_studies()) == 1
    assert len(caplog.messages) == 2
    assert "the server: " in caplog.messages[0]
    assert caplog.messages[0].endswith("; retrying for 20 s")
    assert caplog.messages[1] == "storage: the server answers again"


def test_retries_end_when_patience_does(inner):
    class Away:
        def get_all_studies(self):
            raise LOST

    start = time.monotonic()
    with pytest.raises(StorageInternalError, match="connection lost"):
        wrap(Away(), patience=0.3).get_all_studies()
    assert 0.3 <= time.monotonic() - start < 3


@pytest.mark.parametrize(
    "failure",
    [
        OperationalError("", None, errors.DiskFull("no space left on device")),
        OperationalError("", None, Exception("database is locked")),
        DBAPIError("", None, errors.InsufficientPrivilege("permission denied")),
        IntegrityError("", None, errors.UniqueViolation("duplicate key")),
        OSError(28, "No space left on device"),
    ],
)
def test_permanent_failures_are_raised_at_once(failure):
    calls = []

    class Failing:
        def get_all_studies(self):
            calls.append(1)
            raise failure

    with pytest.raises(StorageInternalError):
        wrap(Failing()).get_all_studies()
    assert len(calls) == 1


def test_every_abstract_method_of_optunas_storages_is_retried(inner):
    names = BaseStorage.__abstractmethods__
    assert names <= vars(RetryingStorage).keys()
    assert all(getattr(RetryingStorage, name).__name__ == name for name in names)
    assert isinstance(wrap(inner), BaseStorage)


def test_a_missing_study_is_no_failure_of_the_storage(inner):
    with pytest.raises(KeyError):
        wrap(inner).get_study_id_from_name("none")


@pytest.mark.parametrize(
    "failure",
    [
        errors.AdminShutdown("terminating connection"),
        errors.CannotConnectNow("the database system is starting up"),
        errors.TooManyConnections("sorry, too many clients already"),
        errors.DeadlockDetected("deadlock detected"),
    ],
)
def test_transient_failures_are_retried_although_optuna_wraps_them(inner, study, failure):
    failures = [1]

    class Failing:
        def get_all_studies(self):
            if failures.pop() if failures else 0:
                try:
                    raise OperationalError("", None, failure)
                except OperationalError as error:
                    raise StorageInternalError("An exception is raised during the commit.") from error
            return inner.get_all_studies()

    assert len(wrap(Failing()).get_all_studies()) == 1
