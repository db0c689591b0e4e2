"""A correlation study, really trained in processes of its own on a few digits; killed and resumed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from examples import soaked
from scipy.stats import kendalltau

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.options import CorrelationOptions
from nas_recalib.correlation.recommend import evaluate
from nas_recalib.correlation.run import Worker, pending, run
from nas_recalib.correlation.setup import prepared
from nas_recalib.correlation.signals import gather
from nas_recalib.correlation.study import REFERENCE, Task, scored, trained
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.pool import run_in_processes

SPACE = """
name: small
backbone: resnet20
granularity: stage
convolution: [vanilla, scconv, psconv]
recalibration: [none, ab, ab-plus]
proxy: {width: 0.5}
"""
QUICK = "images: 100\nvalidation: 40\nresolution: 8\nepochs: 1\n"
LONG = "images: 200\nvalidation: 40\nresolution: 8\nepochs: 2\n"
CPU = torch.device("cpu")
FEW = {"architectures": 2, "seeds": 1}


@pytest.fixture
def files(tmp_path):
    for name, content in (("small", SPACE), ("brief", QUICK), ("long", LONG)):
        (tmp_path / f"{name}.yaml").write_text(content)
    return tmp_path


def options(files, **changes):
    given = {
        "space": str(files / "small.yaml"),
        "within": 10,
        "architectures": 3,
        "seeds": 2,
        "reference": str(files / "long.yaml"),
        "fidelities": [str(files / "brief.yaml")],
        "scores": ["params", "snip", "synflow"],
        "data": "digits",
        "corrupt": "refuse",
        "study": "s",
        "runs": files / "runs",
        "storage": None,
        "threads": 1,
        "seed": 0,
    }
    return CorrelationOptions(**{**given, **changes})


def run_study(given, report=lambda _: None):
    with prepared(given, given.runs.parent, CPU) as ready:
        tasks = pending(ready)
        run(ready, tasks, jobs=2, device=CPU, progress=report)
        return len(tasks), ready, gather(ready, ["again"])


class Here:
    """Stand-in for `run_in_processes` that works in this process."""

    def __init__(self, function, tasks, on_result, *, initargs, **_):
        worker = Worker(*initargs)
        for task, architecture in tasks:
            on_result(worker.run(task, Architecture.parse(architecture)))


@pytest.mark.parametrize("work", [Here, pytest.param(run_in_processes, marks=pytest.mark.soak)])
def test_every_piece_is_done_once_and_more_may_be_asked_for(files, monkeypatch, work):
    monkeypatch.setattr("nas_recalib.correlation.run.run_in_processes", work)
    count, ready, found = run_study(options(files))
    assert count == 3 * (1 + 1 + 2)
    done = trained(ready.study)
    assert Counter(task.fidelity for task in done) == {"brief": 3, REFERENCE: 6}
    for task, trial in done.items():
        assert trial.value == trial.intermediate_values[ready.plan.fidelity(task.fidelity).epochs]
        assert trial.user_attrs["architecture"] == str(ready.drawn[task.index])
        assert trial.params == ready.space.encode(ready.drawn[task.index])
    alone = Worker(ready.plan, ready.images, "cpu").run(next(iter(done)), ready.drawn[next(iter(done)).index])
    assert alone.accuracies == tuple(done[alone.task].intermediate_values.values())
    assert list(alone.losses) == done[alone.task].user_attrs["losses"]

    assert found.runs == tuple(
        tuple(next(t.value for k, t in done.items() if (k.index, k.seed) == (i, s)) for s in (1, 2))
        for i in range(3)
    )
    values = {signal.name: signal.values for signal in found.signals}
    assert list(values) == [
        *("params", "snip", "synflow", "mean rank of the scores", "brief, epoch 1", "brief, sum of losses")
    ]
    assert values["snip"] == tuple(scored(ready.study, i)["snip"][0] for i in range(3))
    means = [sum(each) / len(each) for each in found.runs]
    agreement = next(r for r in evaluate(found).results if r.signal.name == "snip").agreement
    assert agreement.tau.value == pytest.approx(kendalltau(values["snip"], means).statistic)

    monkeypatch.setattr("nas_recalib.correlation.run.run_in_processes", Here)
    more, *_ = run_study(options(files, architectures=4, seeds=3, scores=["params", "naswot"]))
    assert more == 1 * (1 + 1 + 3) + 3 * (1 + 1)
    assert run_study(options(files, architectures=4, seeds=3))[0] == 1  # the new one's snip and synflow
    with pytest.raises(InputError, match="was made with another within"):
        run_study(options(files, within=20))


@pytest.mark.soak
def test_a_killed_study_leaves_no_process_behind_and_is_resumed(files):
    names = ["--space=small.yaml", "--reference=long.yaml", "--fidelity=brief.yaml", "--score=none"]
    sizes = ["--architectures=4", "--within=10", "--data=digits", "--study=s", "--jobs=2", "--threads=1"]
    command = [sys.executable, "-m", "nas_recalib", "correlate", *names, *sizes]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=files, **quiet) as process:
        deadline = time.monotonic() + 120
        while not has_trials(files) and time.monotonic() < deadline:
            time.sleep(0.2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    known = finished(files)
    assert known
    assert children
    while any(map(alive, children)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ended = finished(files)
    assert {key: ended[key] for key in known} == known
    assert len(ended) == 4 * (1 + 2)
    assert "recommended" in done.stdout


def has_trials(files):
    """Looked up without Optuna, which would set up a database that is just being set up."""
    try:
        with closing(sqlite3.connect(f"file:{files}/runs/s/study.db?mode=ro", uri=True)) as database:
            return database.execute("SELECT count(*) FROM trials").fetchone()[0] > 0
    except sqlite3.OperationalError:
        return False


def finished(files):
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{files}/runs/s/study.db")
    results = [
        (tuple(t.user_attrs[key] for key in ("index", "fidelity", "seed")), t.value) for t in study.trials
    ]
    assert len(dict(results)) == len(results)
    return dict(results)


def alive(pid):
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return " Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_scores_look_at_images_of_all_classes_however_they_lie(files, monkeypatch):
    seen = []
    with prepared(options(files), files, CPU) as ready:
        data = ready.images.load(ready.plan.reference)
        order = data.train_labels.argsort(stable=True)
        by_class = replace(data, train_images=data.train_images[order], train_labels=data.train_labels[order])
        worker = Worker(ready.plan, ready.images, "cpu")
        monkeypatch.setattr(worker._trainer, "data", lambda _: by_class)
        monkeypatch.setattr(
            "nas_recalib.correlation.run.score_network",
            lambda name, network, images, labels, seed: seen.append(labels) or 0.0,
        )
        worker.run(Task(0, "", 0, ("snip",)), ready.drawn[0])
    assert len(seen[0].unique()) > 5


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("no such gradient"), "no such gradient"),
        pytest.param(MemoryError("too much"), "with fewer --jobs", marks=pytest.mark.soak),
    ],
)
def test_a_score_that_fails_stops_the_work_and_is_tried_again(files, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("nas_recalib.correlation.run.run_in_processes", Here)
    with monkeypatch.context() as patched:
        patched.setattr("nas_recalib.correlation.run.score_network", fail)
        with pytest.raises(StopSearch, match=message):
            run_study(options(files, **FEW))
    count, ready, _ = run_study(options(files, **FEW))
    assert count == 2 * (1 + 1 + 1), "the scores come first, so nothing has been done"
    assert len(scored(ready.study, 0)) == 3


@pytest.mark.parametrize("kind", soaked(["out-of-memory", "error"], ["out-of-memory"]))
def test_a_training_that_fails_by_no_fault_of_its_own_is_tried_again(files, monkeypatch, kind):
    monkeypatch.setattr("nas_recalib.correlation.run.run_in_processes", Here)
    with monkeypatch.context() as patched:
        failure = Failure(kind, "no room", "traceback")
        patched.setattr("nas_recalib.proxy.trainer.Proxy.train", lambda *_: failure)
        with pytest.raises(StopSearch):
            run_study(options(files, **FEW))
    count, ready, _ = run_study(options(files, **FEW))
    assert count == 2 * (1 + 1 + 1) - 1, "all but the first scores"
    assert len(trained(ready.study)) == 4


def test_threads_are_those_of_the_study_unless_others_are_given(files, monkeypatch):
    with prepared(options(files, threads=1), files, CPU):
        pass
    monkeypatch.setattr("nas_recalib.correlation.setup.default_threads", lambda: 2)
    with prepared(options(files, threads=None), files, CPU) as ready:
        assert ready.plan.threads == 1
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with (
        pytest.raises(InputError, match="another threads: stored 1, given 2"),
        prepared(options(files, threads=2), files, CPU),
    ):
        pass


def test_what_is_not_given_again_is_as_the_study_has_it(files):
    given = {"within": 20, "seeds": 3, "scores": ["params"], "seed": 5, "corrupt": "skip"}
    names = ("architectures", "reference", "data", "within", "seeds", "seed", "corrupt")
    nothing = {**dict.fromkeys(names), "fidelities": None, "scores": None}
    with prepared(options(files, **given), files, CPU) as ready:
        first = ready.plan
    with prepared(options(files, **nothing), files, CPU) as ready:
        assert ready.plan == first
        assert (ready.scores, len(ready.drawn), ready.images.corrupt) == (("params",), 3, "skip")
    with prepared(
        options(files, **{**nothing, "macs": str(first.upper.macs), "architectures": 4}), files, CPU
    ) as ready:
        assert ready.plan == replace(first, architectures=4)
        assert len(ready.drawn) == 4


def test_a_study_that_was_made_in_the_meantime_is_not_made_another(files, monkeypatch):
    with prepared(options(files, fidelities=[str(files / "long.yaml")]), files, CPU):
        pass
    monkeypatch.setattr("nas_recalib.correlation.setup.find_study", lambda place: None)
    with prepared(options(files), files, CPU) as ready:
        assert set(ready.plan.fidelities) == {"long", "brief"}
    with (
        pytest.raises(InputError, match="was made with another within"),
        prepared(options(files, within=20), files, CPU),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"within": 0}, "within: 0%"),
        ({"within": 100}, "within: 100%"),
        ({"scores": ["luck"]}, "score: unknown 'luck'; allowed: all, none, "),
        ({"fidelities": ["reference.yaml"]}, "fidelity: 'reference' is the name of the longer training"),
        (
            {"fidelities": ["a/brief.yaml", "b/brief.yaml"]},
            "fidelity: a/brief.yaml and b/brief.yaml have",
        ),
        ({"reference": "eternal"}, "fidelity: unknown 'eternal'"),
        ({"data": "nothing"}, "data: unknown set 'nothing'"),
        ({"threads": 5000}, "threads: 5000 is more than"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(files, changes, complaint):
    with pytest.raises(InputError, match=f"^{complaint}"), prepared(options(files, **changes), files, CPU):
        pass
    assert not (files / "runs").exists()
