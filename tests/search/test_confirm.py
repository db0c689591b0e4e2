"""Leaders are trained again with new seeds, each training once, whatever interrupts it."""

from dataclasses import replace

import optuna
import pytest
from small_study import CONFIG
from stand_in import Silent, StandIn, formula, make_search

from nas_recalib.architecture import Architecture
from nas_recalib.errors import StopSearch
from nas_recalib.proxy.objective import Failure
from nas_recalib.proxy.train import Epoch
from nas_recalib.search.confirm import confirm_leaders
from nas_recalib.search.local import run_here
from nas_recalib.study.summary import LEADERS, MEASURED, leaders, summarise, trial_rows

SEEDS = 3


class Noisy(StandIn):
    """Accuracy depends on the seed; `fate` may fail or raise instead, given architecture and seed."""

    fate = staticmethod(lambda architecture, seed: None)

    def train(self, architecture, report):
        self.trained.append((str(architecture), self.seed))
        if failure := type(self).fate(architecture, self.seed):
            return failure
        return [Epoch(1, 1.0, 0.0), Epoch(2, 1.0, accuracy(str(architecture), self.seed))]


def noisy(fate):
    return type("Fated", (Noisy,), {"fate": staticmethod(fate)})()


def accuracy(architecture, seed):
    return formula(Architecture.parse(architecture)) - 0.01 * (seed % 3)


@pytest.fixture
def study(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="s", direction="maximize")
    study.set_user_attr("config", CONFIG.as_dict())
    assert run_here(make_search(study, tmp_path, StandIn()), 10, Silent())
    return study


@pytest.fixture
def storage(study, tmp_path):
    """URL of a database file with a copy of the study."""
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.copy_study(from_study_name="s", from_storage=study._storage, to_storage=url)
    return url


def confirm(study, proxy, seeds=SEEDS):
    lines = []
    confirm_leaders(study, CONFIG, proxy, seeds, lines.append)
    return lines


def leading(study):
    return leaders(trial_rows(study, CONFIG))


def pairs(rows, seeds=SEEDS):
    return {(row.architecture, seed) for row in rows for seed in range(1, seeds + 1)}


def test_the_leaders_are_trained_with_every_new_seed_once_and_the_results_are_stored(study):
    chosen, proxy = leading(study), Noisy()
    assert len(chosen) == LEADERS
    lines = confirm(study, proxy)
    assert len(proxy.trained) == LEADERS * SEEDS
    assert set(proxy.trained) == pairs(chosen), "the study's own seed, 0, is not among them"
    assert [seed for _, seed in proxy.trained] == sorted(seed for _, seed in proxy.trained)
    assert lines[0].startswith("confirming the leaders, new seeds for each: 3; trainings: 12, about ")
    assert lines[-1].startswith(f"trial {chosen[-1].number}, seed 3: accuracy")
    assert lines[-1].endswith(", 0 left")
    for row in summarise(study).rows:
        if row.architecture in {row.architecture for row in chosen}:
            assert row.confirmation.accuracies == {s: accuracy(row.architecture, s) for s in (1, 2, 3)}
        else:
            assert row.confirmation is None


def test_the_same_command_trains_nothing_more_and_more_seeds_only_those(study):
    confirm(study, Noisy())
    again, more = Noisy(), Noisy()
    assert confirm(study, again) == []
    assert again.trained == []
    confirm(study, more, 5)
    assert sorted(seed for _, seed in more.trained) == [4] * LEADERS + [5] * LEADERS


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_an_interruption_loses_only_the_running_training(storage, end):
    study = optuna.load_study(study_name="s", storage=storage)
    chosen, before = leading(study), []

    def stop(architecture, seed):
        if len(before) == 5:
            raise end
        before.append((str(architecture), seed))

    with pytest.raises(end):
        confirm(study, noisy(stop))
    reopened, proxy = optuna.load_study(study_name="s", storage=storage), Noisy()
    confirm(reopened, proxy)
    assert len(before) + len(proxy.trained) == LEADERS * SEEDS
    assert {*before, *proxy.trained} == pairs(chosen)


def test_two_processes_do_not_overwrite_each_others_results(storage):
    study, other = (optuna.load_study(study_name="s", storage=storage) for _ in range(2))
    proxy = Noisy()

    def beside(architecture, seed):
        if seed == 1 and not proxy.trained:
            confirm(other, proxy, 1)

    first = noisy(beside)
    confirm(study, first, 2)
    assert len(proxy.trained) == LEADERS
    assert [seed for _, seed in first.trained] == [1] + [2] * LEADERS, "seed 1 is done by the other process"
    assert all(row.confirmation.accuracies.keys() == {1, 2} for row in leading(study))


def test_a_leader_that_diverges_is_replaced(study):
    first = leading(study)[0]

    def diverge(architecture, seed):
        return Failure("diverged", "nan") if (str(architecture), seed) == (first.architecture, 2) else None

    proxy = noisy(diverge)
    lines = confirm(study, proxy)
    assert any(line.startswith(f"trial {first.number}, seed 2: diverged, ") for line in lines)
    assert (first.architecture, 3) not in proxy.trained
    summary = summarise(study)
    lost = next(row for row in summary.rows if row.number == first.number)
    assert lost.diverged
    assert lost.confirmation.diverged == (2,)
    assert summary.rows[-1] == lost, "behind all completed ones"
    assert first.number not in (summary.best.number, *summary.tied)
    assert sum(row.confirmed is not None for row in summary.rows) == LEADERS
    assert confirm(study, Noisy()) == []


@pytest.mark.parametrize("kind", ["out-of-memory", "error"])
def test_other_failures_stop_the_confirmation_and_are_retried(study, kind):
    def fail(_, seed):
        return Failure(kind, "no", "traceback") if seed == 2 else None

    number = leading(study)[0].number
    with pytest.raises(StopSearch, match=f"confirming trial {number}, seed 2: {kind}: no\ntraceback"):
        confirm(study, noisy(fail))
    proxy = Noisy()
    confirm(study, proxy)
    assert sorted(seed for _, seed in proxy.trained) == [2] * LEADERS + [3] * LEADERS


def test_one_over_a_measured_limit_is_not_confirmed(study):
    first = leading(study)[0]
    config = replace(CONFIG, budget=replace(CONFIG.budget, latency=1_000_000))
    study.set_user_attr("config", config.as_dict())
    study.set_user_attr(MEASURED, {str(first.number): 2.0})
    proxy = Noisy()
    confirm_leaders(study, config, proxy, 1, lambda _: None)
    assert len(proxy.trained) == LEADERS
    assert (first.architecture, 1) not in proxy.trained


def test_a_later_trial_that_leads_is_confirmed_too(study, tmp_path):
    confirm(study, Noisy())
    before = {row.number for row in leading(study)}
    run_here(make_search(study, tmp_path, StandIn()), 40, Silent())
    new = [row for row in leading(study) if row.number not in before]
    assert new, "forty trials hold better ones than ten"
    proxy = Noisy()
    confirm(study, proxy)
    assert set(proxy.trained) == pairs(new)
