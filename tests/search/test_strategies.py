"""Conformance of all search strategies, and the behaviour of each."""

import itertools
import logging

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from scipy.stats import spearmanr
from stand_in import SPACE, formula

from nas_recalib.costs import Budget, Feasible
from nas_recalib.search.samplers import (
    STRATEGIES,
)
from nas_recalib.search.samplers.base import (
    Observation,
    SearchState,
    StrategySampler,
    mutants,
    neighbours,
    uniform,
)
from nas_recalib.search.samplers.evolution import evolution, local
from nas_recalib.search.samplers.oneshot import one_shot
from nas_recalib.search.samplers.optuna_based import gp, nsga2, tpe
from nas_recalib.search.samplers.predictor import predictor
from nas_recalib.space import SearchSpace
from nas_recalib.study.regression import _gram

TINY = SearchSpace.parse(SPACE, "tiny")
BLOCKS = SearchSpace.parse(SPACE.replace("stage", "block"), "blocks")  # 9 blocks of 6 choices
SMALL = {  # with few uniform draws at the start
    "tpe": tpe,
    "random": lambda: uniform,
    "gp": gp,
    "nsga2": lambda: nsga2(population=6),
    "evolution": lambda: evolution(population=6, sample=3),
    "local": lambda: local(start=6),
    "predictor": lambda: predictor(start=6),
    "oneshot": one_shot,  # without scores; with them below
}
every_strategy = pytest.mark.parametrize("name", list(SMALL))


def value(space, indices):
    return formula(space.from_indices(indices))


class Run:
    """A search by one strategy for an architecture of high value."""

    def __init__(self, strategy, space=TINY, seed=0, budget=None, values=value, directions=("maximize",)):
        self.strategy, self.space, self.seed, self.values = strategy, space, seed, values
        self.feasible = Feasible(space.table, budget or Budget())
        self.study = optuna.create_study(directions=list(directions))
        self.tried = {}
        self.start()

    def start(self):
        """Create the sampler, as a new process does."""
        self.sampler = StrategySampler(self.strategy, self.space, self.feasible, self.tried, self.seed)
        self.study.sampler = self.sampler

    def ask(self):
        trial = self.study.ask(self.sampler.distributions)
        return trial, self.space.indices_of(self.space.decode(trial.params))

    def tell(self, trial, indices):
        assert indices not in self.tried
        self.tried[indices] = self.values(self.space, indices)
        self.study.tell(trial, self.tried[indices])

    def go(self, trials):
        for _ in range(trials):
            self.tell(*self.ask())
        return list(self.tried)


def state(completed, space=TINY, pruned=(), excluded=(), seed=0, budget=None):
    return SearchState(
        space=space,
        feasible=Feasible(space.table, budget or Budget()),
        completed=[
            Observation(number, indices, (score,), (score - 0.1, score))
            for number, (indices, score) in enumerate(completed)
        ],
        pruned=[
            Observation(100 + number, indices, (score,), (score,))
            for number, (indices, score) in enumerate(pruned)
        ],
        running=[],
        excluded={*(indices for indices, _ in (*completed, *pruned)), *excluded},
        random=np.random.default_rng(seed),
        directions=[StudyDirection.MAXIMIZE],
        trials=[],
    )


def around(space, indices):
    return {tuple(one) for one in neighbours(space, indices).tolist()}


def test_all_strategies_are_checked():
    assert SMALL.keys() == STRATEGIES.keys()


@every_strategy
def test_stays_within_the_budget_and_repeats_nothing(name):
    costs = sorted(TINY.table.costs(np.array(list(itertools.product(range(6), repeat=3))))[:, 0])
    budget = Budget(macs=int(costs[60]))
    within = sum(cost <= costs[60] for cost in costs)
    run = Run(SMALL[name](), budget=budget)
    tried = run.go(14 if name == "gp" else within - 5)
    assert all(budget.allows(TINY.table.cost(indices)) for indices in tried)
    assert len(set(tried)) == len(tried)


