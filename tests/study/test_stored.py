"""What a study stores is validated when it is read; a refusal names the study, the trial and the key."""

from dataclasses import replace

import pytest
from small_study import CONFIG, small_study, trial

from nas_recalib.errors import InputError
from nas_recalib.proxy.train import Recipe
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.stored import read_stored
from nas_recalib.study.trials import HEARTBEAT, last_heartbeat, validate_study


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"threads": "4"}, "threads: input should be a valid integer"),
        ({"threads": True}, "threads: input should be a valid integer"),
        ({"trials": 0}, "trials: input should be greater than or equal to 1"),
        ({"budget": {"macs": 4.5}}, "budget.macs: input should be a valid integer"),
        ({"budget": {"macs": 0}}, "budget: macs: 0 is not a number from 1"),
        ({"budget": [1]}, "budget: keys and values expected"),
        ({"fidelity": {**CONFIG.fidelity.as_dict(), "width": -1.0}}, "fidelity: width: -1.0 is not above 0"),
        ({"recipe": {"batch_size": 0}}, "recipe: batch_size: 0 is not at least 1"),
        ({"recipe": {"speed": 1}}, "recipe.speed: unexpected keyword argument"),
        ({"dtype": "int8"}, "dtype: input should be 'float32'"),
        ({"objectives": ["macs"]}, "objectives: objectives: 'macs' should be accuracy, then"),
        ({"checkpoints": "a\nb"}, "checkpoints: input should be one line"),
        ({"colour": "red"}, "colour: unexpected keyword argument"),
    ],
)
def test_a_configuration_of_another_form_is_refused_by_its_key(changes, problem):
    with pytest.raises(InputError) as error:
        read_stored(SearchConfig, {**CONFIG.as_dict(), **changes}, "s")
    assert str(error.value).startswith(f"study: 's' was not made by this version of nas-recalib: {problem}")


def test_a_configuration_is_read_as_it_was_written():
    config = replace(CONFIG, recipe=Recipe(batch_size=32), plugins=["ops.py"])
    assert read_stored(SearchConfig, config.as_dict(), "s") == config


def test_studies_before_version_0_2_drew_recalibrations_by_fan_out():
    content = CONFIG.as_dict()
    del content["recipe"]["gate_fan"]
    assert read_stored(SearchConfig, content, "s").recipe.gate_fan == "fan_out"


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"macs": 1.5}, "user_attrs.macs: input should be a valid integer"),
        ({"architecture": "two\nlines"}, "user_attrs.architecture: input should be one line"),
        ({"curve": [0.5, 1.5]}, "user_attrs.curve.1: input should be less than or equal to 1"),
        ({"parts": 3}, "user_attrs.parts: input should be less than or equal to 2"),
        ({"continues": -1}, "user_attrs.continues: input should be greater than or equal to 0"),
        ({"predicted_latency_ms": float("nan")}, "user_attrs.predicted_latency_ms: input should be"),
    ],
)
def test_a_trial_of_another_form_is_refused_by_its_number_and_key(attributes, problem):
    study = small_study()
    changed = trial("vanilla", 0.5, 40)
    changed.user_attrs.update(attributes)
    study.add_trial(changed)
    with pytest.raises(InputError) as error:
        validate_study(study)
    assert str(error.value).startswith(f"study: trial 6 of 's' was not written by nas-recalib: {problem}")


def test_a_trained_trial_without_its_costs_is_refused():
    study = small_study()
    incomplete = trial("vanilla", 0.5, 40)
    del incomplete.user_attrs["macs"]
    study.add_trial(incomplete)
    with pytest.raises(InputError, match=r"trial 6 of 's' .*: it has no macs"):
        validate_study(study)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("latency_ms", {"1": 0}, "1: input should be greater than or equal to"),
        ("confirmed 1", {"accuracy": 0.5}, "key should be 'confirmed TRIAL/SEED'"),
        ("confirmed 1/1", {"accuracy": 1.5}, "accuracy: input should be less than or equal to 1"),
        ("confirmed 1/1", {"seconds": 1.5}, "it has neither an accuracy nor a failure"),
    ],
)
def test_an_attribute_of_another_form_is_refused_by_its_key(key, value, problem):
    study = small_study()
    study.set_user_attr(key, value)
    with pytest.raises(InputError) as error:
        validate_study(study)
    assert str(error.value).startswith(f"study: attribute {key!r} of 's' was not written by")
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("stored", "seconds"),
    [([3, 17.5], 17.5), ([3, "17"], None), ([3, float("nan")], None), ([3], None), ("alive", None)],
)
def test_the_last_heartbeat_is_a_time_or_none(stored, seconds):
    running = trial("vanilla", 0.5, 40)
    running.system_attrs[HEARTBEAT] = stored
    assert last_heartbeat(running) == seconds
