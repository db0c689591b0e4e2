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
from nas_recalib.study.location import StudyLocation, create_study, find_study, open_study, storage_failures
from nas_recalib.study.storage import file_of
from nas_recalib.study.worker_lock import locked_worker


@pytest.fixture
def place(tmp_path):
    (tmp_path / "s").mkdir()
    return StudyLocation.of("s", tmp_path)


@pytest.fixture
def odd_place(tmp_path):
    """A place whose path has characters that mean something in a URL."""
    (tmp_path / "w? 50%" / "s").mkdir(parents=True)
    return StudyLocation.of("s", tmp_path / "w? 50%")


def request(app, path):
    """One GET to a WSGI application: the status line and the body."""
    told = {}
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "after=0",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
    }
    body = b"".join(app(environ, lambda status, headers, *_: told.update(status=status)))
    return told["status"], body


def test_the_dashboard_shows_every_trial(odd_place, tmp_path):
    study = create_study(odd_place)
    run_here(make_search(study, tmp_path, StandIn()), 5, Silent())
    app = optuna_dashboard.wsgi(odd_place.url)
    status, body = request(app, "/api/studies")
    assert status == "200 OK"
    (shown,) = json.loads(body)["study_summaries"]
    assert shown["study_name"] == "s"
    status, body = request(app, f"/api/studies/{shown['study_id']}")
    assert status == "200 OK"
    assert len(json.loads(body)["trials"]) == 5


def test_a_study_is_found_again_under_its_name_alone(place):
    assert find_study(place) is None
    create_study(place)
    assert open_study(place).study_name == "s"
    other = StudyLocation.of("t", place.folder.parent)
    with pytest.raises(InputError, match=r"there is no 't' in .* there are: s"):
        open_study(other)


def test_a_copied_folder_says_which_study_it_contains_and_how_to_open_it(place, tmp_path, capsys):
    create_study(place)
    shutil.copytree(place.folder, tmp_path / "moved")
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


def test_one_search_at_a_time_on_a_folder(place):
    alone = partial(locked_worker, place.folder, alone=True, advice="take --storage")
    refused = re.escape(f"another process is using {place.folder}; take --storage") + "$"
    with alone(), pytest.raises(InputError, match=refused), alone():
        pass
    with alone():
        pass


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", ".hidden", "a b", "a{b}"])
def test_names_that_are_no_folders_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="is not a name"):
        StudyLocation.of(name, tmp_path)


ODD = ["{runs}", "p%2Fq 50%", "w? a=b&c#d", " a+b;\né\udcff"]


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_keeps_its_own_study(tmp_path, name):
    runs = tmp_path / name
    (runs / "s").mkdir(parents=True)
    place = StudyLocation.of("s", runs)
    create_study(place)
    assert open_study(place).study_name == "s"
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {place.database, place.folder / "study.db-journal"}
    assert file_of(place.url) == place.database
    assert open_study(StudyLocation.of("s", tmp_path / "other", place.url)).study_name == "s"
    assert optuna.load_study(study_name="s", storage=place.url).study_name == "s", "as Optuna reads the URL"


def test_folders_that_differ_after_a_question_mark_keep_studies_of_their_own(tmp_path, monkeypatch):
    for name in ("w? a", "w? b"):
        (tmp_path / name / "runs" / "s").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        place = StudyLocation.of("s", Path("runs"))
        assert find_study(place) is None
        create_study(place).set_user_attr("here", name)
        assert open_study(place).user_attrs == {"here": name}


def test_passwords_stay_out_of_sight(tmp_path):
    place = StudyLocation.of("s", tmp_path, "postgresql+psycopg://me:s3cret@localhost/db")
    assert "s3cret" not in place.shown
    assert "s3cret" not in place.reason(ValueError("connection to me:s3cret@localhost failed"))


def test_a_damaged_database_is_refused_in_one_line(place):
    place.database.write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(InputError, match=r"storage: .*study\.db cannot be used: file is not a database"):
        find_study(place)


def test_what_a_storage_fails_with_is_one_line_and_a_bug_keeps_its_traceback(tmp_path):
    place = StudyLocation.of("s", tmp_path, f"journal:{tmp_path}/s.log")
    study = create_study(place)
    with pytest.raises(KeyError, match="a bug"), storage_failures(place, study):
        raise KeyError("a bug")
    failed = re.escape(f"storage: {place.shown} failed: ")
    with pytest.raises(StopSearch, match=f"{failed}'Record does not"), storage_failures(place, study):
        study._storage.set_trial_user_attr(7, "key", "value")
    with (tmp_path / "s.log").open("ab") as file:
        file.write(b"not JSON\n" * 2)
    with pytest.raises(StopSearch, match=f"{failed}Expecting value"), storage_failures(place, study):
        study.get_trials()


def test_a_study_of_another_kind_is_refused(place):
    optuna.create_study(study_name="s", storage=f"sqlite:///{place.database}", direction="minimize")
    with pytest.raises(InputError, match="was not made by nas-recalib"):
        create_study(place)


def test_a_database_that_another_process_holds_is_waited_for_not_broken(place):
    create_study(place)
    with sqlite3.connect(place.database) as other:
        other.execute("BEGIN IMMEDIATE")
        assert open_study(place).study_name == "s", "reading goes on"


def test_its_journal_is_emptied_but_another_kind_is_left_as_it_is(tmp_path):
    place = StudyLocation("s", tmp_path)
    engine = create_study(place)._storage._backend.engine
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "truncate"
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    engine = find_study(place)._storage._backend.engine
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
