"""The sampler respects the budget, proposes nothing twice and draws the same from the same seed."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from stand_in import SPACE, all_architectures

from nas_recalib.costs import Budget, Feasible
from nas_recalib.search.samplers.base import Observation, StrategySampler, uniform
from nas_recalib.space import SearchSpace


@pytest.fixture
def space():
    return SearchSpace.parse(SPACE, "tiny")


def all_indices(space):
    return [space.indices_of(architecture) for architecture in all_architectures(space)]


def sampler_of(space, strategy, excluded, budget=None, seed=0):
    return StrategySampler(strategy, space, Feasible(space.table, budget or Budget()), excluded, seed)


def ask(sampler, study):
    study.sampler = sampler
    return study.ask(sampler.distributions)


def indices_of(sampler, trial):
    space = sampler.space
    return space.indices_of(space.decode(trial.params))


def asked(sampler, study=None):
    return indices_of(sampler, ask(sampler, study or optuna.create_study(direction="maximize")))


def test_a_strategy_that_repeats_itself_gets_every_other_architecture_once(space):
    every = all_indices(space)
    excluded = {every[0]}
    sampler = sampler_of(space, lambda _: every[0], excluded)
    study = optuna.create_study(direction="maximize")
    for _ in every[1:]:
        assert not sampler.exhausted()
        indices = asked(sampler, study)
        assert indices not in excluded
        excluded.add(indices)
    assert sampler.exhausted()


def test_a_resumed_training_replaces_its_paused_observation(space):
    seen = []
    sampler = sampler_of(space, seen.append, set())
    study = optuna.create_study(direction="maximize")
    early, late = all_indices(space)[:2]
    for indices, state in ((early, "PRUNED"), (late, "COMPLETE"), (early, "COMPLETE")):
        encoded = {"params": space.indices_to_params(indices), "distributions": sampler.distributions}
        study.add_trial(create_trial(state=TrialState[state], value=0.5, **encoded))
    sampler.propose(study, 3)
    assert [one.indices for one in seen[0].completed] == [late, early]
    assert seen[0].pruned == []


def test_a_proposal_over_budget_is_moved_to_a_neighbour_within_it(space):
    dear = max(all_indices(space), key=lambda one: space.table.cost(one)["macs"])
    budget = Budget(macs=space.table.cost(dear)["macs"] - 1)
    sampler = sampler_of(space, lambda _: dear, set(), budget)
    proposed = asked(sampler)
    assert budget.allows(space.table.cost(proposed))
    assert sum(a != b for a, b in zip(proposed, dear, strict=True)) == 1


def test_a_proposal_is_stored_where_another_architecture_is_trained(space):
    dear, cheap = (
        choose(all_indices(space), key=lambda a: space.table.cost(a)["macs"]) for choose in (max, min)
    )
    budget = Budget(macs=space.table.cost(dear)["macs"] - 1)
    for proposal, stored in ((dear, dear), (cheap, None), (None, None)):
        sampler = sampler_of(space, lambda _, p=proposal: p, set(), budget)
        assert sampler.propose(optuna.create_study(), 0).proposed == stored


def test_the_search_state_holds_the_trials_of_the_study(space):
    search_states = []
    sampler = sampler_of(space, search_states.append, set())
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
    state = search_states[-1]
    assert state.completed == [
        Observation(2, indices[2], (0.3, -30)),
        Observation(1, indices[1], (0.2, -20), (0.1, 0.2)),
    ], "in the order in which they finished"
    assert state.pruned == []
    assert state.running == [indices[4]]
    assert indices[4] in state.excluded


def test_a_paused_trial_is_an_observation_until_it_is_resumed(space):
    search_states = []
    sampler = sampler_of(space, search_states.append, set())
    study = optuna.create_study(direction="maximize")
    paused = ask(sampler, study)
    paused.report(0.3, 1)
    study.tell(paused, state=TrialState.PRUNED)
    sampler.propose(study, 1)
    indices = indices_of(sampler, paused)
    assert search_states[-1].pruned == [Observation(0, indices, (0.3,), (0.3,))]
    study.enqueue_trial(paused.params)
    resumed = ask(sampler, study)
    resumed.report(0.5, 2)
    study.tell(resumed, 0.5)
    sampler.propose(study, 2)
    assert search_states[-1].pruned == []
    assert search_states[-1].completed == [Observation(1, indices, (0.5,), (0.5,))]


def test_an_excluded_architecture_is_replaced_by_the_nearest_that_is_not(space):
    every = all_indices(space)
    centre = every[0]
    distance = {one: sum(a != b for a, b in zip(one, centre, strict=True)) for one in every}
    for far in (1, 2, 3):
        excluded = {one for one in every if distance[one] < far}
        samplers = [sampler_of(space, lambda _: centre, excluded, seed=seed) for seed in range(8)]
        found = {distance[asked(sampler)] for sampler in samplers}
        assert found == {far}


def test_an_architecture_in_progress_elsewhere_is_not_proposed(space):
    study = optuna.create_study(direction="maximize")
    first = all_indices(space)[0]
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
