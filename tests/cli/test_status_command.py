"""`nas-recalib status`: of a running search, of a killed one, and of each trial."""

import json
import re
import signal
import time
from contextlib import contextmanager

import optuna
import pytest
from commands import SEARCH, running, started, wait_until, watched
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from rich.console import Console

from nas_recalib.cli import run
from nas_recalib.errors import printable
from nas_recalib.report import terminal
from nas_recalib.search.progress import Progress

STORAGE = "sqlite:///runs/s/study.db"
KINDS = ["diverged", "error", "out-of-memory", "over-budget", "abandoned", "interrupted", "lost", "withdrawn"]


@pytest.fixture
def searched(here, capsys):
    """A study of one trained trial."""
    assert run([*SEARCH, "--trials=1", "--epochs=2"]) == 0
    capsys.readouterr()
    return optuna.load_study(study_name="s", storage=STORAGE)


@pytest.fixture
def status(capsys):
    """Return the output of `status` for the study s, as JSON and as text."""

    def ask(*options):
        capsys.readouterr()
        assert run(["status", "s", *options, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert run(["status", "s", *options]) == 0
        return found, capsys.readouterr().out

    return ask


def failed(kind, **attributes):
    required = {"failure": kind, "message": f"it is {kind}", "architecture": f"an architecture, {kind}"}
    return create_trial(
        state=TrialState.FAIL,
        params={"layer1.convolution": "vanilla"},
        distributions={"layer1.convolution": CategoricalDistribution(["vanilla", "scconv", "psconv"])},
        user_attrs={**required, **attributes},
    )


@pytest.mark.soak
def test_a_running_search_then_a_killed_one_then_a_resumed_one(here, status):
    search = [*SEARCH, "--trials=1", "--epochs=6"]
    with started(here, *watched(0.3), *search) as process:
        wait_until(lambda: running(STORAGE, epochs=2), process)
        process.send_signal(signal.SIGSTOP)  # it would end, and we are slow
        found, text = status()
        process.kill()
    (trial,) = found["running"]
    assert (found["trained"], found["owed"], found["failures"], found["best"]) == (0, 0, {}, None)
    assert (trial["number"], trial["silent"]) == (0, None)
    assert 2 <= trial["epochs"] < 6
    assert 0 < trial["seconds"] < 120
    assert "s: 0 trained, 0 in the last hour\n1 running\n" in text
    assert trial["worker"] in text
    assert "/6" in text

    assert run(search) == 0
    found, text = status()
    assert (found["trained"], found["per_hour"], found["owed"], found["running"]) == (1, 1, 0, [])
    assert found["failures"] == {"lost": 1}
    assert text.splitlines()[1] == "1 failed: lost"
    dead, dead_text = status("--trial=0")
    again, _ = status("--trial=1")
    assert (dead["state"], dead["continued_by"], again["continued_by"]) == ("fail", 1, None)
    assert "resumed by trial 1" in dead_text
    assert again["attributes"]["continues"] == 0
    assert again["curve"][: len(dead["curve"])] == dead["curve"]
    assert len(again["curve"]) == 6


def test_failures_are_counted_by_kind_and_trials_to_resume_apart(searched, status):
    for kind in (*KINDS, "lost"):
        searched.add_trial(failed(kind))
    searched.enqueue_trial({})
    found, text = status()
    assert found["failures"] == {kind: 1 + (kind == "lost") for kind in KINDS if kind != "withdrawn"}
    assert (found["trained"], found["waiting"]) == (1, 1)
    assert found["owed"] == 4, "interrupted, lost twice, and once more in halves"
    for words in ("4 to resume", "1 enqueued", "2 failed: lost", "1 failed: over-budget"):
        assert words in text
    assert "withdrawn" not in text


def test_details_of_a_trial_have_its_curve_attributes_and_traceback(searched, status):
    searched.add_trial(failed("error", traceback="Traceback (most recent call last):\n  KeyError: 'x'"))
    found, text = status("--trial=0")
    trial = searched.trials[0]
    assert found["curve"] == list(trial.intermediate_values.values())
    assert found["attributes"] == trial.user_attrs
    assert found["ended"] >= found["begun"]
    assert f"accuracies: {' '.join(f'{value:.4f}' for value in found['curve'])}" in text
    assert f"architecture: {trial.user_attrs['architecture']}" in text
    found, text = status("--trial=1")
    assert found["traceback"].endswith("KeyError: 'x'")
    assert "traceback" not in found["attributes"]
    assert text.endswith("Traceback (most recent call last):\n  KeyError: 'x'\n")
    assert "accuracies: none" in text


def test_running_trials_are_a_plain_table(searched, status):
    blocks = " ".join(
        f"layer{s}.{b}={'psconv+halve' if s > 2 else 'scconv'}" for s in (1, 2, 3) for b in (0, 1, 2)
    )
    for architecture in (searched.trials[0].user_attrs["architecture"], f"resnet20@32/10 {blocks}", "x"):
        attributes = {"worker": "a machine, process 7", "architecture": architecture}
        searched.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes))
    _, text = status()
    heading, *rows = text.splitlines()[3:]
    assert re.split("  +", heading) == [
        "trial",
        "worker",
        "since",
        "epoch",
        "accuracy",
        "operators (blocks each)",
    ]
    assert rows[0].endswith("  9 vanilla; 9 none")
    assert rows[1].endswith("  6 scconv, 3 psconv+halve"), "of a plugin that is not loaded"
    assert rows[2].endswith("  0/2")

    searched._storage.set_trial_system_attr(
        searched.trials[1]._trial_id, "nas_recalib:beat", [1, time.time() - 75]
    )
    _, text = status()
    heading, *rows = text.splitlines()[3:]
    assert "heartbeat" in heading
    assert re.search(r"  1 min 1\d s ago  ", rows[0])
    assert "  none  " in rows[1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none"], "error: study: there is no 'none' in runs/none/study.db; in runs there are: s"),
        (["s", "--trial=1"], "error: trial: 1 is not in study 's'; there are 0 to 0"),
        (["s", "--trial=-1"], "error: trial: -1 is not in study 's'; there are 0 to 0"),
        (["s", "--trial=one"], "error: Invalid value for '--trial'"),
        (["../s"], "error: study: '../s' is not a name"),
        (["s", "--storage=sqlite:///none.db"], "error: study: there is no 's' in sqlite:///none.db"),
    ],
)
def test_missing_studies_and_trials_are_one_line_and_status_2(searched, here, capsys, arguments, complaint):
    assert run(["status", *arguments]) == 2
    streams = capsys.readouterr()
    assert streams.err.startswith(complaint)
    assert (streams.out, len(streams.err.splitlines())) == ("", 1)
    assert not (here / "none.db").exists()


