import optuna
import pytest
from optuna.trial import TrialState
from stand_in import SPACE, Silent, StandIn, all_architectures, make_search

from nas_recalib.architecture import Architecture
from nas_recalib.costs import Budget
from nas_recalib.errors import InputError, StopSearch
from nas_recalib.proxy.objective import Failure
from nas_recalib.search.baselines import single_operator
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import finished


@pytest.fixture
def study(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="s", direction="maximize")


def architectures(study):
    return [trial.user_attrs["architecture"] for trial in finished(study)]


def test_ends_with_as_many_trained_trials_as_asked_all_different(study, tmp_path):
    proxy = StandIn()
    assert make_search(study, tmp_path, proxy).run(12, Silent())
    assert len(finished(study)) == len(proxy.trained) == 12
    assert len(set(architectures(study))) == 12


def test_running_again_trains_nothing_more_and_a_higher_goal_only_the_rest(study, tmp_path):
    make_search(study, tmp_path, StandIn()).run(8, Silent())
    again = StandIn()
    make_search(study, tmp_path, again).run(8, Silent())
    assert again.trained == []
    more = StandIn()
    make_search(study, tmp_path, more).run(11, Silent())
    assert len(more.trained) == 3
    assert len(set(architectures(study))) == 11


def test_the_papers_single_operator_networks_come_first(study, tmp_path):
    proxy = StandIn()
    make_search(study, tmp_path, proxy).run(6, Silent())
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
    assert make_search(study, tmp_path, proxy, budget=budget, strategy="tpe").run(within, Silent())
    assert all(budget.allows(vars(a.cost())) for a in proxy.trained)
    assert len(set(proxy.trained)) == within, "and everything within it can be reached"
    moved = [trial for trial in finished(study) if "proposed" in trial.user_attrs]
    assert moved, "what had been proposed is kept beside what was trained"
    assert all(trial.user_attrs["proposed"] != trial.user_attrs["architecture"] for trial in moved)


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_an_exhausted_space_ends_the_search(study, tmp_path, strategy):
    space = SearchSpace.parse(SPACE.replace("[vanilla, scconv, psconv]", "[vanilla, psconv]"), "tiny")
    proxy = StandIn()
    assert not make_search(study, tmp_path, proxy, space=space, strategy=strategy).run(1000, Silent())
    assert set(proxy.trained) == set(all_architectures(space))
    assert len(proxy.trained) == space.count() == 64


def test_a_budget_that_admits_one_architecture_ends_with_it(study, tmp_path):
    space = SearchSpace.parse(SPACE, "tiny")
    least = min(all_architectures(space), key=lambda a: a.cost().macs)
    proxy = StandIn()
    assert not make_search(study, tmp_path, proxy, budget=Budget(macs=least.cost().macs)).run(5, Silent())
    assert proxy.trained == [least]


def test_an_impossible_budget_is_refused_and_names_the_least_cost(study, tmp_path):
    with pytest.raises(InputError, match="below the least possible cost"):
        make_search(study, tmp_path, StandIn(), budget=Budget(macs=1000)).run(5, Silent())
    assert study.get_trials() == []


def test_a_duplicate_by_hand_is_answered_from_what_is_known(study, tmp_path):
    make_search(study, tmp_path, StandIn()).run(5, Silent())
    first = finished(study)[0]
    study.enqueue_trial(first.params)
    proxy = StandIn()
    make_search(study, tmp_path, proxy).run(6, Silent())
    replay = study.get_trials()[5]
    assert replay.user_attrs["replayed_from"] == first.number
    assert replay.value == first.value
    assert replay.intermediate_values == first.intermediate_values
    assert len(proxy.trained) == 1, "the replay does not count as trained"


def test_over_budget_by_hand_fails_without_training(study, tmp_path):
    space = SearchSpace.parse(SPACE, "tiny")
    dear = max(all_architectures(space), key=lambda a: a.cost().macs)
    study.enqueue_trial(space.encode(dear))
    proxy = StandIn()
    make_search(study, tmp_path, proxy, budget=Budget(macs=dear.cost().macs - 1)).run(3, Silent())
    assert dear not in proxy.trained
    assert study.get_trials()[0].user_attrs["failure"] == "over-budget"


def test_a_choice_by_hand_that_the_space_does_not_have_stops_once_and_is_dropped(study, tmp_path):
    space = SearchSpace.parse(SPACE, "tiny")
    study.enqueue_trial(dict.fromkeys(space.options(), "dynconv"))
    with pytest.raises(StopSearch, match="a waiting trial cannot be run"):
        make_search(study, tmp_path, StandIn()).run(3, Silent())
    make_search(study, tmp_path, StandIn()).run(3, Silent())
    assert len(finished(study)) == 3


