import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial
from small_study import CONFIG, small_study, trial

from nas_recalib.errors import InputError
from nas_recalib.study.summary import summarise


@pytest.fixture
def study():
    return small_study()


def test_the_best_ran_to_the_end_and_replays_count_for_nothing(study):
    summary = summarise(study)
    assert [row.number for row in summary.rows] == [1, 2, 0, 3]
    assert summary.best.number == 1
    assert summary.replayed == 1
    assert summary.failures == {"diverged": 1}
    assert summary.rows[2].baseline == "vanilla"


def test_the_front_has_what_nothing_beats_in_both(study):
    assert summarise(study).front == (2, 1)


def test_the_error_is_that_of_a_share_of_the_validation_images(study):
    assert summarise(study).best.error == pytest.approx(math.sqrt(0.7 * 0.3 / 400))


def test_importance_needs_ten_trials_and_finds_what_matters(study):
    assert summarise(study).importance == {}
    both = {f"layer{i}.convolution": CategoricalDistribution(["vanilla", "psconv"]) for i in (1, 2)}
    for number in range(24):
        picks = {name: ["vanilla", "psconv"][number >> i & 1] for i, name in enumerate(both)}
        value = 0.9 if picks["layer1.convolution"] == "psconv" else 0.1
        attributes = trial("vanilla", 0, 1).user_attrs
        study.add_trial(create_trial(value=value, params=picks, distributions=both, user_attrs=attributes))
    shares = summarise(study).importance
    assert shares["layer1"] > 0.9


def test_a_study_without_a_finished_trial_and_a_foreign_one_are_refused():
    empty = optuna.create_study(study_name="e", direction="maximize")
    with pytest.raises(InputError, match="'e' was not made by nas-recalib"):
        summarise(empty)
    empty.set_user_attr("config", CONFIG.as_dict())
    with pytest.raises(InputError, match="'e' has no finished trial yet"):
        _ = summarise(empty).best
