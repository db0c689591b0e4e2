"""The additive model: compared with dense linear algebra, its intervals, and which trials lead."""

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_recalib.operators import BlockChoice
from nas_recalib.search.samplers.base import distributions
from nas_recalib.space import SearchSpace
from nas_recalib.study.regression import AdditiveModel, fit_trials, options_of

CHOICES = tuple(BlockChoice.parse(text) for text in ("vanilla", "scconv", "psconv", "vanilla+ab"))
OPTIONS = tuple((f"layer{stage}.{block}", CHOICES) for stage in (1, 2) for block in (0, 1))


def drawn(count, seed, noise, options=OPTIONS):
    random = np.random.default_rng(seed)
    effects = [random.standard_normal(len(allowed)) for _, allowed in options]
    indices = [tuple(int(random.integers(len(allowed))) for _, allowed in options) for _ in range(count)]
    values = [0.7 + 0.01 * sum(e[i] for e, i in zip(effects, one, strict=True)) for one in indices]
    return indices, np.array(values), values + noise * random.standard_normal(count)


@given(st.integers(0, 1000), st.integers(5, 40))
def test_predictions_are_those_of_dense_linear_algebra(seed, count):
    """The posterior of a linear model with the prior and noise of the model, by its textbook formula."""
    indices, _, observed = drawn(count, seed, 0.005)
    model = AdditiveModel.fit(OPTIONS, indices, observed)
    mean, deviation = model.predict(indices)
    design = np.zeros((count, 16))
    for row, one in zip(design, indices, strict=True):
        row[[4 * position + choice for position, choice in enumerate(one)]] = 1
    covariance = np.linalg.inv(model.root @ model.root.T)
    expected = design @ np.concatenate(model.mean())
    assert mean == pytest.approx(model.center + model.scale * expected)
    assert deviation == pytest.approx(model.scale * np.sqrt(np.diag(design @ covariance @ design.T)))


def test_intervals_hold_the_truth_about_as_often_as_they_promise():
    inside = []
    for seed in range(60):
        indices, true, observed = drawn(40, seed, 0.004)
        mean, deviation = AdditiveModel.fit(OPTIONS, indices, observed).predict(indices)
        inside += list(abs(mean - true) <= 1.96 * deviation)
    assert np.mean(inside) > 0.85


def test_the_posterior_mean_finds_the_better_half_more_often_than_single_values():
    by_mean, by_value = [], []
    for seed in range(30):
        indices, true, observed = drawn(40, seed, 0.03)
        mean, _ = AdditiveModel.fit(OPTIONS, indices, observed).predict(indices)
        by_mean.append(true[mean.argmax()])
        by_value.append(true[observed.argmax()])
    assert np.mean(by_mean) > np.mean(by_value)


def test_a_draw_without_boldness_is_the_mean():
    indices, _, observed = drawn(20, 0, 0.01)
    model = AdditiveModel.fit(OPTIONS, indices, observed)
    draw = model.draw(np.random.default_rng(0), 0.0)
    assert all(np.array_equal(one, other) for one, other in zip(draw, model.mean(), strict=True))
    assert AdditiveModel.fit(OPTIONS, indices, [0.5] * 20) is None


def test_trials_are_read_as_their_space_encodes_them():
    space = SearchSpace.load("resnet20")
    architectures = space.sample_many(12, seed=0)
    trials = [
        optuna.trial.create_trial(
            value=0.5 + index / 100, params=space.encode(one), distributions=distributions(space)
        )
        for index, one in enumerate(architectures)
    ]
    model, indices = fit_trials(trials)
    assert indices == [space.indices_of(one) for one in architectures]
    assert model.options == options_of(space)
    other = optuna.trial.create_trial(
        value=0.5, params={"x": 1.0}, distributions={"x": optuna.distributions.FloatDistribution(0, 2)}
    )
    assert fit_trials([*trials, other]) == (None, [])
