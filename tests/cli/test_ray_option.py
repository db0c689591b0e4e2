"""`nas-recalib search --ray local` as its users meet it, on a cluster that lives as long as the search."""

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from commands import QUICK, SEARCH, SPACE, ended, running, started, trials, wait_until

from nas_recalib.cli import run
from nas_recalib.study.storage import open_storage

OPERATOR = """
from torch import nn
from nas_recalib import register

@register("halve", "recalibration")
class Halve(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x / 2
"""
ON_RAY = [sys.executable, "-m", "nas_recalib", *SEARCH, "--ray=local"]
HIDDEN = ("s3:cr@t", "s3%3A")
pytestmark = [pytest.mark.usefixtures("alone_with_ray"), pytest.mark.timeout(300, func_only=True)]


@pytest.fixture
def here(here, forget):
    return here


@pytest.fixture
def marked():
    """An environment by which Ray's processes are known, with a place for what Ray writes."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path has room for 107 letters
    yield {**os.environ, "RAY_TMPDIR": folder}
    shutil.rmtree(folder)


def alive(marked):
    """Arguments of the processes that have such an environment, by their numbers."""
    mark = f"RAY_TMPDIR={marked['RAY_TMPDIR']}".encode()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_text()
        except OSError:  # it has just ended, or is another user's
            continue
    return {number: words for number, words in found.items() if words}  # without those only to be waited for


def files(*folders):
    return [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_it_ends_with_what_was_asked_and_says_its_password_to_nobody(here, marked, server, capsys, workers):
    operators = SPACE.replace("[none, ab]", "[none, halve]")
    (here / "own.yaml").write_text(operators)
    (here / "my_ops.py").write_text(OPERATOR)
    own = ["--space=own.yaml", "--plugin=my_ops.py", "--epochs=2", "--trials=5"]
    server.execute(f"CREATE USER with_{workers} PASSWORD 's3:cr@t/w0rd'")
    server.execute(f"CREATE DATABASE of_{workers} OWNER with_{workers}")
    url = f"postgresql://with_{workers}:s3%3Acr%40t%2Fw0rd@127.0.0.1:{server.port}/of_{workers}"
    command = [*ON_RAY, f"--workers={workers}", *own, f"--storage={url}"]
    with started(here, *command, env=marked) as process:
        wait_until(lambda: running(url), process)
        others = [words for number, words in alive(marked).items() if number != process.pid]
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    done = trials(url)
    study = open_storage(url).get_study_user_attrs(1)
    assert run(["show", "s", "--json", "--plugin=my_ops.py", f"--storage={url}"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert run(["status", "s", "--json", f"--storage={url}"]) == 0
    assert json.loads(capsys.readouterr().out)["trained"] == 5
    assert [trial.user_attrs["node"] for trial in done] == [platform.node()] * 5
    assert all("threads" in trial.user_attrs["device"] for trial in done)
    assert len({trial.user_attrs["architecture"] for trial in done}) == 5
    assert any("halve" in trial.user_attrs["architecture"] for trial in done), "the actors know it, too"
    assert any("ray::" in words for words in others)
    wait_until(lambda: not alive(marked))
    told = [out, err, str(study), *(str(trial) for trial in done), *others]
    written = [path.read_text(errors="replace") for path in files(here, marked["RAY_TMPDIR"])]
    assert not [text for text in (*told, *written) if any(form in text for form in HIDDEN)]

    assert run([*SEARCH, *own, "--study=t"]) == 0
    capsys.readouterr()
    assert run(["show", "t", "--json", "--plugin=my_ops.py"]) == 0
    local = json.loads(capsys.readouterr().out)
    assert shown.keys() == local.keys()
    accuracies = {row["architecture"]: row["accuracy"] for row in local["rows"]}
    same = [row for row in shown["rows"] if row["architecture"] in accuracies]
    assert len(same) >= 3, "the networks of one operator"
    assert [row["accuracy"] for row in same] == [accuracies[row["architecture"]] for row in same]
    assert all(row.keys() == local["rows"][0].keys() for row in shown["rows"])


@pytest.mark.soak
def test_an_interruption_gives_back_what_runs_and_leaves_no_process_of_ray(here, marked, capsys):
    storage = f"sqlite:///{here}/runs/s/study.db"
    search = [*ON_RAY, "--workers=2", "--trials=2", "--epochs=30"]
    with started(here, *search, env=marked, start_new_session=True) as process:
        wait_until(lambda: running(storage, epochs=2), process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        status, said = ended(process)
    assert status == 130, said
    assert said.splitlines()[-1] == "interrupted: run the same command again to resume"
    assert "Traceback" not in said
    wait_until(lambda: not alive(marked))
    left = trials(storage)
    assert {trial.user_attrs["failure"] for trial in left} == {"interrupted"}
    assert run([*SEARCH, "--trials=2", "--epochs=30"]) == 0
    again = trials(storage)[len(left)]
    assert again.user_attrs["continues"] == left[0].number
    before = left[0].intermediate_values
    assert {epoch: again.intermediate_values[epoch] for epoch in before} == before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers=2"], "workers: has no effect without --ray"),
        (["--gpus-per-trial=1"], "gpus-per-trial: has no effect without --ray"),
        (["--ray=nowhere:1"], "address: nothing answers at nowhere:1: "),
        (["--ray=somewhere"], "address: 'somewhere' is not local, auto or HOST:PORT"),
        (["--ray=local", "--workers=0"], "Invalid value for '--workers'"),
        (["--ray=local", "--gpus-per-trial=1.5"], "gpus-per-trial: 1.5 is neither a share of a GPU"),
        (["--ray=local", "--gpus-per-trial=1e-5"], "gpus-per-trial: 1e-05 is neither a share of a GPU"),
        (["--ray=local", "--device=cuda:1"], "device: with --ray only cpu or cuda, not 'cuda:1'"),
        (["--ray=local", "--device=cpu", "--gpus-per-trial=1"], "gpus-per-trial: 1 is of no use with"),
        (["--ray=local", "--confirm=2"], "confirm: not with --ray"),
        pytest.param(
            ["--ray=local", "--gpus-per-trial=64"],
            "resources: no node of the cluster has 1 CPUs and 64 GPUs",
            marks=pytest.mark.soak,  # it starts Ray
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_written(here, capsys, arguments, complaint):
    assert run(["search", "--space=tiny.yaml", *QUICK, *arguments]) == 2
    streams = capsys.readouterr()
    assert streams.err.startswith(f"error: {complaint}")
    assert (streams.out, len(streams.err.splitlines())) == ("", 1)
    assert [path.name for path in here.iterdir()] == ["tiny.yaml"]
