import math
from dataclasses import replace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial
from small_study import CONFIG, small_study, trial

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.study.statistics import write_confirmation
from nas_recalib.study.summary import leaders, summarise
from nas_recalib.study.trials import validate_study


@pytest.fixture
def study():
    return small_study()


def test_the_best_trial_is_complete_and_not_answered_from_cache(study):
    summary = summarise(study)
    assert [row.number for row in summary.rows] == [1, 2, 0, 3]
    assert summary.best.number == 1
    assert summary.cached == 1
    assert summary.failures == {"diverged": 1}
    assert summary.rows[2].baseline == "vanilla"


def test_the_front_has_the_trials_that_no_other_dominates(study):
    found = summarise(study)
    assert found.front == (2, 1)
    dear, cheap = 1 - 40 / 44, 1 - 30 / 44
    volumes = {0: 0.5 * dear, 1: 0.7 * dear, 2: 0.6 * cheap + 0.1 * dear}
    assert dict(found.hypervolumes) == pytest.approx(volumes)


def test_the_front_of_several_objectives(study):
    config = replace(CONFIG, objectives=["accuracy", "macs", "params"])
    study.set_user_attr("config", config.as_dict())
    study.add_trial(trial("vanilla", 0.1, 39, params=3))
    found = summarise(study)
    assert found.front == (2, 6, 1), "the cheapest first, and one for its few parameters"
    assert [number for number, _ in found.hypervolumes] == [0, 1, 2, 6]
    shares = [volume for _, volume in found.hypervolumes]
    assert shares == sorted(shares)


def test_the_standard_error_is_binomial(study):
    assert summarise(study).best.standard_error == pytest.approx(math.sqrt(0.7 * 0.3 / 400))


def test_importance_needs_ten_trials_and_finds_the_position_that_matters(study):
    assert summarise(study).importance == {}
    both = {f"layer{i}.convolution": CategoricalDistribution(["vanilla", "psconv"]) for i in (1, 2)}
    for number in range(24):
        indices = {name: ["vanilla", "psconv"][number >> i & 1] for i, name in enumerate(both)}
        value = 0.9 if indices["layer1.convolution"] == "psconv" else 0.1
        attributes = trial("vanilla", 0, 1).user_attrs
        study.add_trial(create_trial(value=value, params=indices, distributions=both, user_attrs=attributes))
    shares = summarise(study).importance
    assert shares["layer1"] > 0.9


def test_importance_of_several_objectives_is_that_for_accuracy():
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.set_user_attr("config", replace(CONFIG, objectives=["accuracy", "macs"]).as_dict())
    options = {f"layer{i}.convolution": CategoricalDistribution(["vanilla", "psconv"]) for i in (1, 2)}
    for number in range(24):
        first, second = number & 1, number >> 1 & 1
        params = {"layer1.convolution": ["vanilla", "psconv"][first]}
        params["layer2.convolution"] = ["vanilla", "psconv"][second]
        values = [0.1 + 0.8 * first, 30 + 10 * second]
        attributes = {**trial("vanilla", 0, 1).user_attrs, "macs": values[1]}
        fields = {"params": params, "distributions": options, "user_attrs": attributes}
        study.add_trial(create_trial(values=values, **fields))
    assert summarise(study).importance["layer1"] > 0.9


def confirm(study, number, *accuracies):
    for seed, value in enumerate(accuracies, start=1):
        result = {"failure": "diverged"} if value is None else {"accuracy": value}
        write_confirmation(study, number, seed, {**result, "seconds": 1.0})


def test_a_new_study_has_no_confirmations(study):
    summary = summarise(study)
    assert {row.confirmation for row in summary.rows} == {None}
    assert summary.tied == ()


def test_confirmed_trials_are_ranked_by_the_mean_over_new_seeds_alone(study):
    confirm(study, 1, 0.60, 0.61, 0.62)
    confirm(study, 2, 0.63, 0.64, 0.65)
    summary = summarise(study)
    assert [row.number for row in summary.rows] == [2, 1, 0, 3]
    assert summary.best.confirmation.mean == pytest.approx(0.64)
    assert summary.best.confirmation.half_width == pytest.approx(4.303 * 0.01 / math.sqrt(3), rel=1e-3)
    assert summary.best.accuracy == 0.6, "the accuracy in the search is kept"
    assert summary.tied == (), "each seed differs by 0.03"


def test_trials_that_are_indistinguishable_from_the_best_are_tied(study):
    confirm(study, 0, 0.40, 0.41, 0.42)
    confirm(study, 1, 0.62, 0.60, 0.64)
    confirm(study, 2, 0.61, 0.63, 0.60)
    assert summarise(study).tied == (2,)
    assert [row.number for row in leaders(summarise(study).rows)] == [1, 2, 0]


def test_one_new_seed_gives_no_interval_and_ties_all(study):
    confirm(study, 1, 0.9)
    confirm(study, 2, 0.1)
    summary = summarise(study)
    assert summary.best.confirmation.half_width is None
    assert summary.tied == (2,)


def test_a_trial_that_diverged_with_a_new_seed_ranks_below_unconfirmed_ones(study):
    confirm(study, 1, 0.9, None)
    summary = summarise(study)
    assert [row.number for row in summary.rows] == [2, 0, 1, 3]
    assert summary.rows[2].confirmation.diverged == (2,)
    assert summary.rows[2].confirmed is None


def test_a_study_without_a_finished_trial_and_a_foreign_one_are_refused():
    empty = optuna.create_study(study_name="e", direction="maximize")
    with pytest.raises(InputError, match="'e' was not made by nas-recalib"):
        summarise(empty)
    empty.set_user_attr("config", CONFIG.as_dict())
    with pytest.raises(InputError, match="'e' has no finished trial yet"):
        _ = summarise(empty).best


def test_architectures_of_many_blocks_are_valid():
    study = small_study()
    deep = str(Architecture.of("resnet152", "psconv(pattern=1-2-1-4)+ab-plus"))
    assert len(deep) > 1000
    deep_one = trial("psconv", 0.4, 40)
    deep_one.set_user_attr("architecture", deep)
    study.add_trial(deep_one)
    validate_study(study)