HOSTILE = "[red]x[/red] \x1b[2J\x1b]0;title\x07 \x9b31m \r\x08\u202e \ud800"
SHOWN = r"[red]x[/red] \x1b[2J\x1b]0;title\x07 \x9b31m \r\x08\u202e \ud800"


@contextmanager
def a_terminal(monkeypatch):
    console = Console(force_terminal=True, width=300, color_system=None, record=True, markup=False)
    with monkeypatch.context() as patched, console.capture() as captured:
        patched.setattr(terminal, "Console", lambda **_: console)
        yield captured


@pytest.mark.parametrize("on_a_terminal", [False, True])
def test_markup_is_printed_as_it_is_and_control_characters_by_their_codes(
    searched, capsys, monkeypatch, on_a_terminal
):
    storable = HOSTILE.removesuffix(" \ud800")
    attributes = {"worker": "[red]x[/red]", "architecture": "a", "message": storable}
    searched.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=attributes))
    searched.add_trial(failed("error", message=storable, traceback=f"two\n\tlines {storable}"))
    for options in ([], ["--trial=1"], ["--trial=2"]):
        if on_a_terminal:
            with a_terminal(monkeypatch) as captured:
                assert run(["status", "s", *options]) == 0
            out = captured.get()
        else:
            assert run(["status", "s", *options]) == 0
            out = capsys.readouterr().out
        assert (SHOWN.removesuffix(r" \ud800") if options else "[red]x[/red]") in out
        assert all(letter.isprintable() or letter in "\n\t" for letter in out)
    assert "two\n" in out, "lines of a traceback stay lines"
    assert printable(HOSTILE) == SHOWN


def test_messages_while_a_search_runs_are_printable_too(searched, capsys):
    searched.add_trial(failed("lost", message="of \x1b[2J"))
    Progress.of(searched, target=3, epochs=2).ended(searched.trials[1])
    assert capsys.readouterr().err == "trial 1: lost: of \\x1b[2J\n"
    assert run(["status", "s", "--storage=sqlite:///\x1b[2J.db"]) == 2
    assert "\\x1b[2J.db" in capsys.readouterr().err
