"""Where downloads are kept: in the user's cache, and elsewhere for users who have none."""

import os
import stat
from pathlib import Path

import pytest

from nas_recalib.cli import run
from nas_recalib.cli.output import cache_folder, provide_home
from nas_recalib.errors import InputError


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    """Neither variables nor temporary files but those of the test."""
    for name in ("XDG_CACHE_HOME", "NAS_RECALIB_CACHE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def temporary(tmp_path):
    return tmp_path / "temporary" / f"nas-recalib-{os.getuid()}"


@pytest.fixture
def homeless(monkeypatch):
    """As in a container whose user is a bare number."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_a_given_folder_is_used_unchanged(tmp_path, capsys):
    assert cache_folder(tmp_path / "mine") == tmp_path / "mine"
    assert capsys.readouterr() == ("", "")


def test_the_default_is_in_the_users_cache(tmp_path, monkeypatch, capsys):
    assert cache_folder(None) == tmp_path / "home/.cache/nas-recalib"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder(None) == tmp_path / "cache/nas-recalib"
    for ignored in ("", "relative/cache", "."):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder(None) == tmp_path / "home/.cache/nas-recalib"
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_it_is_a_private_temporary_folder_and_a_message_says_so(temporary, capsys):
    assert cache_folder(None) == temporary
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    said = capsys.readouterr().err
    assert said.startswith(f"no home directory is known: downloads are kept in {temporary} (--cache-dir ")
    assert said.count("\n") == 1
    assert cache_folder(None) == temporary, "there from the last time"


@pytest.mark.usefixtures("homeless")
def test_a_cache_folder_from_xdg_needs_no_home(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder(None) == tmp_path / "cache/nas-recalib"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
@pytest.mark.parametrize("kind", ["file", "dangling link", "link into a loop"])
def test_an_unusable_cache_folder_is_replaced_and_named(
    tmp_path, monkeypatch, capsys, temporary, variable, kind
):
    if kind == "file":
        (tmp_path / "odd").write_text("")
    else:
        (tmp_path / "odd").symlink_to("nowhere" if kind == "dangling link" else "odd")
    monkeypatch.setenv(variable, str(tmp_path / "odd"))
    assert cache_folder(None) == temporary
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'odd'}")


def test_a_read_only_home_is_replaced_unless_it_has_a_cache(tmp_path, monkeypatch, temporary):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr("nas_recalib.cli.output.os.access", lambda path, mode: Path(path) != home)  # root may
    assert cache_folder(None) == temporary
    (home / ".cache/nas-recalib").mkdir(parents=True)
    assert cache_folder(None) == home / ".cache/nas-recalib"


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("kind", ["file", "link", "another's", "no temporary folder"])
def test_without_any_usable_folder_the_option_is_named(tmp_path, monkeypatch, temporary, kind):
    if kind == "file":
        temporary.write_text("")
    elif kind == "link":
        temporary.symlink_to(tmp_path)
    elif kind == "another's":
        temporary.with_name("nas-recalib-54321").mkdir()
        monkeypatch.setattr("os.getuid", lambda: 54321)
    else:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"^cache-dir: no home .*; name a folder with --cache-dir$"):
        cache_folder(None)


@pytest.mark.usefixtures("homeless")
def test_ray_gets_a_temporary_home_if_there_is_none(temporary):
    provide_home()
    assert Path.home() == temporary


def test_a_home_is_kept(tmp_path):
    provide_home()
    assert Path.home() == tmp_path / "home"


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--data", "folder:none"], "data: "),
        (["--data", "folder:~/none"], "data: ~/none cannot be read: Could not determine home directory"),
        (["--data", "folder:~nobody-at-all/none"], "data: ~nobody-at-all/none cannot be read"),
        (["--data", "digits", "--runs-dir", "~/runs"], "~/runs: Could not determine home directory"),
        (["--data", "digits", "--cache-dir", "~nobody-at-all/x"], "~nobody-at-all/x: Could not determine"),
    ],
)
def test_a_user_without_a_home_gets_one_line_an_error(here, capsys, arguments, problem):
    assert run(["search", "--space", "tiny.yaml", *arguments]) == 2
    *said, error = capsys.readouterr().err.splitlines()
    assert len(said) <= 1
    assert error.startswith("error: ")
    assert problem in error
    assert not (here / "~").exists()


def test_a_tilde_that_the_shell_has_left_is_the_home(here, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "home"))
    assert run(["show", "s", "--runs-dir=~/runs"]) == 2
    assert f"{here}/home/runs" in capsys.readouterr().err