@pytest.mark.parametrize("kind", ["out-of-memory", "diverged"])
def test_a_failing_architecture_is_recorded_and_not_tried_again(study, tmp_path, kind):
    def verdict(architecture):
        has_scconv = any(c.convolution.name == "scconv" for c in architecture.choices)
        return Failure(kind, "no") if has_scconv and len(proxy.trained) % 3 == 0 else None

    proxy = StandIn(verdict)
    make_search(study, tmp_path, proxy).run(12, Silent())
    failed = [t for t in study.get_trials() if t.state == TrialState.FAIL]
    assert failed
    assert {t.user_attrs["failure"] for t in failed} == {kind}
    assert len(set(proxy.trained)) == len(proxy.trained)
    assert len(finished(study)) == 12


def test_three_errors_in_a_row_stop_the_search_with_the_first_traceback(study, tmp_path):
    proxy = StandIn(lambda _: Failure("error", "boom", f"traceback {len(proxy.trained)}"))
    with pytest.raises(StopSearch, match="traceback 1"):
        make_search(study, tmp_path, proxy).run(5, Silent())
    assert len(proxy.trained) == 3
    assert len(list((tmp_path / "trials").iterdir())) == 3


def test_ten_failures_in_a_row_stop_the_search(study, tmp_path):
    proxy = StandIn(lambda _: Failure("diverged", "the loss is nan"))
    with pytest.raises(StopSearch, match="10 trials in a row failed, the last: the loss is nan"):
        make_search(study, tmp_path, proxy).run(5, Silent())


def test_an_interruption_loses_the_running_trial_alone(study, tmp_path):
    class Interrupted(StandIn):
        def train(self, architecture, report, **given):
            if len(self.trained) == 3:
                report_one = super().train(architecture, lambda _: True)
                assert len(report_one) == 1
                raise KeyboardInterrupt
            return super().train(architecture, report, **given)

    with pytest.raises(KeyboardInterrupt):
        make_search(study, tmp_path, Interrupted()).run(6, Silent())
    assert [t.user_attrs.get("failure") for t in study.get_trials()[:5]] == [
        None,
        None,
        None,
        "interrupted",
    ] + [None] * (len(study.get_trials()[:5]) - 4)
    proxy = StandIn()
    make_search(study, tmp_path, proxy).run(6, Silent())
    assert len(finished(study)) == 6
    assert proxy.trained[0] == Architecture.of("resnet20", "ab"), "the interrupted baseline is tried again"


def test_a_dead_process_running_trial_is_failed_and_its_architecture_free_again(study, tmp_path):
    search = make_search(study, tmp_path, StandIn())
    space = search.space
    study.enqueue_trial(space.encode(single_operator(space, "ab")))
    study.ask({name: optuna.distributions.CategoricalDistribution(v) for name, v in space.options().items()})
    proxy = StandIn()
    make_search(study, tmp_path, proxy).run(5, Silent())
    dead = study.get_trials()[0]
    assert dead.state == TrialState.FAIL
    assert dead.user_attrs["failure"] == "interrupted"
    assert single_operator(space, "ab") in proxy.trained


def test_on_shared_storage_another_machines_running_trial_is_left_alone(study, tmp_path):
    running = study.ask()
    running.set_user_attr("worker", "elsewhere")
    make_search(study, tmp_path, StandIn(), owned=False).run(3, Silent())
    assert study.get_trials()[0].state == TrialState.RUNNING


def test_pruned_trials_are_trained_trials(study, tmp_path):
    make_search(study, tmp_path, StandIn(epochs=6), pruner="median").run(25, Silent())
    states = [trial.state for trial in finished(study)]
    assert len(states) == 25
    assert TrialState.PRUNED in states
    pruned = next(trial for trial in finished(study) if trial.state == TrialState.PRUNED)
    assert 1 <= len(pruned.intermediate_values) < 6


def test_a_trial_says_what_it_was(study, tmp_path):
    make_search(study, tmp_path, StandIn()).run(1, Silent())
    trial = study.get_trials()[0]
    architecture = Architecture.parse(trial.user_attrs["architecture"])
    assert trial.user_attrs["macs"] == architecture.cost().macs
    assert trial.user_attrs["params"] == architecture.cost().params
    assert {"fidelity", "seed", "seconds", "device", "versions"} <= trial.user_attrs.keys()
    assert trial.params == make_search(study, tmp_path, StandIn()).space.encode(architecture)
    assert list(trial.intermediate_values) == [1, 2, 3]


def test_proposals_follow_from_the_seed_even_across_an_interruption(tmp_path):
    def trained(name, goals):
        storage = f"sqlite:///{tmp_path}/{name}.db"
        study = optuna.create_study(storage=storage, direction="maximize")
        proxies = []
        for goal in goals:
            proxies.append(StandIn())
            make_search(study, tmp_path, proxies[-1]).run(goal, Silent())
        return [architecture for proxy in proxies for architecture in proxy.trained]

    assert trained("whole", [14]) == trained("parts", [5, 9, 14])
