"""`nas-recalib search --confirm N` as its users meet it, with real trainings on the digits."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields

import optuna
import pytest

from nas_recalib.cli import run
from nas_recalib.proxy.objective import Proxy

SPACE = """
name: tiny
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv]
recalibration: [none, ab]
proxy: {width: 0.5}
"""
QUICK = ["--data=digits", "--images=40", "--validation=20", "--resolution=8", "--epochs=1", "--pruner=none"]
SEARCH = ["search", "--space=tiny.yaml", "--trials=2", *QUICK]
KILLED = """
import os, signal, sys
from nas_recalib.cli import run
from nas_recalib.proxy.objective import Proxy

steps, begun = Proxy.steps, []

def train_until_killed(proxy, *arguments, **keywords):
    begun.append(proxy.seed)
    if len(begun) == 6:  # two trials and three confirmations are done
        os.kill(os.getpid(), signal.SIGKILL)
    return steps(proxy, *arguments, **keywords)

Proxy.steps = train_until_killed
run(sys.argv[1:])
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path


def kept():
    study = optuna.load_study(study_name="tiny", storage="sqlite:///runs/tiny/study.db")
    return {key: value for key, value in study.user_attrs.items() if key.startswith("confirmed ")}


def kill(command):
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def interrupt(command):
    steps, begun = Proxy.steps, []

    def train_until_interrupted(proxy, *arguments, **keywords):
        begun.append(proxy.seed)
        if len(begun) == 6:  # two trials and three confirmations are done
            raise KeyboardInterrupt
        return steps(proxy, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Proxy, "steps", train_until_interrupted)
        assert run(command) == 130


@pytest.mark.parametrize("end", [interrupt, pytest.param(kill, marks=pytest.mark.soak)])
def test_a_killed_confirmation_goes_on_and_is_shown_and_exported(here, capsys, end):
    command = [*SEARCH, "--confirm=2"]
    end(command)
    capsys.readouterr()
    before = kept()
    assert before.keys() == {"confirmed 0/1", "confirmed 1/1", next(key for key in before if "/2" in key)}

    assert run(command) == 0
    streams = capsys.readouterr()
    assert "confirming the leaders, new seeds for each: 2; trainings: 1, " in streams.err
    assert len(re.findall(r"^trial \d, seed \d: accuracy", streams.err, re.M)) == 1
    assert "confirmed, 95% (seeds)" in streams.out
    found = kept()
    assert found.keys() == {f"confirmed {trial}/{seed}" for trial in (0, 1) for seed in (1, 2)}
    assert found.items() >= before.items()

    assert run(["show", "tiny", "--json", "--html=page.html"]) == 0
    shown = json.loads(capsys.readouterr().out)
    means = {
        trial: sum(found[f"confirmed {trial}/{seed}"]["accuracy"] for seed in (1, 2)) / 2 for trial in (0, 1)
    }
    best = shown["rows"][0]
    assert shown["best"] == best["number"]
    assert best["confirmation"]["mean"] == pytest.approx(max(means.values()))
    assert best["confirmation"]["half_width"] is None
    assert "too few seeds for an interval (2 new seeds)" in shown["verdict"]
    assert shown["verdict"] in (here / "page.html").read_text()

    assert run(["export", "tiny"]) == 0
    assert f"trial {best['number']}, accuracy {max(means.values()):.4f} (2) " in capsys.readouterr().err


def test_a_confirmation_trains_as_the_search_did_but_for_the_seed(here, capsys, monkeypatch):
    proxies, steps = [], Proxy.steps

    def recorded(proxy, *arguments, **keywords):
        proxies.append({field.name: getattr(proxy, field.name) for field in fields(Proxy)})
        return steps(proxy, *arguments, **keywords)

    monkeypatch.setattr(Proxy, "steps", recorded)
    assert run([*SEARCH, "--seed=5", "--confirm=1"]) == 0
    assert "too few seeds for an interval (1 new seed)" in capsys.readouterr().out
    assert [proxy.pop("seed") for proxy in proxies] == [5, 5, 6, 6]
    assert all(proxy[name] is value for proxy in proxies for name, value in proxies[0].items())
    first = kept()
    assert run([*SEARCH, "--seed=5", "--runs-dir=again", "--confirm=1"]) == 0
    again = optuna.load_study(study_name="tiny", storage="sqlite:///again/tiny/study.db").user_attrs
    for key, value in first.items():
        assert again[key]["accuracy"] == value["accuracy"], "it follows from the seed"


def test_without_it_the_tables_say_what_the_best_is_worth(here, capsys):
    assert run(SEARCH) == 0
    told = capsys.readouterr()
    assert "the best value comes from one training per network" in told.out
    assert "confirming" not in told.err
    assert kept() == {}
    assert run([*SEARCH, "--confirm=-1"]) == 2
    assert "--confirm" in capsys.readouterr().err
