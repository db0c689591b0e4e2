"""Pruners: which trials stop, pause, and are promoted."""

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState, create_trial
from stand_in import SPACE, Silent, StandIn, all_architectures, formula, make_search

from nas_recalib.architecture import Architecture
from nas_recalib.proxy.objective import Failure
from nas_recalib.search.local import run_here
from nas_recalib.search.pruning import SuccessiveHalving
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import RESUMED_FROM, curve_of, finished


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name="s", direction="maximize")


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [(1, ()), (2, (1,)), (3, (1,)), (4, (1,)), (6, (1, 2)), (12, (1, 4)), (36, (1, 4, 12))],
)
def test_rungs_are_thirds_of_a_complete_training(epochs, rungs):
    assert SuccessiveHalving(epochs).rungs == rungs


def test_nothing_is_trained_twice_and_one_in_three_is_promoted(study, tmp_path):
    proxy = StandIn(epochs=9)
    run_here(make_search(study, tmp_path, proxy, pruner="halving", strategy="random"), 40, Silent())
    assert len(set(proxy.passed)) == len(proxy.passed), "no epoch of an architecture is trained twice"
    assert len(finished(study)) == len(proxy.trained) == len(set(proxy.trained)) == 40
    at = {rung: sum(len(curve_of(trial)) >= rung for trial in finished(study)) for rung in (1, 3, 9)}
    assert at[1] == 40
    assert 40 // 3 <= at[3] <= 40 // 3 + 8, "baselines are never paused"
    assert at[9] < at[3]
    assert {len(curve_of(trial)) for trial in finished(study)} == {1, 3, 9}
    assert all(len(curve_of(trial)) == 9 for trial in finished(study) if "baseline" in trial.user_attrs)
    best = max(finished(study), key=lambda trial: trial.intermediate_values[1])
    assert best.state == TrialState.COMPLETE, "the formula ranks epochs alike, so the best reaches the top"


def test_a_promoted_trial_is_a_new_one_with_the_complete_curve(study, tmp_path):
    proxy = StandIn(epochs=9)
    run_here(make_search(study, tmp_path, proxy, pruner="halving", strategy="random"), 20, Silent())
    resumed = [trial for trial in study.get_trials() if RESUMED_FROM in trial.user_attrs]
    assert resumed
    assert len(resumed) == len(proxy.resumed)
    for trial in resumed:
        before = study.get_trials()[trial.user_attrs[RESUMED_FROM]]
        assert before.state == TrialState.PRUNED
        assert before.params == trial.params
        assert before.intermediate_values.items() <= trial.intermediate_values.items()
        assert list(trial.intermediate_values) == list(range(1, len(curve_of(trial)) + 1))
        assert before.user_attrs["seconds"] <= trial.user_attrs["seconds"]


def test_a_few_trials_end_with_one_that_is_trained_to_the_end(study, tmp_path):
    run_here(make_search(study, tmp_path, StandIn(epochs=9), pruner="halving"), 7, Silent())
    beyond = [trial for trial in finished(study) if "baseline" not in trial.user_attrs]
    assert len(beyond) == 3
    assert [len(curve_of(trial)) for trial in beyond].count(1) >= 1


def search_the_best(study, folder, proxy):
    search_ranked(study, folder, proxy, slice(9), 9)


def search_the_poorest(study, folder, proxy):
    search_ranked(study, folder, proxy, slice(-30, None), 39)


def search_ranked(study, folder, proxy, ranks, target):
    space = SearchSpace.parse(SPACE, "tiny")
    for architecture in sorted(all_architectures(space), key=formula, reverse=True)[ranks]:
        study.enqueue_trial(space.encode(architecture))
    run_here(make_search(study, folder, proxy, pruner="halving"), target, Silent())


def test_more_trials_promote_paused_ones_from_their_checkpoints(study, tmp_path):
    first, second = StandIn(epochs=9), StandIn(epochs=9)
    search_the_best(study, tmp_path, first)
    search_the_poorest(study, tmp_path, second)
    paused = set(first.trained) - set(first.resumed)
    assert len(paused) == 9 - 9 // 3
    assert paused <= set(second.resumed), "poorer trials make room for them"
    passed = first.passed + second.passed
    assert len(set(passed)) == len(passed)


@pytest.mark.parametrize("damage", ["lost", "torn", "another's"])
def test_without_its_checkpoint_a_training_restarts(study, tmp_path, damage):
    search_the_best(study, tmp_path, StandIn(epochs=9))
    damaged = list((tmp_path / "checkpoints").iterdir())
    for path in damaged:
        if damage == "another's":
            torch.save({"curve": [(1, 1.0, 0.123)]}, path)
        else:
            path.unlink() if damage == "lost" else path.write_bytes(path.read_bytes()[:40])
    again = StandIn(epochs=9)
    search_the_poorest(study, tmp_path, again)
    assert len(finished(study)) == 39
    resumed = [trial for trial in study.get_trials() if RESUMED_FROM in trial.user_attrs]
    assert all(
        list(trial.intermediate_values) == list(range(1, len(curve_of(trial)) + 1)) for trial in resumed
    )
    numbers = [int(path.stem) for path in damaged]
    restarted = [trial for trial in resumed if trial.user_attrs[RESUMED_FROM] in numbers]
    assert restarted
    assert all(
        (Architecture.parse(trial.user_attrs["architecture"]), 1) in again.passed for trial in restarted
    )


