"""A one-shot search: scores within the budget, the same after a kill, and options that do not go together."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nas_recalib.cli import run
from nas_recalib.search.samplers.oneshot import one_shot_scores
from nas_recalib.space import SearchSpace
from nas_recalib.study.location import StudyLocation, open_study
from nas_recalib.study.summary import summarise

SIZES = "--data=digits --images=40 --validation=20 --resolution=8 --epochs=1 --trials=2 --baselines=no"
ONE_SHOT = "--evaluator=oneshot --supernet-epochs=2 --supernet-scores=8"


def command(*options, study="s"):
    return ["search", "--space=tiny.yaml", f"--study={study}", *SIZES.split(), *" ".join(options).split()]


def search(*options, study="s"):
    return run(command(*options, study=study))


def opened(study):
    return open_study(StudyLocation.of(study, Path("runs"), None))


def result_of(study):
    found = opened(study)
    rows = [(trial.params, trial.values) for trial in found.get_trials()]
    return {key: value for key, value in found.user_attrs.items() if key.startswith("oneshot")}, rows


def test_subnets_are_scored_within_the_budget_and_the_best_are_trained(here):
    space = SearchSpace.load("tiny.yaml")
    budget = int(np.mean([space.table.least()["macs"], space.table.greatest()["macs"]]))
    assert search(ONE_SHOT, f"--budget={budget}") == 0
    found = opened("s")
    scores = one_shot_scores(found.user_attrs)
    costs = [space.table.cost(indices)["macs"] for indices in scores]
    assert len(scores) == 8
    assert max(costs) <= budget < space.table.greatest()["macs"]
    assert len(set(scores.values())) > 1
    rows = summarise(found).rows
    assert len(rows) == 2
    assert all(row.macs <= budget for row in rows)
    assert search(ONE_SHOT, f"--budget={budget}", "--supernet-scores=12", "--trials=3") == 0
    more = one_shot_scores(opened("s").user_attrs)
    assert len(more) == 12
    assert scores.items() <= more.items()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("epoch 1 of 2", marks=pytest.mark.soak),
        "supernet 2 of 2: epoch 1",
        pytest.param("of 8 subnets scored", marks=pytest.mark.soak),
    ],
)
def test_a_killed_preparation_ends_as_if_it_had_not_been_killed(here, line):
    assert search(ONE_SHOT, study="whole") == 0
    with subprocess.Popen(
        [sys.executable, "-m", "nas_recalib", *command(ONE_SHOT, study="killed")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert any(line in printed for printed in process.stderr)
        process.send_signal(signal.SIGKILL)
    assert search(ONE_SHOT, study="killed") == 0
    whole, killed = result_of("whole"), result_of("killed")
    assert whole[0] == killed[0]
    finished = [row for row in killed[1] if row[1]]
    assert whole[1] == finished


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--supernet-epochs=3", "supernet-epochs: has no effect without --evaluator oneshot"),
        ("--strategy=oneshot", "strategy: oneshot needs the scores of supernets; add --evaluator oneshot"),
        (f"{ONE_SHOT} --strategy=tpe", "strategy: tpe does not use the scores of --evaluator oneshot"),
        (f"{ONE_SHOT} --objectives=accuracy,macs", "strategy: oneshot supports one objective only"),
        ("--evaluator=long", "'long' is not one of 'short', 'oneshot'"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(here, capsys, options, message):
    assert search(options) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs", "s", "study.db").exists()


def test_other_supernets_and_foreign_scores_are_refused(here, capsys):
    assert search(ONE_SHOT) == 0
    capsys.readouterr()
    assert search("--supernet-epochs=3") == 2
    assert "another supernet_epochs: stored 2, given 3" in capsys.readouterr().err
    opened("s").set_user_attr("oneshot:0", [[[0], []]])
    assert search(ONE_SHOT) == 2
    assert "attribute 'oneshot:0' of 's' was not written by nas-recalib" in capsys.readouterr().err


@pytest.mark.soak
def test_a_cluster_gives_the_scores_of_a_single_process(here):
    assert search(ONE_SHOT, "--threads=1", study="alone") == 0
    subprocess.run(
        [sys.executable, "-m", "nas_recalib", *command(ONE_SHOT, "--threads=1 --ray=local", study="ray")],
        check=True,
    )
    alone, ray = result_of("alone"), result_of("ray")
    assert alone[0] == ray[0]
    assert sorted(map(str, alone[1])) == sorted(map(str, ray[1]))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_proxy_of_resnet50_killed_at_five_random_moments_ends_the_same(here):
    sizes = "--space=resnet50 --budget=4G --width=0.125 --images=96 --supernet-epochs=3 --supernet-scores=60"
    assert search(ONE_SHOT, sizes, study="whole") == 0
    random = np.random.default_rng()
    for _ in range(5):
        try:
            subprocess.run(  # kills the process when the time is over
                [sys.executable, "-m", "nas_recalib", *command(ONE_SHOT, sizes, study="killed")],
                capture_output=True,
                timeout=random.uniform(10, 40),
            )
        except subprocess.TimeoutExpired:
            continue
    assert search(ONE_SHOT, sizes, study="killed") == 0
    whole, killed = result_of("whole"), result_of("killed")
    assert whole[0] == killed[0]
    assert whole[1] == [row for row in killed[1] if row[1]]