@every_strategy
def test_the_same_seed_gives_the_same_proposals(name):
    first, again, other = (Run(SMALL[name](), seed=seed).go(13) for seed in (1, 1, 2))
    assert first == again != other


@every_strategy
def test_a_resumed_search_proposes_the_same(name):
    whole = Run(SMALL[name]()).go(14)
    parts = Run(SMALL[name]())
    for trials in (7, 4, 1, 2):
        parts.go(trials)
        parts.start()
    assert list(parts.tried) == whole


@every_strategy
def test_workers_who_ask_at_once_get_different_answers(name):
    run = Run(SMALL[name]())
    run.go(12)
    asked = [run.ask() for _ in range(2 if name == "gp" else 6)]
    assert len({*run.tried, *(indices for _, indices in asked)}) == 12 + len(asked)
    for trial, indices in asked:
        run.tell(trial, indices)
    run.go(1)


@every_strategy
def test_exhausts_a_small_space_with_each_exactly_once(name):
    text = SPACE.replace("[vanilla, scconv, psconv]", "[vanilla, psconv]").replace("[none, ab]", "[none]")
    run = Run(SMALL[name](), SearchSpace.parse(text, "eight"))
    for _ in range(8):
        assert not run.sampler.exhausted()
        run.go(1)
    assert run.sampler.exhausted()
    assert len(run.tried) == 8


@every_strategy
def test_one_convolution_and_one_recalibration_are_a_space_too(name):
    text = SPACE.replace("[vanilla, scconv, psconv]", "[psconv]").replace("[none, ab]", "[ab]")
    run = Run(SMALL[name](), SearchSpace.parse(text, "one"))
    run.go(1)
    assert run.sampler.exhausted()


@pytest.mark.parametrize("name", ["tpe", "evolution", "local", "predictor"])
def test_learns_where_random_does_not(name):
    def best(strategy, seed):
        return max(value(BLOCKS, indices) for indices in Run(strategy, BLOCKS, seed).go(60))

    gains = [best(STRATEGIES[name].make(), seed) - best(uniform, seed) for seed in range(3)]
    assert np.mean(gains) > 0.05, gains


def test_neighbours_differ_in_one_convolution_or_one_recalibration():
    indices = (0, 3, 5)
    found = around(TINY, indices)
    for one in itertools.product(range(6), repeat=3):
        changed = [p for p in range(3) if one[p] != indices[p]]
        apart = [(one[p] // 2 != indices[p] // 2) + (one[p] % 2 != indices[p] % 2) for p in changed]
        assert (one in found) == (apart == [1])
    assert len(found) == 9


def test_mutants_differ_in_one_position_and_reach_all_of_it():
    parents = np.tile([0, 3, 5], (2000, 1))
    children = mutants(TINY, parents, np.random.default_rng(0))
    assert ((children != parents).sum(axis=1) == 1).all()
    assert len(np.unique(children, axis=0)) == 15


class TestEvolution:
    def test_the_oldest_leaves_the_population_however_good_it_is(self):
        completed = [((0, 0, 0), 9.0), ((5, 5, 5), 1.0), ((2, 2, 2), 3.0), ((4, 4, 4), 2.0)]
        strategy = evolution(population=3, sample=3)
        children = {strategy(state(completed, seed=seed)) for seed in range(60)}
        assert children <= around(TINY, (2, 2, 2))
        assert len(children) == 9, "every mutation is possible"

    def test_a_parent_is_the_best_of_a_few(self):
        corners = [(0, 0, 0), (1, 5, 5), (5, 1, 2), (3, 3, 4)]
        completed = [(indices, float(score)) for score, indices in enumerate(corners)]
        strategy = evolution(population=4, sample=2)
        children = [strategy(state(completed, seed=seed)) for seed in range(300)]
        shares = [sum(child in around(TINY, corner) for child in children) / 300 for corner in corners]
        assert shares == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6], abs=0.09)

    def test_begins_with_a_population_of_uniform_draws(self):
        completed = [((0, 0, 0), 1.0), ((1, 1, 1), 2.0)]
        assert evolution(population=3, sample=2)(state(completed)) is None
        assert evolution(population=2, sample=2)(state(completed)) is not None

    def test_mutations_of_something_at_the_limit_are_moved_within(self):
        edge = (5, 5, 5)
        budget = Budget(macs=TINY.table.cost((3, 5, 5))["macs"])
        feasible = Feasible(TINY.table, budget)
        completed = [(feasible.repair(edge, np.random.default_rng(0)), 1.0)]
        strategy = evolution(population=1, sample=1)
        children = [strategy(state(completed, seed=seed, budget=budget)) for seed in range(40)]
        assert all(feasible.allows(child) for child in children)
        assert completed[0][0] not in children

    @pytest.mark.parametrize("sample", [0, 4])
    def test_refuses_a_sample_that_is_not_of_the_population(self, sample):
        with pytest.raises(ValueError, match=f"sample: {sample} is not from 1 to the population of 3"):
            evolution(population=3, sample=sample)


