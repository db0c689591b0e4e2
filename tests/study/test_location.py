import json
import re
import shutil
import sqlite3
from functools import partial
from io import BytesIO
from pathlib import Path

import optuna
import optuna_dashboard
import pytest
from stand_in import Silent, StandIn, make_search

from nas_recalib.cli import run
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.search.local import run_here
from nas_recalib.study.location import (
    StudyLocation,
    create_study,
    find_study,
    locked_worker,
    open_study,
    storage_failures,
)
from nas_recalib.study.storage import describe_error, storage_file


@pytest.fixture
def location(tmp_path):
    (tmp_path / "s").mkdir()
    return StudyLocation.of("s", tmp_path)


@pytest.fixture
def odd_location(tmp_path):
    """A location whose path has characters with a meaning in URLs."""
    (tmp_path / "w? 50%" / "s").mkdir(parents=True)
    return StudyLocation.of("s", tmp_path / "w? 50%")


def request(app, path):
    """One GET to a WSGI application: the status line and the body."""
    response = {}
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "after=0",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
    }
    body = b"".join(app(environ, lambda status, headers, *_: response.update(status=status)))
    return response["status"], body


def test_the_dashboard_shows_every_trial(odd_location, tmp_path):
    study = create_study(odd_location)
    run_here(make_search(study, tmp_path, StandIn()), 5, Silent())
    app = optuna_dashboard.wsgi(odd_location.url)
    status, body = request(app, "/api/studies")
    assert status == "200 OK"
    (shown,) = json.loads(body)["study_summaries"]
    assert shown["study_name"] == "s"
    status, body = request(app, f"/api/studies/{shown['study_id']}")
    assert status == "200 OK"
    assert len(json.loads(body)["trials"]) == 5


def test_a_study_is_found_again_under_its_name_alone(location):
    assert find_study(location) is None
    create_study(location)
    assert open_study(location).study_name == "s"
    other = StudyLocation.of("t", location.folder.parent)
    with pytest.raises(InputError, match=r"there is no 't' in .* there are: s"):
        open_study(other)


def test_a_copied_folder_says_which_study_it_contains_and_how_to_open_it(location, tmp_path, capsys):
    create_study(location)
    shutil.copytree(location.folder, tmp_path / "moved")
    copy = StudyLocation.of("moved", tmp_path)
    assert run(["show", "moved", "--runs-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: study: {copy.folder} contains the study 's', not 'moved'; rename it to s")
    assert said.endswith(f" or read it by: nas-recalib show s --storage {copy.url}\n")
    with pytest.raises(InputError, match="contains the study 's'"):
        find_study(copy)
    assert open_study(StudyLocation.of("s", tmp_path, copy.url)).study_name == "s"
    (tmp_path / "moved").rename(tmp_path / "t")
    optuna.delete_study(study_name="s", storage=StudyLocation.of("t", tmp_path).url)
    assert find_study(StudyLocation.of("t", tmp_path)) is None


def test_one_search_at_a_time_on_a_folder(location):
    alone = partial(locked_worker, location.folder, exclusive=True, advice="take --storage")
    refused = re.escape(f"another process is using {location.folder}; take --storage") + "$"
    with alone(), pytest.raises(InputError, match=refused), alone():
        pass
    with alone():
        pass


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", ".hidden", "a b", "a{b}"])
def test_names_that_cannot_name_a_folder_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="is not a name"):
        StudyLocation.of(name, tmp_path)


ODD = ["{runs}", "p%2Fq 50%", "w? a=b&c#d", " a+b;\né\udcff"]


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_keeps_its_own_study(tmp_path, name):
    runs = tmp_path / name
    (runs / "s").mkdir(parents=True)
    location = StudyLocation.of("s", runs)
    create_study(location)
    assert open_study(location).study_name == "s"
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {location.database, location.folder / "study.db-journal"}
    assert storage_file(location.url) == location.database
    assert open_study(StudyLocation.of("s", tmp_path / "other", location.url)).study_name == "s"
    assert optuna.load_study(study_name="s", storage=location.url).study_name == "s", (
        "as Optuna reads the URL"
    )


def test_folders_that_differ_after_a_question_mark_keep_studies_of_their_own(tmp_path, monkeypatch):
    for name in ("w? a", "w? b"):
        (tmp_path / name / "runs" / "s").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        location = StudyLocation.of("s", Path("runs"))
        assert find_study(location) is None
        create_study(location).set_user_attr("here", name)
        assert open_study(location).user_attrs == {"here": name}


def test_passwords_are_hidden(tmp_path):
    location = StudyLocation.of("s", tmp_path, "postgresql+psycopg://me:s3cret@localhost/db")
    assert "s3cret" not in location.display_name
    error = ValueError("connection to me:s3cret@localhost failed")
    assert "s3cret" not in describe_error(error, location.url)


def test_a_damaged_database_is_refused_in_one_line(location):
    location.database.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(InputError, match=r"storage: .*study\.db cannot be used: file is not a database"):
        find_study(location)


def test_storage_failures_are_one_line_and_bugs_keep_their_traceback(tmp_path):
    location = StudyLocation.of("s", tmp_path, f"journal:{tmp_path}/s.log")
    study = create_study(location)
    with pytest.raises(KeyError, match="a bug"), storage_failures(location, study):
        raise KeyError("a bug")
    failed = re.escape(f"storage: {location.display_name} failed: ")
    with pytest.raises(StopSearch, match=f"{failed}'Record does not"), storage_failures(location, study):
        study._storage.set_trial_user_attr(7, "key", "value")
    with (tmp_path / "s.log").open("ab") as file:
        file.write(b"not JSON\n" * 2)
    with pytest.raises(StopSearch, match=f"{failed}Expecting value"), storage_failures(location, study):
        study.get_trials()


def test_a_study_of_another_kind_is_refused(location):
    optuna.create_study(study_name="s", storage=f"sqlite:///{location.database}", direction="minimize")
    with pytest.raises(InputError, match="was not made by nas-recalib"):
        create_study(location)


def test_a_database_that_another_process_writes_to_can_be_read(location):
    create_study(location)
    with sqlite3.connect(location.database) as other:
        other.execute("BEGIN IMMEDIATE")
        assert open_study(location).study_name == "s", "reading is not blocked"


def test_the_journal_of_sqlite_is_truncated_unless_it_is_of_another_mode(tmp_path):
    location = StudyLocation("s", tmp_path)
    engine = create_study(location)._storage._backend.engine
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "truncate"
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    engine = find_study(location)._storage._backend.engine
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