def test_an_interruption_of_a_promoted_trial_costs_only_the_epochs_since(study, tmp_path):
    class Interrupted(StandIn):
        def steps(self, architecture, start=None, parts=1):
            if start:
                raise KeyboardInterrupt
            return super().steps(architecture, start, parts)

    first = Interrupted(epochs=9)
    with pytest.raises(KeyboardInterrupt):
        run_here(make_search(study, tmp_path, first, pruner="halving", strategy="random"), 40, Silent())
    second = StandIn(epochs=9)
    run_here(make_search(study, tmp_path, second, pruner="halving", strategy="random"), 40, Silent())
    passed = first.passed + second.passed
    assert len(set(passed)) == len(passed)
    assert len(finished(study)) == 40


def test_a_promoted_trial_that_diverges_is_not_promoted_again(study, tmp_path):
    class Diverging(StandIn):
        def steps(self, architecture, start=None, parts=1):
            self.verdict = lambda _: Failure("diverged", "no") if start and len(self.resumed) < 3 else None
            return super().steps(architecture, start, parts)

    proxy = Diverging(epochs=9)
    run_here(make_search(study, tmp_path, proxy, pruner="halving", strategy="random"), 30, Silent())
    failed = [trial for trial in study.get_trials() if trial.state == TrialState.FAIL]
    assert len(failed) == 2
    resumed = [trial.params for trial in study.get_trials() if RESUMED_FROM in trial.user_attrs]
    assert all(resumed.count(trial.params) == 1 for trial in failed)


def test_an_enqueued_baseline_is_a_baseline_and_not_paused(study, tmp_path):
    vanilla = Architecture.of("resnet20", "vanilla")  # the poorest
    study.enqueue_trial(SearchSpace.parse(SPACE, "tiny").encode(vanilla))
    run_here(make_search(study, tmp_path, StandIn(epochs=9), pruner="halving"), 5, Silent())
    first = finished(study)[0]
    assert first.user_attrs["architecture"] == str(vanilla)
    assert first.user_attrs["baseline"] == "vanilla"
    assert first.state == TrialState.COMPLETE


def test_hyperband_spreads_trials_over_brackets(study, tmp_path):
    proxy = StandIn(epochs=9)
    run_here(make_search(study, tmp_path, proxy, pruner="hyperband", strategy="random"), 60, Silent())
    mine = [trial for trial in finished(study) if "baseline" not in trial.user_attrs]
    brackets = [trial.user_attrs["bracket"] for trial in mine]
    assert set(brackets) == {0, 1, 2}
    assert brackets.count(0) > brackets.count(1)
    for trial, bracket in zip(mine, brackets, strict=True):
        assert len(curve_of(trial)) in ((1, 3, 9), (3, 9), (9,))[bracket]
    assert len(set(proxy.passed)) == len(proxy.passed)


def test_brackets_have_the_same_shares_as_in_hyperband():
    """Table 1 of Li et al., Hyperband, JMLR 2018: 81, 34, 15, 8 and 5 configurations for 81 epochs."""
    random, halving = np.random.default_rng(0), SuccessiveHalving(81, hyperband=True)
    drawn = np.bincount([halving.new_trial_attrs(random)["bracket"] for _ in range(20_000)])
    assert drawn / drawn.sum() == pytest.approx(np.array([81, 34, 15, 8, 5]) / 143, abs=0.012)


def test_median_pruning_spares_baselines_and_stops_poor_trials(study, tmp_path):
    run_here(
        make_search(study, tmp_path, StandIn(epochs=6), pruner="median", strategy="random"), 25, Silent()
    )
    trials = finished(study)
    assert all(trial.state == TrialState.COMPLETE for trial in trials if "baseline" in trial.user_attrs)
    poor = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert poor
    assert all(trial.last_step >= 1 for trial in poor)
    assert not list((tmp_path / "checkpoints").iterdir()), "pruned trials leave no checkpoints"


def test_a_promoted_trial_counts_at_its_rung_before_it_reports_an_epoch():
    study = optuna.create_study(direction="maximize")
    for value in (0.1, 0.2, 0.3):
        study.add_trial(create_trial(state=TrialState.PRUNED, value=value, intermediate_values={1: value}))
    pruner = SuccessiveHalving(3)
    best = pruner.trial_to_promote(study, last=True)
    assert best.number == 2
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"continues": best.number}))
    assert pruner.trial_to_promote(study, last=True) is None
