"""Each kind of storage for real: SQLite, PostgreSQL, a journal, and a proxy in a process of its own."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from urllib.parse import quote

import optuna
import psycopg
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna._imports import _LazyImport
from optuna.exceptions import StorageInternalError
from optuna.storages._grpc import client
from optuna.trial import TrialState, create_trial
from postgres import free_port, postgres, served
from stand_in import Silent, StandIn, make_search

from nas_recalib.cli import run
from nas_recalib.errors import InputError
from nas_recalib.search.local import run_here
from nas_recalib.study import retrying_storage
from nas_recalib.study.location import StudyLocation, create_study, find_study, open_study
from nas_recalib.study.storage import connect, open_storage, storage_file, storage_kind

ODD = st.text(st.sampled_from("@:/%?#&=+ '\"\\{}ab9é~"), min_size=4, max_size=12)


@pytest.fixture(scope="module")
def server():
    """One of this module's, which stops it."""
    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(database):
    port = free_port()
    with served(database, port):
        yield f"grpc://127.0.0.1:{port}"


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr(retrying_storage, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(retrying_storage, "_LONGEST_PAUSE", 0.1)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "journal", "grpc"])
def test_a_search_writes_what_another_connection_reads(kind, tmp_path, request):
    urls = {"sqlite": f"sqlite:///{tmp_path}/s.db", "journal": f"journal:{tmp_path}/s.log"}
    fixtures = {"postgresql": "database", "grpc": "proxy"}
    url = urls[kind] if kind in urls else request.getfixturevalue(fixtures[kind])
    assert storage_kind(url) == kind
    location = StudyLocation.of(kind, tmp_path, url)
    assert find_study(location) is None
    study = create_study(location)
    study.set_user_attr("config", {"name": kind})
    search = make_search(study, tmp_path, StandIn(), shared=True, strategy="random")
    run_here(search, 6, Silent())
    other = optuna.load_study(study_name=kind, storage=open_storage(url))
    assert other.user_attrs == {"config": {"name": kind}}
    assert [trial.number for trial in other.trials] == list(range(6))
    for read, written in zip(other.trials, study.trials, strict=True):
        assert read.state == TrialState.COMPLETE
        assert (read.values, read.params) == (written.values, written.params)
        assert len(read.intermediate_values) == 3
        assert read.user_attrs == written.user_attrs
    assert other.best_value == study.best_value
    optuna.delete_study(study_name=kind, storage=open_storage(url))
    assert [study.study_name for study in open_storage(url).get_all_studies()].count(kind) == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_that_come_at_once_to_an_empty_database_all_get_in(request, tmp_path, kind):
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/empty.db"
    else:
        url = request.getfixturevalue("server").new("empty")
    with ThreadPoolExecutor(8) as pool:
        storages = list(pool.map(lambda _: open_storage(url), range(8)))
    assert all(storage.get_all_studies() == [] for storage in storages)


def test_a_process_has_at_most_two_connections(server, tmp_path):
    url = server.new("counted")
    location = StudyLocation.of("s", tmp_path, url)
    for _ in range(3):
        create_study(location)
        assert find_study(location)
    study = open_study(location)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: study.set_user_attr(str(number), number), range(40)))
    ((connections,),) = server.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = 'counted'")
    assert 1 <= connections <= 2
    assert len(open_study(location).user_attrs) == 40


def write_trials(storage, study, values, stop):
    """Write trials as a search does, and note the values of those that were written."""
    while not stop.is_set():
        value = float(len(values))
        template = create_trial(state=TrialState.RUNNING, user_attrs={"value": value})
        trial = storage.create_new_trial(study, template)
        for epoch in range(1, 4):
            storage.set_trial_intermediate_value(trial, epoch, value + epoch)
        storage.set_trial_user_attr(trial, "seconds", value)
        assert storage.set_trial_state_values(trial, TrialState.COMPLETE, [value])
        values[trial] = value


def disturbed(storage, disturb, writers=2):
    """Return the values that each writer wrote while the server was disturbed, and the study."""
    study = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], f"d{time.time_ns()}")
    stop, written = threading.Event(), [{} for _ in range(writers)]
    with ThreadPoolExecutor(writers) as pool:
        done = [pool.submit(write_trials, storage, study, values, stop) for values in written]
        try:
            disturb(lambda: sum(map(len, written)))
        finally:
            stop.set()
        for writer in done:
            writer.result(timeout=60)
    return written, study


