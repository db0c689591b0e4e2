import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from stand_in import SPACE, all_architectures, formula

from nas_recalib.costs import Budget, Feasible
from nas_recalib.search.samplers import STRATEGIES, UntriedSampler
from nas_recalib.space import SearchSpace


class Stubborn(BaseSampler):
    """Proposes the same architecture for ever."""

    def __init__(self, parameters):
        self.parameters = parameters

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return self.parameters

    def sample_independent(self, study, trial, param_name, param_distribution):
        raise AssertionError


@pytest.fixture
def space():
    return SearchSpace.parse(SPACE, "tiny")


def sampler_of(space, strategy, tried, budget=None, seed=0):
    return UntriedSampler(strategy, space, Feasible(space.table, budget or Budget()), tried, seed)


def ask(sampler, study=None):
    study = study or optuna.create_study(direction="maximize")
    study.sampler = sampler
    return study.ask(sampler.distributions)


def test_a_stubborn_strategy_is_led_to_everything_else_once(space):
    every = all_architectures(space)
    tried = {every[0]}
    sampler = sampler_of(space, lambda _: Stubborn(space.encode(every[0])), tried)
    study = optuna.create_study(direction="maximize")
    for _ in every[1:]:
        architecture = space.decode(ask(sampler, study).params)
        assert architecture not in tried
        tried.add(architecture)
    assert sampler.exhausted()


def test_a_proposal_over_budget_is_moved_next_to_it(space):
    every = all_architectures(space)
    dear = max(every, key=lambda a: a.cost().macs)
    budget = Budget(macs=dear.cost().macs - 1)
    sampler = sampler_of(space, lambda _: Stubborn(space.encode(dear)), set(), budget)
    proposed = space.decode(ask(sampler).params)
    assert budget.allows(vars(proposed.cost()))
    assert sum(a != b for a, b in zip(space.picks(proposed), space.picks(dear), strict=True)) == 1


def test_what_was_proposed_is_kept_where_something_else_is_trained(space):
    every = all_architectures(space)
    dear, cheap = (choose(every, key=lambda a: a.cost().macs) for choose in (max, min))
    budget = Budget(macs=dear.cost().macs - 1)
    for proposal, told in ((dear, {0: space.picks(dear)}), (cheap, {})):
        sampler = sampler_of(space, lambda _, p=proposal: Stubborn(space.encode(p)), set(), budget)
        ask(sampler)
        assert sampler.proposed == told


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_stays_within_the_budget_and_repeats_nothing(space, name):
    costs = sorted(a.cost().macs for a in all_architectures(space))
    budget = Budget(macs=costs[40])
    tried = set()
    sampler = sampler_of(space, STRATEGIES[name], tried, budget)
    study = optuna.create_study(direction="maximize")
    for _ in range(30):
        trial = ask(sampler, study)
        architecture = space.decode(trial.params)
        assert budget.allows(vars(architecture.cost()))
        assert architecture not in tried
        tried.add(architecture)
        study.tell(trial, formula(architecture))


def test_tpe_learns_where_random_does_not():
    space = SearchSpace.parse(SPACE.replace("stage", "block"), "blocks")

    def best_of_last(name, seed):
        tried = set()
        sampler = sampler_of(space, STRATEGIES[name], tried, seed=seed)
        study = optuna.create_study(direction="maximize")
        values = []
        for _ in range(60):
            trial = ask(sampler, study)
            architecture = space.decode(trial.params)
            tried.add(architecture)
            values.append(formula(architecture))
            study.tell(trial, values[-1])
        return np.mean(values[-15:])

    gains = [best_of_last("tpe", seed) - best_of_last("random", seed) for seed in range(3)]
    assert min(gains) > 0.05, gains


def test_draws_follow_from_seed_and_trial_number(space):
    def proposals(seed):
        sampler = sampler_of(space, STRATEGIES["random"], set(), seed=seed)
        study = optuna.create_study(direction="maximize")
        return [ask(sampler, study).params for _ in range(5)]

    assert proposals(1) == proposals(1)
    assert proposals(1) != proposals(2)
