"""`nas-recalib search` that is interrupted or killed: another process, or the next, goes on from there."""

import signal
from datetime import datetime, timedelta

import pytest
from commands import SEARCH, ended, epochs_trained, running, started, trials, wait_until, watched
from optuna.trial import TrialState

from nas_recalib.cli import run

EPOCHS = 12


def command(goal, *options):
    return [*watched(0.2), *SEARCH, f"--trials={goal}", f"--epochs={EPOCHS}", *options]


def kinds(storage):
    return [trial.user_attrs.get("failure", trial.state.name) for trial in trials(storage)]


def finished(storage):
    return [trial for trial in trials(storage) if trial.state == TrialState.COMPLETE]


def assert_goes_on(storage, folders, broken):
    """That nothing a broken trial had reported was trained again, and that a later one has it whole."""
    (again,) = [t for t in trials(storage) if t.user_attrs.get("continues") == broken.number]
    told = list(trials(storage)[broken.number].intermediate_values.values())
    assert len(told) >= 2
    assert list(again.intermediate_values) == list(range(1, EPOCHS + 1))
    assert list(again.intermediate_values.values())[: len(told)] == told
    trained = epochs_trained(*folders)
    architecture = again.user_attrs["architecture"]
    assert [trained[f"{epoch} {architecture}"] for epoch in range(1, len(told) + 1)] == [1] * len(told)
    assert sum(trained.values()) - len(trained) <= 1, "at most the epoch at hand is trained again"
    return again


@pytest.mark.soak
@pytest.mark.parametrize(
    ("sign", "status", "said", "kind"),
    [
        (signal.SIGTERM, 130, "interrupted: run the same command again to resume", "interrupted"),
        (signal.SIGKILL, -signal.SIGKILL, None, "lost"),
    ],
)
def test_the_same_command_goes_on_from_the_last_epoch(tmp_path, sign, status, said, kind):
    storage = f"sqlite:///{tmp_path}/runs/s/study.db"
    with started(tmp_path, *command(2)) as process:
        wait_until(lambda: running(storage, epochs=3), process)
        process.send_signal(sign)
        left, told = ended(process)
    assert left == status
    assert "Traceback" not in told
    assert said is None or told.splitlines()[-1] == said
    assert kinds(storage) == (["interrupted"] if said else ["RUNNING"])
    (broken,) = trials(storage)
    with started(tmp_path, *command(2)) as process:
        assert ended(process)[0] == 0
    assert kinds(storage) == [kind, "COMPLETE", "COMPLETE"]
    again = assert_goes_on(storage, [tmp_path], broken)
    assert again.user_attrs.get("attempt", 1) == (2 if kind == "lost" else 1)
    assert not list((tmp_path / "runs/s/checkpoints").iterdir())


@pytest.mark.parametrize("interrupted", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_a_second_search_on_the_same_file_is_refused(tmp_path, monkeypatch, capsys, interrupted):
    storage = f"sqlite:///{tmp_path}/runs/s/study.db"
    monkeypatch.chdir(tmp_path)
    with started(tmp_path, *command(1)) as first:
        wait_until(lambda: running(storage), first)
        first.send_signal(signal.SIGSTOP)  # it would end, and we are slow
        assert run([*SEARCH, "--trials=5", f"--epochs={EPOCHS}"]) == 2
        streams = capsys.readouterr()
        assert streams.err.startswith("error: study: another process is using runs/s; to run several proc")
        assert all(option in streams.err for option in ("--storage", "--ray local"))
        assert (streams.out, len(streams.err.splitlines())) == ("", 1)
        if interrupted:
            first.send_signal(signal.SIGTERM)
        first.send_signal(signal.SIGCONT)
        left, told = ended(first)
    if interrupted:
        assert left == 130
        assert told.splitlines()[-1] == "interrupted: run the same command again to resume"
        assert kinds(storage) == ["interrupted"]
    else:
        assert left == 0
        assert kinds(storage) == ["COMPLETE"]


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_two_processes_share_a_study(tmp_path, server, apart):
    """In one folder the death of one is known at once; in folders apart it would be in two minutes."""
    storage = server.new(f"apart_{apart}".lower())
    folders = [tmp_path / "one", tmp_path / "other"] if apart else [tmp_path]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    search = command(4, f"--storage={storage}")
    with started(folders[0], *search) as first, started(folders[-1], *search) as second:
        wait_until(lambda: len(in_the_middle(storage)) == 2)
        if apart:
            assert ended(first)[0] == 0
        else:
            first.kill()
            killed = datetime.now()
        assert ended(second)[0] == 0
    done = finished(storage)
    assert len(done) == len({trial.user_attrs["architecture"] for trial in done}) == 4
    if apart:
        assert set(kinds(storage)) <= {"COMPLETE", "withdrawn"}
        assert max(epochs_trained(*folders).values()) == 1
        assert len({trial.user_attrs["worker"] for trial in done}) == 2
    else:
        assert set(kinds(storage)) - {"withdrawn"} == {"COMPLETE", "lost"}
        again = assert_goes_on(storage, folders, trials(storage)[kinds(storage).index("lost")])
        assert again.datetime_start - killed < timedelta(seconds=60)


def in_the_middle(storage):
    """Workers whose trials do not end in the next moment."""
    middle = [trial for trial in running(storage, epochs=2) if trial.last_step <= EPOCHS - 3]
    return {trial.user_attrs["worker"] for trial in middle}