def check_all_is_stored_once(written, trials):
    by_id = {trial._trial_id: trial for trial in trials}
    assert len(by_id) == len(trials)
    assert sorted(trial.number for trial in trials) == list(range(len(trials)))
    for values in written:
        for identity, value in values.items():
            trial = by_id.pop(identity)
            assert (trial.state, trial.values) == (TrialState.COMPLETE, [value])
            assert trial.intermediate_values == {epoch: value + epoch for epoch in range(1, 4)}
            assert trial.user_attrs == {"value": value, "seconds": value}
    assert all(trial.state == TrialState.RUNNING for trial in by_id.values()), "at most started twice"
    assert len(by_id) <= 8


def wait_for_more(count, more=4, seconds=30):
    goal, until = count() + more, time.monotonic() + seconds
    while count() < goal:
        assert time.monotonic() < until, "no trial gets written any more"
        time.sleep(0.01)


@pytest.mark.parametrize("way", ["direct", "by the proxy"])
def test_a_server_restarted_amid_writes_loses_nothing_and_doubles_nothing(
    server, database, proxy, way, short_pauses
):
    url = database if way == "direct" else proxy

    def disturb(count):
        for mode in ("fast", "immediate"):
            wait_for_more(count)
            server.restart(mode)
        wait_for_more(count)

    written, study = disturbed(open_storage(url, 60), disturb)
    check_all_is_stored_once(written, open_storage(database).get_all_trials(study))


@pytest.mark.soak
def test_a_proxy_that_is_killed_and_started_again_loses_nothing(database, short_pauses):
    port = free_port()

    def disturb(count):
        wait_for_more(count)
        first.kill()
        first.wait()
        second.enter_context(served(database, port))
        wait_for_more(count)

    with served(database, port) as first, ExitStack() as second:
        written, study = disturbed(open_storage(f"grpc://127.0.0.1:{port}", 60), disturb)
    check_all_is_stored_once(written, open_storage(database).get_all_trials(study))


def test_connections_that_broke_while_nothing_was_asked_are_not_noticed(server, database, caplog):
    storage = open_storage(database)
    server.restart()
    storage.get_all_studies()
    assert caplog.messages == []


def test_a_server_that_is_full_is_waited_for_from_the_start(server, database, caplog, short_pauses):
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(psycopg.connect(server.url()))
        leaving = threading.Timer(0.5, stack.pop_all().close)
        leaving.start()
        open_storage(database, 20).get_all_studies()
        leaving.join()
    assert "too many clients" in caplog.messages[0]
    assert "answers again" in caplog.messages[-1]


def test_a_server_that_was_never_there_is_an_error_at_once(server, database, caplog):
    start = time.monotonic()
    for url in ("postgresql://127.0.0.1:1/s", "grpc://127.0.0.1:1"):
        with pytest.raises(StorageInternalError, match=r"[Cc]onnection refused"):
            open_storage(url)
    assert time.monotonic() - start < 5
    assert caplog.messages == []


def test_retries_end_with_the_reason(server, database, caplog, short_pauses):
    storage = open_storage(database, 0.5)
    server.stop()
    try:
        start = time.monotonic()
        with pytest.raises(StorageInternalError, match="Connection refused"):
            storage.get_all_studies()
        assert 0.5 <= time.monotonic() - start < 5
        assert len(caplog.messages) == 1
    finally:
        server.start()
    storage.get_all_studies()


@pytest.fixture(scope="module")
def member(server, database):
    """A user with a password that can be changed, and a database that is its own."""
    server.execute("CREATE USER member PASSWORD 'first'")
    server.execute("CREATE DATABASE members OWNER member")

    def login(password):
        server.execute("ALTER USER member PASSWORD {password}", password=password)
        return f"postgresql://member:{quote(password, safe='')}@127.0.0.1:{server.port}/members"

    return login


@examples(6)
@given(ODD)
def test_a_password_of_odd_characters_is_accepted(member, password):
    assert open_storage(member(password), 0).get_all_studies() == []


FAILING = {
    "a wrong password": "postgresql://member:{}@127.0.0.1:{port}/members",
    "no such user": "postgresql://nobody:{}@127.0.0.1:{port}/members",
    "no such database": "postgresql://postgres:{}@127.0.0.1:{port}/none",
    "no host at all": "postgresql://me:{}@" + "x" * 64 + ".invalid:{port}/s",  # no label is that long
    "nobody there": "postgresql://me:{}@127.0.0.1:1/s",
    "a port that is none": "postgresql://me:{}@127.0.0.1:http/s",
    "a port beyond all": "postgresql://me:{}@127.0.0.1:70000/s",
    "an unknown option": "postgresql://me:{}@127.0.0.1:{port}/s?nonsense={}",
    "a password in the query": "postgresql://127.0.0.1:{port}/members?user=member&password={}",
    "an unknown scheme": "oracle+nonsense://me:{}@h/s",
    "no scheme": "me:{}@h/s",
    "a proxy with a password": "grpc://me:{}@127.0.0.1:1",
    "a journal with a host": "journal://me:{}@host/log",
    "no database at all": "sqlite://me:{}@/",
}


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("encoded", [True, False])
@examples(8)
@given(password=ODD)
def test_no_error_message_has_the_password(server, member, case, encoded, password):
    def url(word):
        return FAILING[case].replace("{}", word).replace("{port}", str(server.port))

    written = quote(password, safe="") if encoded else password
    assume(password not in url("") and written not in url(""))
    member("the right one, which no example is")
    with pytest.raises((InputError, StorageInternalError)) as failure:
        open_storage(url(written), 0).get_all_studies()
    for text in (str(failure.value), repr(failure.value)):
        assert password not in text
        assert written not in text
    assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize("arguments", [["show", "s"], ["export", "s"], ["storage", "check"]])
