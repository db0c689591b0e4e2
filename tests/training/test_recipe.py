import math
from dataclasses import replace

import pytest

from nas_recalib.errors import InputError
from nas_recalib.training.recipe import Recipe, get_recipe


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.1), (29.99, 0.1), (30, 0.01), (60, 1e-3), (89.5, 1e-3), (90, 1e-4), (99.99, 1e-4)],
)
def test_step100_divides_by_ten_every_thirty_epochs(epoch, rate):
    assert get_recipe("step100").rate_at(epoch) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.1), (30, 0.05 * (1 + math.sqrt(0.5))), (60, 0.05), (90, 0.05 * (1 - math.sqrt(0.5)))],
)
def test_cosine120_follows_half_a_cosine(epoch, rate):
    assert get_recipe("cosine120").rate_at(epoch) == pytest.approx(rate)


def test_cosine_ends_at_zero_and_stays_there():
    recipe = get_recipe("cosine120")
    assert recipe.rate_at(120) == pytest.approx(0, abs=1e-12)
    assert recipe.rate_at(121) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("name", "epochs"), [("step100", 100), ("cosine120", 120)])
def test_the_papers_settings(name, epochs):
    recipe = get_recipe(name)
    assert (recipe.name, recipe.epochs, recipe.batch_size) == (name, epochs, 256)
    assert (recipe.momentum, recipe.weight_decay, recipe.nesterov) == (0.9, 1e-4, False)


def test_rate_is_in_proportion_to_the_batch():
    recipe = replace(get_recipe("step100"), batch_size=1024)
    assert recipe.peak_rate == pytest.approx(0.4)
    assert recipe.rate_at(45) == pytest.approx(0.04)


def test_warmup_climbs_from_zero_and_cosine_starts_after_it():
    recipe = replace(get_recipe("cosine120"), warmup_epochs=20)
    rates = [recipe.rate_at(epoch) for epoch in (0, 5, 10, 20, 70, 120)]
    assert rates == pytest.approx([0, 0.025, 0.05, 0.1, 0.05, 0], abs=1e-12)


def test_fewer_epochs_move_milestones_and_warmup_in_proportion():
    short = replace(get_recipe("step100"), warmup_epochs=5.0).with_epochs(10)
    assert short.epochs == 10
    assert short.milestones == pytest.approx((3, 6, 9))
    assert short.warmup_epochs == pytest.approx(0.5)
    assert get_recipe("step100").with_epochs(100) == get_recipe("step100")


@pytest.mark.parametrize("epochs", [1, 3, 7, 90, 300])
def test_any_length_falls_three_times_by_ten(epochs):
    recipe = get_recipe("step100").with_epochs(epochs)
    assert recipe.rate_at(epochs - 1e-6) == pytest.approx(1e-4)


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match="'step90'; allowed: step100, cosine120"):
        get_recipe("step90")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schedule", "linear"),
        ("epochs", 0),
        ("milestones", (60, 30)),
        ("batch_size", 0),
        ("base_rate", math.nan),
        ("warmup_epochs", 100),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("label_smoothing", 1.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"{name}: .* is not "):
        replace(get_recipe("step100"), **{name: value})


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match="nesterov"):
        Recipe("mine", epochs=1, schedule="cosine", momentum=0.0, nesterov=True)