class TestLocal:
    def test_tries_all_neighbours_of_the_best_before_it_restarts(self):
        start = (5, 5, 5)
        completed = [(start, 9.0)]
        strategy = local(start=1)
        for number in range(9):
            completed.append((strategy(state(completed, seed=number)), -float(number)))
        assert {indices for indices, _ in completed[1:]} == around(TINY, start)
        assert strategy(state(completed)) is None, "a uniform draw"

    def test_moves_on_to_what_is_better(self):
        completed = [((0, 0, 0), 1.0), ((0, 0, 1), 2.0), ((0, 0, 2), 0.0)]
        for seed in range(20):
            assert local(start=1)(state(completed, seed=seed)) in around(TINY, (0, 0, 1))

    def test_restarts_from_the_best_that_is_not_a_neighbour_of_a_better_one(self):
        summit, other = (5, 5, 5), (0, 0, 0)
        completed = [
            (summit, 9.0),
            (other, 1.0),
            *((indices, 5.0) for indices in sorted(around(TINY, summit))),
        ]
        assert local(start=1)(state(completed)) in around(TINY, other)

    def test_neighbours_over_the_budget_are_skipped(self):
        dear = max(itertools.product(range(6), repeat=3), key=lambda one: TINY.table.cost(one)["macs"])
        budget = Budget(macs=TINY.table.cost(dear)["macs"] - 1)
        edge = next(one for one in sorted(around(TINY, dear)) if budget.allows(TINY.table.cost(one)))
        completed, strategy = [(edge, 9.0)], local(start=1)
        for number in range(20):
            proposal = strategy(state(completed, seed=number, budget=budget))
            if proposal is None:
                break
            assert proposal != dear
            completed.append((proposal, 0.0))
        assert len(completed) == 1 + sum(budget.allows(TINY.table.cost(one)) for one in around(TINY, edge))


class TestPredictor:
    def test_finds_the_best_of_an_additive_function_in_few_trials(self):
        random = np.random.default_rng(3)
        table = random.normal(size=(9, 6))
        table[:, 4] += 1

        def additive(space, indices):
            return float(table[range(9), indices].sum())

        best = table.max(axis=1).sum()
        for seed in range(2):
            found = [
                additive(BLOCKS, indices)
                for indices in Run(predictor(), BLOCKS, seed, values=additive).go(120)
            ]
            assert max(found) == pytest.approx(best), "of 10,077,696"

    def test_collapsed_trainings_change_little(self):
        def collapsing(space, indices):
            return -1e9 if sum(indices) % 11 == 0 else value(space, indices)

        best = max(value(BLOCKS, one) for one in Run(predictor(), BLOCKS, values=collapsing).go(50))
        assert best > 0.85

    def test_pruned_trials_count_as_poor(self):
        random = np.random.default_rng(0)
        completed = [
            (tuple(indices), 0.5 + 0.01 * random.normal() + 0.02 * (indices[0] == 0))
            for indices in random.integers(6, size=(12, 3)).tolist()
        ]
        pruned = [((first, second, 5), 0.3) for first in range(6) for second in range(3)]
        kept = [(indices, score) for indices, score in completed if indices[2] != 5]

        def share(pruned):
            strategy = predictor(start=2, boldness=2)
            proposals = [strategy(state(kept, pruned=pruned, seed=seed)) for seed in range(40)]
            return np.mean([indices[2] == 5 for indices in proposals])

        assert share(pruned) < 0.5 * share([])

    def test_equal_values_leave_it_to_a_uniform_draw(self):
        same = [(indices, 1.0) for indices in itertools.product(range(2), repeat=3)]
        assert predictor(start=4)(state(same)) is None
        mostly = [(indices, score) for (indices, _), score in zip(same, [1.0] * 6 + [0.1, 0.2], strict=True)]
        assert predictor(start=4)(state(mostly)) is None, "collapsed trainings are clipped"

    def test_the_gram_matrix_is_that_of_the_design_matrix(self):
        random = np.random.default_rng(0)
        columns = np.array([0, 4, 7]) + random.integers((4, 3, 5), size=(30, 3))
        others = random.normal(size=(30, 2))
        design = np.zeros((30, 12))
        design[np.arange(30)[:, None], columns] = 1
        design = np.concatenate([design, others], axis=1)
        assert _gram(columns, 12, others) == pytest.approx(design.T @ design)


