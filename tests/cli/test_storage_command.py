"""`nas-recalib storage`: results, failures, interruption, serving."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from postgres import free_port, served

from nas_recalib.cli import run
from nas_recalib.study import storage_check
from nas_recalib.study.storage import open_storage


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_json(capsys, url, status=0):
    assert run(["storage", "check", url, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_postgresql_is_reported_with_the_arithmetic_of_its_workers(server, database, capsys):
    assert run(["storage", "check", database]) == 0
    what, speed, good_for = capsys.readouterr().out.splitlines()
    ((version,),) = server.execute("SHOW server_version")
    assert what == f"{database}: PostgreSQL {version}"
    assert "a round trip takes" in speed
    assert "its connections allow 37 processes" in good_for, "of 40, 3 are kept for administrators"
    found = check_json(capsys, database)
    by_time = int(60 / found["written_trial_seconds"] / 2)
    assert found["workers"] == min(by_time, 37)
    assert 0 < found["round_trip_seconds"] < found["written_trial_seconds"] < 5
    assert (found["kind"], found["connections"], found["problem"]) == ("postgresql", 37, None)
    assert open_storage(database).get_all_studies() == []


@pytest.mark.parametrize("url", ["sqlite:///s.db", "journal:s.log"])
def test_a_file_is_checked_on_its_file_system_and_nothing_is_left(here, capsys, url):
    found = check_json(capsys, url)
    assert found["workers"] == (1 if url.startswith("sqlite") else None)
    assert " on " in found["what"]
    assert list(here.iterdir()) == []
    study = open_storage(url)
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    assert check_json(capsys, url)["problem"] is None
    assert {path.name for path in here.iterdir()} == set(before)
    assert study.get_all_studies() == []
    if url.startswith("journal"):
        assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize("url", ["sqlite:///s.db", "journal:s.log", "postgresql"])
@pytest.mark.parametrize("stage", ["_write", "_compare"])
def test_an_interruption_leaves_nothing_behind(here, database, capsys, monkeypatch, url, stage):
    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(storage_check, stage, interrupt)
    url = database if url == "postgresql" else url
    before = signal.getsignal(signal.SIGTERM)
    assert run(["storage", "check", url]) == 130
    assert signal.getsignal(signal.SIGTERM) == before
    assert list(here.iterdir()) == []
    if url == database:
        assert open_storage(url).get_all_studies() == []


def test_a_storage_that_loses_trials_fails(here, capsys, monkeypatch):
    monkeypatch.setattr(storage_check, "_write", lambda storage, study: storage.create_new_trial(study))
    assert run(["storage", "check", "sqlite:///s.db"]) == 1
    assert "of 10 trials written, 0 were read back as written" in capsys.readouterr().err


FAILING = {
    "postgresql://me:s3cret@127.0.0.1:1/s": (1, "Connection refused"),
    "grpc://127.0.0.1:1": (1, "failed to connect"),
    "sqlite:////none/s.db": (1, "unable to open database file"),
    "journal:/none/s.log": (1, "No such file or directory"),
    "nonsense": (2, "the given URL cannot be used"),
    "oracle+nonsense://me:s3cret@h/s": (2, "the given URL cannot be used"),
    "postgresql://me:s3c@ret@h/s": (2, "as %40"),
}


@pytest.mark.parametrize("url", FAILING)
def test_a_failure_is_one_line_and_an_exit_status(capsys, url):
    status, complaint = FAILING[url]
    assert run(["storage", "check", url]) == status
    streams = capsys.readouterr()
    assert complaint in streams.err
    assert len(streams.err.splitlines()) == 1
    assert streams.out == ""
    assert "s3c" not in streams.err


def test_a_failure_is_in_the_json_too(capsys):
    found = check_json(capsys, "grpc://127.0.0.1:1", 1)
    assert found["storage"] == "grpc://127.0.0.1:1"
    assert "failed to connect" in found["problem"]


def test_a_served_database_answers_until_interrupted(server, database, capsys):
    port = free_port()
    url = f"grpc://127.0.0.1:{port}"
    with served(database, port) as process:
        assert check_json(capsys, url)["kind"] == "grpc"
        assert run(["storage", "serve", database, f"--port={port}"]) == 2
        assert f"port: 127.0.0.1:{port} is taken" in capsys.readouterr().err
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert said.splitlines() == [f"serving {database} as {url}", "interrupted"]
    assert open_storage(database).get_all_studies() == []


def test_serving_to_other_machines_warns_of_the_lack_of_authentication(database):
    command = [sys.executable, "-m", "nas_recalib", "storage", "serve", database, "--host=0.0.0.0"]
    with subprocess.Popen([*command, f"--port={free_port()}"], stderr=subprocess.PIPE, text=True) as process:
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert "has no authentication, and anyone who reaches it can read, change and delete" in first


@pytest.mark.parametrize("url", ["journal:s.log", "grpc://127.0.0.1:1", "sqlite:////none/s.db"])
def test_storages_that_cannot_be_served_are_refused(capsys, url):
    assert run(["storage", "serve", url, f"--port={free_port()}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


SPACE = """
name: tiny
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv]
recalibration: [none, ab]
"""
QUICK = [
    "--data=digits",
    "--images=40",
    "--validation=20",
    "--resolution=8",
    "--epochs=1",
    "--strategy=random",
]


def test_a_search_writes_its_password_nowhere(here, server, capsys, caplog):
    server.execute("CREATE USER member PASSWORD 's3:cr@t/w0rd'")
    server.execute("CREATE DATABASE members OWNER member")
    url = f"postgresql://member:s3%3Acr%40t%2Fw0rd@127.0.0.1:{server.port}/members"
    (here / "tiny.yaml").write_text(SPACE)
    assert run(["search", "--space=tiny.yaml", "--trials=2", *QUICK, f"--storage={url}"]) == 0
    searched = capsys.readouterr()
    assert run(["show", "tiny", "--json", "--html=page.html", f"--storage={url}"]) == 0
    shown = capsys.readouterr()
    written = [path.read_bytes().decode(errors="replace") for path in here.rglob("*") if path.is_file()]
    storage = open_storage(url)
    (study,) = storage.get_all_studies()
    kept = [repr(study.user_attrs), repr(storage.get_all_trials(study._study_id))]
    assert len(json.loads(shown.out)["rows"]) == 2
    for text in (*searched, *shown, *caplog.messages, *written, *kept):
        assert "s3:cr" not in text
        assert "s3%3A" not in text
