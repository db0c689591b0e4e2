"""Where output goes: encodings that lack characters, readers that have gone, files that are there already."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from small_study import small_study

from nas_recalib.architecture import Architecture
from nas_recalib.cli import run
from nas_recalib.cli.output import say

STORAGE = "--storage=sqlite:///s.db"
BENCH = ["bench", "--sizes=cifar", "--batch-size=2", "--seconds=0.001", "--choice=vanilla", "--device=cpu"]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "s.db"
    source = small_study()
    optuna.copy_study(from_study_name="s", from_storage=source._storage, to_storage=f"sqlite:///{file}")
    return file.read_bytes()


@pytest.fixture
def here(here, database):
    """The current directory, with a tiny space and the study s."""
    (here / "s.db").write_bytes(database)
    return here


def encoded(encoding):
    """A stream as Python makes it for standard output in this encoding."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def broken():
    """A pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize(
    ("encoding", "sign"), [("ascii", b"+/-"), ("latin-1", b"\xb1"), ("cp1252", b"\xb1"), ("cp437", b"\xf1")]
)
def test_characters_that_an_encoding_lacks_are_substituted(here, monkeypatch, encoding, sign):
    stream = encoded(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(["show", "s", STORAGE]) == 0
    assert b"accuracy 0.7000 " + sign + b" 0.0229" in stream.buffer.getvalue()
    lines = stream.buffer.getvalue().decode(encoding).splitlines()
    heading = next(line for line in lines if line.startswith("trial "))
    row = lines[lines.index(heading) + 1]
    assert heading.index("MACs") + len("MACs") == re.search(r"0\.0229 +40", row).end(), "columns stay in line"


def test_messages_are_printable_in_any_encoding_too(here, monkeypatch):
    stream = encoded("ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    assert run(["show", "naïve", STORAGE]) == 2
    assert stream.buffer.getvalue().startswith(rb"error: study: 'na\xefve' is not a name")


@pytest.mark.parametrize(
    "arguments", [["show", "s", STORAGE], ["tables", "--paper=psconv"], ["--help"], ["--version"]]
)
def test_a_closed_pipe_ends_a_command_quietly(here, capfd, monkeypatch, arguments):
    with broken() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(arguments) == 0
        stream.flush()  # as Python does when it ends
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_output_that_is_lost_is_status_1_and_one_line(here, capsys, monkeypatch):
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(["show", "s", STORAGE]) == 1
        stream.flush()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: standard output: cannot be written: No space left on device"


def test_a_command_continues_if_standard_error_is_closed(here, capsys, monkeypatch):
    with broken() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert run([*BENCH, "-o", "out.json"]) == 0
        stream.flush()
    assert "Geometric means" in capsys.readouterr().out
    assert (here / "out.json").is_file()


def test_closed_streams_are_the_null_device_and_restored_afterwards(here, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run(["show", "s", STORAGE]) == 0
    assert run(["show", "none", STORAGE]) == 2
    assert (sys.stdout, sys.stderr) == (None, None)


def test_no_file_gets_the_descriptor_of_a_closed_stream(here):
    program = (
        "import os, sys; os.close(1); sys.stdout = None\n"
        "from nas_recalib.cli.output import standard_streams\n"
        "with standard_streams(), open('file', 'w') as file:\n"
        "    assert file.fileno() > 2\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_command_run_twice_in_one_process_prints_to_the_streams_of_the_second(here, capsys):
    for _ in range(2):
        assert run(["--version"]) == 0
        assert capsys.readouterr().out.startswith("nas-recalib ")
    say("after it")
    assert capsys.readouterr().err == "after it\n"


COMMANDS = ("search", "status", "show", "export", "cost", "tables", "bench", "latency", "correlate", "train")


@pytest.mark.parametrize("command", [[], ["storage"], ["storage", "check"], *([name] for name in COMMANDS)])
def test_help_is_whole_at_80_columns_and_has_whole_options_at_50(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*command, "--help"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()  # the first is "Usage: ... COMMAND [ARGS]..."
    assert max(map(len, lines)) <= 80
    assert not any("…" in line or "..." in line for line in lines)
    options = re.findall(r"--[a-z-]+", "\n".join(lines))
    monkeypatch.setenv("COLUMNS", "50")
    assert run([*command, "--help"]) == 0
    narrow = capsys.readouterr().out
    assert "…" not in narrow
    assert all(option in narrow for option in options)


def test_the_command_alone_prints_its_help(capsys):
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["export", "s", STORAGE, "-o", "mine.yaml"], "mine.yaml"),
        (["export", "s", STORAGE], "best.yaml"),
        (["show", "s", STORAGE, "--html", "page.html"], "page.html"),
        ([*BENCH, "-o", "times.json"], "times.json"),
    ],
)
def test_an_existing_file_is_overwritten_only_with_force(here, capsys, arguments, file):
    (here / file).write_text("precious")
    assert run(arguments) == 2
    streams = capsys.readouterr()
    assert (
        streams.err == f"error: {file}: already exists; add --force to overwrite it, or name another file\n"
    )
    assert streams.out == ""
    assert (here / file).read_text() == "precious"
    assert run([*arguments, "--force"]) == 0
    assert (here / file).read_text() != "precious"


def test_correlate_refuses_to_overwrite_before_it_trains(here, capsys):
    (here / "page.html").write_text("precious")
    small = ["--space=tiny.yaml", "--data=digits", "--within=20", "--architectures=3", "--seeds=1"]
    assert run(["correlate", *small, "--html=page.html"]) == 2
    assert "page.html: already exists; add --force" in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_the_same_architecture_may_be_exported_again(here, capsys):
    for _ in range(2):
        assert run(["export", "s", STORAGE]) == 0
    before = (here / "best.yaml").read_bytes()
    assert run(["export", "s", STORAGE, "--trial=2"]) == 2
    assert (here / "best.yaml").read_bytes() == before
    assert run(["export", "s", STORAGE, "--trial=2", "--force"]) == 0
    assert set(map(str, Architecture.load("best.yaml").choices)) == {"scconv"}
