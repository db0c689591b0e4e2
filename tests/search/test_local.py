"""Searches in one process: targets, budgets, failures, interruptions."""

import optuna
import pytest
from optuna.trial import TrialState
from stand_in import SPACE, Silent, StandIn, all_architectures, make_search

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.proxy.objective import Failure
from nas_recalib.search.job import train
from nas_recalib.search.local import run_here
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import finished


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name="s", direction="maximize")


def architectures(study):
    return [trial.user_attrs["architecture"] for trial in finished(study)]


def test_ends_with_the_target_number_of_trained_trials_all_different(study, tmp_path):
    proxy = StandIn()
    assert run_here(make_search(study, tmp_path, proxy), 12, Silent())
    assert len(finished(study)) == len(proxy.trained) == 12
    assert len(set(architectures(study))) == 12


def test_running_again_trains_nothing_more_and_a_higher_target_only_the_rest(study, tmp_path):
    run_here(make_search(study, tmp_path, StandIn()), 8, Silent())
    again = StandIn()
    run_here(make_search(study, tmp_path, again), 8, Silent())
    assert again.trained == []
    more = StandIn()
    run_here(make_search(study, tmp_path, more), 11, Silent())
    assert len(more.trained) == 3
    assert len(set(architectures(study))) == 11


def test_the_papers_single_operator_networks_come_first(study, tmp_path):
    proxy = StandIn()
    run_here(make_search(study, tmp_path, proxy), 6, Silent())
    # msar and ab-plus are not in the space
    assert proxy.trained[:4] == [
        Architecture.of("resnet20", c) for c in ("vanilla", "scconv", "psconv", "ab")
    ]
    assert [trial.user_attrs.get("baseline") for trial in finished(study)][:5] == [
        "vanilla",
        "scconv",
        "psconv",
        "ab",
        None,
    ]