class TestOptunaBased:
    def test_gp_falls_back_to_tpe_with_a_warning(self, caplog):
        with caplog.at_level(logging.WARNING, logger="nas_recalib"):
            beyond = Run(gp(most=0)).go(16)
        assert caplog.text.count("gp: fitting more than 0 trials takes too long") == 1
        assert beyond == Run(tpe()).go(16)

    def test_nsga2_spreads_over_the_front_of_two_objectives(self):
        def both(space, indices):
            return value(space, indices), space.table.cost(indices)["params"]

        def volume(strategy, seed):
            tried = Run(strategy, BLOCKS, seed, values=both, directions=("maximize", "minimize")).go(120)
            points = np.array([both(BLOCKS, indices) for indices in tried])
            worst = BLOCKS.table.greatest()["params"]
            accuracies = np.linspace(0, 0.9, 91)
            least = [points[points[:, 0] >= accuracy, 1].min(initial=worst) for accuracy in accuracies]
            return np.mean(1 - np.array(least) / worst)

        assert all(volume(nsga2(), seed) > 1.02 * volume(uniform, seed) for seed in range(2))

    def test_nsga2_crosses_trials_of_other_strategies(self):
        run = Run(uniform, BLOCKS)
        run.go(40)
        best = sorted(run.tried, key=run.tried.get)[-6:]
        run.strategy = nsga2(population=6)
        run.start()
        born = run.go(46)[40:]
        shared = [max(sum(map(int.__eq__, child, one)) for one in best) for child in born]
        assert np.mean(shared) > 5, "of 9 blocks; uniform draws share about 3 with the nearest"

    def test_parameters_that_a_sampler_leaves_out_are_drawn_uniformly(self):
        assert len(Run(nsga2(population=2)).go(30)) == 30


def test_scores_of_supernets_are_proposed_from_the_best_on_within_the_budget():
    random = np.random.default_rng(0)
    effects = [random.standard_normal(6) for _ in TINY.positions]
    everything = list(itertools.product(range(6), repeat=3))

    def true_value(indices):
        return sum(effect[index] for effect, index in zip(effects, indices, strict=True))

    budget = Budget(macs=int(np.median(TINY.table.costs(np.array(everything))[:, 0])))
    run = Run(one_shot(), budget=budget)
    scored = [everything[index] for index in random.permutation(len(everything))[:150]]
    rows = [[list(one), [[0.5, 3 - true_value(one)], [0.4, 5 - true_value(one)]]] for one in scored]
    run.study.set_user_attr("oneshot:0", rows[:100])
    run.study.set_user_attr("oneshot:1", rows[100:])
    within = [one for one in everything if budget.allows(TINY.table.cost(one))]
    proposed = run.go(20)
    assert {*proposed[:5]} <= {*sorted(within, key=true_value)[-8:]}
    values = [true_value(one) for one in proposed]
    assert spearmanr(values, range(20)).statistic < -0.9