@pytest.mark.parametrize("case", ["a wrong password", "no such database", "a port that is none"])
def test_the_command_line_prints_one_line_without_the_password(
    server, member, capsys, arguments, case, caplog
):
    url = FAILING[case].replace("{}", "p%40ss%2Fw0rd").replace("{port}", str(server.port))
    given = [url] if arguments[0] == "storage" else [f"--storage={url}"]
    assert run([*arguments, *given]) in (1, 2)
    streams = capsys.readouterr()
    assert len(streams.err.splitlines()) == 1
    for text in (streams.err, streams.out, *caplog.messages):
        assert "p%40ss" not in text
        assert "p@ss" not in text


REFUSED = {
    "oracle+nonsense://h/s": "the given URL cannot be used",
    "runs/s.db": "the given URL cannot be used",
    "postgresql://me:a@b@h/s": "write each of @ / ? # in the URL's user and password as %40 %2F %3F %23",
    "postgresql://h:70000/s": "70000 is not a port",
    "journal:": "name the journal's file",
    "journal://host/log": "a journal is a file",
    "grpc://": "named by grpc://HOST:PORT",
    "grpc://host:port": "named by grpc://HOST:PORT",
    "grpc://host:1/path": "named by grpc://HOST:PORT",
    "sqlite://": "is in memory and lost at the end",
    "sqlite:///file:s?mode=memory&uri=true": "is in memory and lost at the end",
    "sqlite:///w? a/s.db": "write a ? in the path of an SQLite file as %3F",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_no_storage_is_refused_before_anything_is_done(tmp_path, url):
    with pytest.raises(InputError, match=r"^storage: ") as refusal:
        StudyLocation.of("s", tmp_path, url)
    assert REFUSED[url] in str(refusal.value)


def test_a_driver_that_is_missing_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.setattr(client, "grpc", _LazyImport("grpc"))
    with pytest.raises(InputError, match=r"pip install 'nas-recalib\[postgresql\]'"):
        connect("postgresql://h/missing")
    with pytest.raises(InputError, match=r"pip install 'nas-recalib\[grpc\]'"):
        connect("grpc://h:1")


FILES = {
    "sqlite:///s.db?timeout=5": "s.db",
    "sqlite+pysqlite:///p%252Fq%3F%20%23{}.db": "p%2Fq? #{}.db",
    "sqlite:///HERE/a b+c#d.db": "a b+c#d.db",
    "sqlite:///file:s%253F.db?mode=rwc&uri=true": "s?.db",
    "sqlite:///file://HERE/s.db?uri=true": "s.db",
    "sqlite:///file:s.db": "file:s.db",
    "journal:w? a%20b#c.log": "w? a%20b#c.log",
    "journal://HERE/w? a%20b#c.log": "w? a%20b#c.log",
}


@pytest.mark.parametrize("url", FILES)
def test_the_file_of_a_url_is_the_one_that_is_opened(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    written = url.replace("HERE", str(tmp_path))
    open_storage(written).create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s")
    assert {path.name.removesuffix("-journal") for path in tmp_path.iterdir()} == {FILES[url]}
    assert storage_file(written).absolute() == tmp_path / FILES[url]


def test_looking_for_a_study_makes_no_file(tmp_path):
    for url in (f"sqlite:///{tmp_path}/s.db", f"journal:{tmp_path}/s.log"):
        assert find_study(StudyLocation.of("s", tmp_path, url)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_journal_is_appended_to_by_several_at_once(tmp_path):
    url = f"journal:{tmp_path}/s.log"
    study = open_storage(url).create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s")

    def write(_):
        storage = open_storage(url)
        return [storage.create_new_trial(study) for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        made = [trial for trials in pool.map(write, range(4)) for trial in trials]
    assert len(set(made)) == 40
    assert [trial.number for trial in open_storage(url).get_all_trials(study)] == list(range(40))
    assert [path.name for path in tmp_path.iterdir()] == ["s.log"], "the lock was removed"
