import optuna
import pytest
from optuna.trial import TrialState, create_trial
from stand_in import SPACE, all_architectures

from nas_recalib.costs import Budget, Feasible
from nas_recalib.search.samplers import Observation, StrategySampler, uniform
from nas_recalib.space import SearchSpace


@pytest.fixture
def space():
    return SearchSpace.parse(SPACE, "tiny")


def all_picks(space):
    return [space.indices_of(architecture) for architecture in all_architectures(space)]


def sampler_of(space, strategy, tried, budget=None, seed=0):
    return StrategySampler(strategy, space, Feasible(space.table, budget or Budget()), tried, seed)


def ask(sampler, study):
    study.sampler = sampler
    return study.ask(sampler.distributions)


def indices_of(sampler, trial):
    space = sampler._space
    return space.indices_of(space.decode(trial.params))


def asked(sampler, study=None):
    return indices_of(sampler, ask(sampler, study or optuna.create_study(direction="maximize")))


def test_a_stubborn_strategy_is_led_to_everything_else_once(space):
    every = all_picks(space)
    tried = {every[0]}
    sampler = sampler_of(space, lambda _: every[0], tried)
    study = optuna.create_study(direction="maximize")
    for _ in every[1:]:
        assert not sampler.exhausted()
        indices = asked(sampler, study)
        assert indices not in tried
        tried.add(indices)
    assert sampler.exhausted()


def test_what_went_on_is_as_young_as_its_end(space):
    seen = []
    sampler = sampler_of(space, seen.append, set())
    study = optuna.create_study(direction="maximize")
    early, late = all_picks(space)[:2]
    for indices, state in ((early, "PRUNED"), (late, "COMPLETE"), (early, "COMPLETE")):
        told = {"params": space.indices_to_params(indices), "distributions": sampler.distributions}
        study.add_trial(create_trial(state=TrialState[state], value=0.5, **told))
    sampler.propose(study, 3)
    assert [one.indices for one in seen[0].known] == [late, early]
    assert seen[0].pruned == []


def test_a_proposal_over_budget_is_moved_next_to_it(space):
    dear = max(all_picks(space), key=lambda one: space.table.cost(one)["macs"])
    budget = Budget(macs=space.table.cost(dear)["macs"] - 1)
    sampler = sampler_of(space, lambda _: dear, set(), budget)
    proposed = asked(sampler)
    assert budget.allows(space.table.cost(proposed))
    assert sum(a != b for a, b in zip(proposed, dear, strict=True)) == 1


def test_what_was_proposed_is_kept_where_something_else_is_trained(space):
    dear, cheap = (
        choose(all_picks(space), key=lambda a: space.table.cost(a)["macs"]) for choose in (max, min)
    )
    budget = Budget(macs=space.table.cost(dear)["macs"] - 1)
    for proposal, told in ((dear, dear), (cheap, None), (None, None)):
        sampler = sampler_of(space, lambda _, p=proposal: p, set(), budget)
        assert sampler.propose(optuna.create_study(), 0).proposed == told


def test_a_strategy_is_told_what_the_study_holds(space):
    situations = []
    sampler = sampler_of(space, situations.append, set())
    study = optuna.create_study(directions=["maximize", "minimize"])
    trials = [ask(sampler, study) for _ in range(5)]
    indices = [indices_of(sampler, trial) for trial in trials]
    trials[0].set_user_attr("replayed_from", 7)
    study.tell(trials[0], (0.1, 10))
    study.tell(trials[2], (0.3, 30))
    trials[1].set_user_attr("curve", [0.1, 0.2])
    study.tell(trials[1], (0.2, 20))
    study.tell(trials[3], state=TrialState.FAIL)
    ask(sampler, study)
    now = situations[-1]
    assert now.known == [
        Observation(2, indices[2], (0.3, -30)),
        Observation(1, indices[1], (0.2, -20), (0.1, 0.2)),
    ], "in order of ending"
    assert now.pruned == []
    assert now.running == [indices[4]]
    assert indices[4] in now.tried


def test_what_was_left_is_told_until_it_has_gone_on(space):
    situations = []
    sampler = sampler_of(space, situations.append, set())
    study = optuna.create_study(direction="maximize")
    left = ask(sampler, study)
    left.report(0.3, 1)
    study.tell(left, state=TrialState.PRUNED)
    sampler.propose(study, 1)
    indices = indices_of(sampler, left)
    assert situations[-1].pruned == [Observation(0, indices, (0.3,), (0.3,))]
    study.enqueue_trial(left.params)
    on = ask(sampler, study)
    on.report(0.5, 2)
    study.tell(on, 0.5)
    sampler.propose(study, 2)
    assert situations[-1].pruned == []
    assert situations[-1].known == [Observation(1, indices, (0.5,), (0.5,))]


def test_in_the_place_of_a_known_architecture_comes_the_nearest_that_is_not(space):
    every = all_picks(space)
    centre = every[0]
    distance = {one: sum(a != b for a, b in zip(one, centre, strict=True)) for one in every}
    for far in (1, 2, 3):
        tried = {one for one in every if distance[one] < far}
        found = {distance[asked(sampler_of(space, lambda _: centre, tried, seed=seed))] for seed in range(8)}
        assert found == {far}


def test_what_another_worker_trains_is_not_proposed(space):
    study = optuna.create_study(direction="maximize")
    first = all_picks(space)[0]
    proposals = [asked(sampler_of(space, lambda _: first, set()), study) for _ in range(6)]
    assert proposals[0] == first
    assert len(set(proposals)) == 6


def test_draws_follow_from_seed_and_trial_number(space):
    def proposals(seed):
        sampler = sampler_of(space, uniform, set(), seed=seed)
        study = optuna.create_study(direction="maximize")
        return [asked(sampler, study) for _ in range(5)]

    assert proposals(1) == proposals(1)
    assert proposals(1) != proposals(2)
