"""A search on a real Ray cluster, of which a node and then the driver die."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from ray.cluster_utils import Cluster

from nas_recalib.study.trials import RESUMED_FROM, finished

WORKER = Path(__file__).parents[2] / "benchmarks" / "stand_in_worker.py"
TARGET, EPOCHS = 5, 10
pytestmark = [pytest.mark.usefixtures("alone_with_ray"), pytest.mark.timeout(600, func_only=True)]


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster()
    cluster.add_node(num_cpus=2, include_dashboard=False)
    yield cluster
    cluster.shutdown()


def drive(cluster, folder):
    options = [f"--trials={TARGET}", f"--epochs={EPOCHS}", "--seconds=1", "--strategy=random"]
    where = [f"--storage=sqlite:///{folder}/study.db", f"--folder={folder}", f"--ray={cluster.address}"]
    with (folder / "driver.log").open("a") as log:
        return subprocess.Popen([sys.executable, str(WORKER), *where, *options], stdout=log, stderr=log)


def trials(folder):
    if not (folder / "study.db").exists():
        return []
    try:
        return optuna.load_study(study_name="many", storage=f"sqlite:///{folder}/study.db").trials
    except Exception:  # its tables are being created
        return []


def wait_until(true, seconds=240):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.1)


def trained(folder):
    """Return a line with number and architecture for every epoch that was trained on any node."""
    return [line for log in folder.glob("trained-*.log") for line in log.read_text().splitlines()]


@pytest.mark.soak
def test_a_node_and_then_the_driver_die_and_every_trial_is_resumed_and_finishes_once(cluster, tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    node = cluster.add_node(num_cpus=2)
    driver = drive(cluster, tmp_path)

    def running():
        return [t for t in trials(tmp_path) if t.state == TrialState.RUNNING and t.last_step]

    wait_until(lambda: len(running()) == 4)
    cluster.remove_node(node, allow_graceful=False)
    wait_until(lambda: any(RESUMED_FROM in t.user_attrs and t.last_step for t in trials(tmp_path)))
    wait_until(lambda: len(running()) == 2)
    driver.kill()
    driver.wait()
    assert drive(cluster, tmp_path).wait(timeout=240) == 0, (tmp_path / "driver.log").read_text()
    study = optuna.load_study(study_name="many", storage=f"sqlite:///{tmp_path}/study.db")
    done = finished(study)
    assert len(done) == len({str(trial.params) for trial in done}) == TARGET
    assert all(trial.state == TrialState.COMPLETE and trial.last_step == EPOCHS for trial in done)
    assert not [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    lost = [trial for trial in study.trials if trial.user_attrs.get("failure") == "lost"]
    assert len(lost) >= 3, "two on the node, others with the driver"
    again = Counter(trained(tmp_path))
    assert sum(again.values()) - len(again) <= len(lost), "each lost only its running epoch"
    for trial in lost:
        number = trial.last_step or 0
        architecture = trial.user_attrs["architecture"]
        assert all(again[f"{epoch}\t{architecture}"] == 1 for epoch in range(1, number + 1))