def test_nothing_over_budget_is_trained(study, tmp_path):
    space = SearchSpace.parse(SPACE, "tiny")
    costs = sorted(a.cost().macs for a in all_architectures(space))
    budget = Budget(macs=costs[len(costs) // 3])
    within = sum(cost <= budget.macs for cost in costs)
    proxy = StandIn()
    assert run_here(make_search(study, tmp_path, proxy, budget=budget, strategy="tpe"), within, Silent())
    assert all(budget.allows(vars(a.cost())) for a in proxy.trained)
    assert len(set(proxy.trained)) == within, "and everything within it can be reached"
    moved = [trial for trial in finished(study) if "proposed" in trial.user_attrs]
    assert moved, "what had been proposed is kept beside what was trained"
    assert all(trial.user_attrs["proposed"] != trial.user_attrs["architecture"] for trial in moved)


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_an_exhausted_space_ends_the_search(study, tmp_path, strategy):
    space = SearchSpace.parse(SPACE.replace("[vanilla, scconv, psconv]", "[vanilla, psconv]"), "tiny")
    proxy = StandIn()
    assert not run_here(make_search(study, tmp_path, proxy, space=space, strategy=strategy), 1000, Silent())
    assert set(proxy.trained) == set(all_architectures(space))
    assert len(proxy.trained) == space.count() == 64


def test_a_budget_that_admits_one_architecture_ends_with_it(study, tmp_path):
    space = SearchSpace.parse(SPACE, "tiny")
    least = min(all_architectures(space), key=lambda a: a.cost().macs)
    proxy = StandIn()
    assert not run_here(
        make_search(study, tmp_path, proxy, budget=Budget(macs=least.cost().macs)), 5, Silent()
    )
    assert proxy.trained == [least]


def test_an_impossible_budget_is_refused_and_names_the_least_cost(study, tmp_path):
    with pytest.raises(InputError, match="below the least possible cost"):
        run_here(make_search(study, tmp_path, StandIn(), budget=Budget(macs=1000)), 5, Silent())
    assert study.get_trials() == []


def test_an_enqueued_duplicate_is_answered_from_cache(study, tmp_path):
    run_here(make_search(study, tmp_path, StandIn()), 5, Silent())
    first = finished(study)[0]
    study.enqueue_trial(first.params)
    proxy = StandIn()
    run_here(make_search(study, tmp_path, proxy), 6, Silent())
    cached = study.get_trials()[5]
    assert cached.user_attrs["replayed_from"] == first.number
    assert cached.value == first.value
    assert cached.intermediate_values == first.intermediate_values
    assert len(proxy.trained) == 1, "the cached trial does not count as trained"


def test_an_enqueued_trial_over_budget_fails_without_training(study, tmp_path):
    space = SearchSpace.parse(SPACE, "tiny")
    dear = max(all_architectures(space), key=lambda a: a.cost().macs)
    study.enqueue_trial(space.encode(dear))
    proxy = StandIn()
    run_here(make_search(study, tmp_path, proxy, budget=Budget(macs=dear.cost().macs - 1)), 3, Silent())
    assert dear not in proxy.trained
    assert study.get_trials()[0].user_attrs["failure"] == "over-budget"


def test_an_enqueued_choice_that_is_not_in_the_space_stops_the_search_once(study, tmp_path):
    space = SearchSpace.parse(SPACE, "tiny")
    study.enqueue_trial(dict.fromkeys(space.options(), "dynconv"))
    with pytest.raises(StopSearch, match="an enqueued trial cannot be run"):
        run_here(make_search(study, tmp_path, StandIn()), 3, Silent())
    run_here(make_search(study, tmp_path, StandIn()), 3, Silent())
    assert len(finished(study)) == 3


def with_scconv(architecture):
    return any(c.convolution.name == "scconv" for c in architecture.choices)


def test_a_diverged_training_is_recorded_and_not_retried(study, tmp_path):
    def verdict(architecture):
        return (
            Failure("diverged", "no") if with_scconv(architecture) and len(proxy.trained) % 3 == 0 else None
        )

    proxy = StandIn(verdict)
    run_here(make_search(study, tmp_path, proxy), 12, Silent())
    failed = [t for t in study.get_trials() if t.state == TrialState.FAIL]
    assert failed
    assert {t.user_attrs["failure"] for t in failed} == {"diverged"}
    assert len(set(proxy.trained)) == len(proxy.trained)
    assert len(finished(study)) == 12


def test_out_of_memory_is_retried_once_with_micro_batches(study, tmp_path):
    class Small(StandIn):
        def steps(self, architecture, start=None, parts=1):
            tried.append((str(architecture), parts))
            hopeless = architecture == Architecture.of("resnet20", "psconv")
            if with_scconv(architecture) and (parts == 1 or hopeless):
                return iter([Failure("out-of-memory", "no")])
            if hopeless:
                return iter([Failure("out-of-memory", "no")])
            return super().steps(architecture, start, parts)

    tried = []
    run_here(make_search(study, tmp_path, Small()), 12, Silent())
    assert len(finished(study)) == 12
    halved = [t for t in finished(study) if with_scconv(Architecture.parse(t.user_attrs["architecture"]))]
    assert halved
    assert {t.user_attrs["parts"] for t in halved} == {2}
    assert len(set(tried)) == len(tried), "neither is repeated"
    assert all((name, 1) in tried for name, parts in tried if parts == 2)
    hopeless = str(Architecture.of("resnet20", "psconv"))
    assert [parts for name, parts in tried if name == hopeless] == [1, 2]
    assert hopeless not in architectures(study)


def test_three_errors_in_a_row_stop_the_search_with_the_first_traceback(study, tmp_path):
    proxy = StandIn(lambda _: Failure("error", "boom", f"traceback {len(proxy.trained)}"))
    with pytest.raises(StopSearch, match="traceback 1"):
        run_here(make_search(study, tmp_path, proxy), 5, Silent())
    assert len(proxy.trained) == 3
    assert [t.user_attrs["traceback"] for t in study.get_trials()] == [
        "traceback 1",
        "traceback 2",
        "traceback 3",
    ]


def test_ten_failures_in_a_row_stop_the_search(study, tmp_path):
    proxy = StandIn(lambda _: Failure("diverged", "the loss is nan"))
    with pytest.raises(StopSearch, match="10 trials in a row failed, the last: the loss is nan"):
        run_here(make_search(study, tmp_path, proxy), 5, Silent())


class Interrupted(StandIn):
    """Proxy that is interrupted in the second epoch of the fourth training."""

    def steps(self, architecture, start=None, parts=1):
        steps = super().steps(architecture, start, parts)
        yield next(steps)
        if len(self.trained) == 4:
            raise KeyboardInterrupt
        yield from steps


def test_an_interruption_costs_the_epoch_that_was_not_reported(study, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_here(make_search(study, tmp_path, Interrupted()), 6, Silent())
    assert [t.user_attrs.get("failure") for t in study.get_trials()] == [None, None, None, "interrupted"]
    proxy = StandIn()
    run_here(make_search(study, tmp_path, proxy), 6, Silent())
    assert len(finished(study)) == 6
    ab = Architecture.of("resnet20", "ab")
    assert proxy.resumed == [ab]
    assert proxy.passed[:2] == [(ab, 2), (ab, 3)]
    again = study.get_trials()[4]
    assert again.user_attrs["continues"] == 3
    assert again.user_attrs["baseline"] == "ab"
    assert list(again.intermediate_values) == [1, 2, 3]
    assert not list((tmp_path / "checkpoints").iterdir()), "no checkpoint outlives its training"


def kill_in_training(study, folder):
    """Leave a study as a search that is killed in the second epoch of its first trial."""
    search = make_search(study, folder, StandIn())
    search.begin(5, Silent())
    job = search.next_job()
    search.report(job.number, next(train(search.proxy, job, search.checkpoints)))
    return job


def test_the_training_of_a_killed_process_is_resumed(study, tmp_path):
    job = kill_in_training(study, tmp_path)
    proxy = StandIn()
    run_here(make_search(study, tmp_path, proxy), 5, Silent())
    dead, again = study.get_trials()[:2]
    assert (dead.state, dead.user_attrs["failure"]) == (TrialState.FAIL, "lost")
    assert again.user_attrs["continues"] == dead.number
    assert again.user_attrs["attempt"] == 2
    assert proxy.resumed == [job.architecture]
    assert len(finished(study)) == 5


def test_an_architecture_that_kills_its_worker_again_and_again_is_abandoned(study, tmp_path):
    jobs = [kill_in_training(study, tmp_path) for _ in range(4)]
    assert len({job.architecture for job in jobs}) == 1
    proxy = StandIn()
    run_here(make_search(study, tmp_path, proxy), 5, Silent())
    kinds = [trial.user_attrs.get("failure") for trial in study.get_trials()]
    assert kinds == ["lost"] * 3 + ["abandoned"] + [None] * 5
    assert jobs[0].architecture not in proxy.trained + proxy.resumed


def test_pruned_trials_are_trained_trials(study, tmp_path):
    run_here(make_search(study, tmp_path, StandIn(epochs=6), pruner="median"), 25, Silent())
    states = [trial.state for trial in finished(study)]
    assert len(states) == 25
    assert TrialState.PRUNED in states
    pruned = next(trial for trial in finished(study) if trial.state == TrialState.PRUNED)
    assert 1 <= len(pruned.intermediate_values) < 6


def test_a_trial_has_all_attributes(study, tmp_path):
    run_here(make_search(study, tmp_path, StandIn()), 1, Silent())
    trial = study.get_trials()[0]
    architecture = Architecture.parse(trial.user_attrs["architecture"])
    assert trial.user_attrs["macs"] == architecture.cost().macs
    assert trial.user_attrs["params"] == architecture.cost().params
    assert {"fidelity", "seed", "seconds", "device", "versions"} <= trial.user_attrs.keys()
    assert trial.params == make_search(study, tmp_path, StandIn()).space.encode(architecture)
    assert list(trial.intermediate_values) == [1, 2, 3]


def test_proposals_follow_from_the_seed_even_across_an_interruption(tmp_path):
    def trained(name, targets):
        storage = f"sqlite:///{tmp_path}/{name}.db"
        study = optuna.create_study(storage=storage, direction="maximize")
        proxies = []
        for target in targets:
            proxies.append(StandIn())
            run_here(make_search(study, tmp_path, proxies[-1]), target, Silent())
        return [architecture for proxy in proxies for architecture in proxy.trained]

    assert trained("whole", [14]) == trained("parts", [5, 9, 14])
