"""Proxy training: determinism from one seed, resuming, micro-batches, and accuracy on the digits."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from examples import soaked
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.data import load_resident, open_source
from nas_recalib.proxy.evaluation import AveragedWeights, evaluate, normalise
from nas_recalib.proxy.train import (
    Diverged,
    Recipe,
    Training,
    default_recipe,
    one_cycle,
    train_step,
)


@pytest.fixture(scope="module")
def source():
    return open_source("digits", Path())


@pytest.fixture(scope="module")
def few(source):
    return load_resident(source, 16, 72, 40, seed=0)


def small(choice="vanilla"):
    architecture = Architecture.of("resnet20", choice)
    return build_seeded(architecture.shape.scaled(0.5), architecture.blocks, 10, 3, seed=0)


def linear(data):
    """Return a network that trains in no time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(data.train_images[0].numel(), data.num_classes))


def train(network, data, epochs=2, *, seed=0, dtype=torch.float32, recipe=None, report=lambda _: False):
    recipe = recipe or Recipe(batch_size=32, peak_rate=0.05)
    training = Training(network, data, epochs, seed=seed, dtype=dtype, recipe=recipe)
    for epoch in training:
        if report(epoch):
            break
    return training.curve


@pytest.mark.parametrize("dtype", soaked([torch.float32, torch.bfloat16], [torch.float32]))
def test_one_seed_gives_one_curve_and_one_network(few, dtype):
    networks = [small("psconv+ab") for _ in range(3)]
    before = torch.get_rng_state()
    curves = [train(net, few, seed=s, dtype=dtype) for net, s in zip(networks, (7, 7, 8), strict=True)]
    assert torch.equal(before, torch.get_rng_state())
    assert curves[0] == curves[1]
    assert [epoch.loss for epoch in curves[2]] != [epoch.loss for epoch in curves[0]]
    first, again, other = (network.state_dict() for network in networks)
    assert all(value.equal(again[name]) for name, value in first.items())
    assert not first["fc.weight"].equal(other["fc.weight"])
    assert {value.dtype for value in first.values()} <= {torch.float32, torch.int64}


def test_it_learns_the_digits(source):
    data = load_resident(source, 16, 600, 200, seed=0)
    curve = train(small(), data, 4, dtype=torch.float32, recipe=default_recipe(600))
    assert curve[-1].accuracy > 0.5
    assert curve[-1].loss < 0.75 * curve[0].loss
    assert curve[-1].loss > 0


def test_every_epoch_is_reported_as_it_ends(few):
    reported = []
    network = linear(few)

    def report(epoch):
        assert epoch.accuracy == evaluate(network, few, torch.float32)[0]
        reported.append(epoch)

    curve = train(network, few, 3, recipe=Recipe(batch_size=32, evaluated="raw"), report=report)
    assert curve == reported
    assert [epoch.number for epoch in curve] == [1, 2, 3]
    assert all(0 <= epoch.accuracy <= 1 and epoch.loss > 0 for epoch in curve)


def test_a_true_answer_ends_the_training_after_that_epoch(few):
    whole, stopped = linear(few), linear(few)
    rest = train(whole, few, 5)
    curve = train(stopped, few, 5, report=lambda epoch: epoch.number == 2)
    assert curve == rest[:2]
    assert not torch.equal(stopped[1].weight, whole[1].weight)


@pytest.mark.parametrize("left_after", soaked([1, 2], [1]))
def test_a_training_resumes_bit_for_bit(few, tmp_path, left_after):
    given = {"seed": 3, "dtype": torch.bfloat16, "recipe": Recipe(batch_size=32)}
    whole = Training(small("scconv+ab"), few, 3, **given)
    assert [epoch.number for epoch in whole] == [1, 2, 3]
    left = Training(small("scconv+ab"), few, 3, **given)
    for epoch in left:
        if epoch.number == left_after:
            break
    torch.save(left.state_dict(), tmp_path / "left.pt")
    resumed = Training(small("scconv+ab"), few, 3, **given | {"seed": 4})
    resumed.load_state_dict(torch.load(tmp_path / "left.pt", weights_only=True))
    assert resumed.curve == whole.curve[:left_after]
    assert len(list(resumed)) == 3 - left_after
    assert resumed.curve == whole.curve
    ended, expected = (training.state_dict()["network"] for training in (resumed, whole))
    assert all(value.equal(ended[name]) for name, value in expected.items())
    assert list(resumed) == []


def test_two_trainings_go_on_alike_from_one_state(few):
    given = {"seed": 3, "dtype": torch.float32, "recipe": Recipe(batch_size=32)}
    left = Training(linear(few), few, 3, **given)
    next(iter(left))
    state = left.state_dict()
    curves = []
    for _ in range(2):
        resumed = Training(linear(few), few, 3, **given)
        resumed.load_state_dict(state)
        curves.append([*resumed])
    assert curves[0] == curves[1] == [*left]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_training_that_diverges_says_so(few, dtype):
    reported = []
    with pytest.raises(Diverged, match=r"nan|inf"):
        train(small(), few, 3, dtype=dtype, recipe=Recipe(32, peak_rate=1e30), report=reported.append)
    assert len(reported) < 3
    assert all(math.isfinite(epoch.loss) for epoch in reported)


def plain_step(network, optimizer, images, labels, dtype, recipe, micro_batches):
    assert micro_batches == 1
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits = network(images)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("dtype", soaked([torch.float32, torch.bfloat16], [torch.float32]))
def test_a_batch_in_one_part_is_a_plain_step_bit_for_bit(few, dtype, monkeypatch):
    networks = [small("scconv+msar") for _ in range(2)]
    curve = train(networks[0], few, dtype=dtype)
    monkeypatch.setattr("nas_recalib.proxy.train.train_step", plain_step)
    assert train(networks[1], few, dtype=dtype) == curve
    ended, expected = (network.state_dict() for network in networks)
    assert all(value.equal(ended[name]) for name, value in expected.items())


@pytest.mark.parametrize(("images", "micro_batches"), [(8, 2), (7, 2), (7, 3), (3, 7), (1, 2)])
def test_micro_batches_add_up_to_the_step_of_the_batch(normal, images, micro_batches, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # of the loss, too
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).double()
    for parameter in network.parameters():
        parameter.data = 0.3 * normal(*parameter.shape)
    pixels, labels = normal(images, 3, 6, 6), torch.arange(images) % 5
    (kernel, bias), (weight, shift) = ([p.detach().clone() for p in network[i].parameters()] for i in (0, 3))
    for tensor in (kernel, bias, weight, shift):
        tensor.requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for picture, label in zip(pixels, labels, strict=True):  # image by image, the loss as it is defined
        hidden = F.conv2d(picture[None], kernel, bias).relu().flatten()
        named = (weight @ hidden + shift).log_softmax(0)
        loss = loss - (0.8 * named[label] + 0.2 * named.mean()) / images
    gradients = torch.autograd.grad(loss, (kernel, bias, weight, shift))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 9.0)  # of the step before
    recipe = Recipe(label_smoothing=0.2)
    total = train_step(network, optimizer, pixels, labels, torch.float32, recipe, micro_batches)
    torch.testing.assert_close(total.double(), loss.detach(), rtol=1e-6, atol=0)
    for after, before, slope in zip(
        network.parameters(), (kernel, bias, weight, shift), gradients, strict=True
    ):
        torch.testing.assert_close(after, before - 0.5 * slope, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("micro_batches", [2, 5])
def test_micro_batches_change_no_rates_steps_or_order_of_images(few, micro_batches):
    given = {"seed": 3, "dtype": torch.float32, "recipe": Recipe(batch_size=32)}
    whole = Training(linear(few), few, 3, **given)
    divided = Training(linear(few), few, 3, micro_batches=micro_batches, **given)
    for expected, epoch in zip(whole, divided, strict=True):
        assert epoch.loss == pytest.approx(expected.loss, rel=1e-5)
        assert epoch.accuracy == expected.accuracy
    ended, expected = divided.state_dict(), whole.state_dict()
    assert ended["generator"].equal(expected["generator"])
    assert ended["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    for name, value in expected["network"].items():
        torch.testing.assert_close(ended["network"][name], value, rtol=1e-4, atol=1e-6)


def test_a_training_resumes_with_another_number_of_micro_batches(few):
    given = {"seed": 3, "dtype": torch.float32, "recipe": Recipe(batch_size=32)}
    whole = Training(small("ab"), few, 3, **given)
    first = next(iter(whole))
    there = Training(small("ab"), few, 3, micro_batches=2, **given)
    there.load_state_dict(whole.state_dict())
    back = Training(small("ab"), few, 3, **given)
    back.load_state_dict(there.state_dict())
    assert there.curve == back.curve == [first]
    rest = [*there]
    assert [epoch.number for epoch in rest] == [2, 3]
    assert [*back] == [*whole]
    assert rest != whole.curve[1:], "the statistics are of the parts"
    for epoch, expected in zip(rest, whole.curve[1:], strict=True):
        assert epoch.loss == pytest.approx(expected.loss, rel=0.1)


def test_micro_batches_differ_by_at_most_one_image(few):
    network = Recording(10)
    training = Training(
        network, few, 1, seed=0, dtype=torch.float32, recipe=Recipe(batch_size=32), micro_batches=3
    )
    next(iter(training))
    assert [len(images) for images in network.batches] == [11, 11, 10] * 2
    with pytest.raises(ValueError, match="micro_batches: 0 is not at least 1"):
        Training(network, few, 1, seed=0, dtype=torch.float32, recipe=Recipe(), micro_batches=0)


class Recording(nn.Module):
    """Network that records its batches and returns a learned constant."""

    def __init__(self, classes):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))
        self.batches, self.dtypes = [], set()

    def forward(self, images):
        self.dtypes.add(F.linear(images.flatten(1), images.flatten(1)).dtype)
        if self.training:
            assert images.is_contiguous(memory_format=torch.channels_last)
            self.batches.append(images)
        return self.bias.expand(len(images), -1)


@pytest.mark.parametrize(
    ("images", "batch", "sizes"), [(72, 32, [32, 32]), (64, 32, [32, 32]), (20, 32, [20]), (20, 1, [1] * 20)]
)
def test_batches_are_whole_whatever_the_size_of_the_set(source, images, batch, sizes):
    data = load_resident(source, 8, images, 40, seed=0)
    network = Recording(10)
    train(network, data, 3, recipe=Recipe(batch, peak_rate=0.05))
    assert [len(images) for images in network.batches] == sizes * 3


def test_an_epoch_shows_each_image_once_and_the_next_another_order(few):
    number = torch.arange(72, dtype=torch.uint8)
    images = number[:, None, None, None].expand(-1, 3, 16, 16)
    data = replace(few, train_images=images, mean=torch.zeros(3), std=torch.ones(3))
    network = Recording(10)
    train(network, data, 2, recipe=Recipe(24, peak_rate=0.05))
    shown = torch.cat([images[:, 0, 0, 0] for images in network.batches]).long().split(72)
    assert all(torch.equal(epoch.sort().values, number.long()) for epoch in shown)
    assert not torch.equal(*shown)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_network_computes_in_the_type_asked_for(few, dtype):
    network = Recording(10)
    train(network, few, 1, dtype=dtype)
    assert network.dtypes == {dtype}


def one_colour(data):
    """Training images that are the same however shifted and mirrored."""
    return replace(data, train_images=data.train_images[:, :, 8:9, 8:9].expand(-1, -1, 16, 16))


def test_the_loss_of_an_epoch_is_the_mean_smoothed_cross_entropy(few):
    data = one_colour(few)
    recipe = Recipe(batch_size=24, peak_rate=0.0, label_smoothing=0.2)
    logits = linear(data)(normalise(data.train_images, data))
    expected = F.cross_entropy(logits, data.train_labels, label_smoothing=0.2).item()
    assert [epoch.loss for epoch in train(linear(data), data, 2, recipe=recipe)] == pytest.approx(
        [expected] * 2
    )


def test_the_recipe_is_followed_step_by_step(few):
    data, network, weights = one_colour(few), linear(few), linear(few)
    rate, decay, momentum = 0.1, 0.02, 0.7
    train(network, data, 4, recipe=Recipe(72, rate, warmup=0.5, momentum=momentum, weight_decay=decay))
    velocity = [torch.zeros_like(parameter) for parameter in weights.parameters()]
    for share in (1 / 2, 1, 2 / 3, 1 / 3):
        logits = weights(normalise(data.train_images, data))
        loss = F.cross_entropy(logits, data.train_labels, label_smoothing=0.1)
        gradients = torch.autograd.grad(loss, list(weights.parameters()))
        with torch.no_grad():
            for parameter, gradient, speed in zip(weights.parameters(), gradients, velocity, strict=True):
                slope = gradient + decay * parameter
                speed.mul_(momentum).add_(slope)
                parameter -= share * rate * (slope + momentum * speed)
    for followed, expected in zip(network.parameters(), weights.parameters(), strict=True):
        torch.testing.assert_close(followed, expected, rtol=1e-4, atol=1e-6)


def test_accuracy_is_the_share_named_right(source):
    data = load_resident(source, 8, 500, 700, seed=0)
    network = linear(data)
    train(network, data, 1)
    pixels = (data.val_images.double() - data.mean.double().view(3, 1, 1)) / data.std.double().view(3, 1, 1)
    named = network.double()(pixels).argmax(1)
    network.float()
    assert evaluate(network, data, torch.float32)[0] == (named == data.val_labels).double().mean().item()


def test_normalised_training_images_have_mean_zero_and_deviation_one(few):
    pixels = normalise(few.train_images, few).transpose(0, 1).flatten(1)
    assert torch.allclose(pixels.mean(1), torch.zeros(3), atol=1e-4)
    assert torch.allclose(pixels.std(1), torch.ones(3), atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "warmup", "rates"),
    [
        (8, 0.25, [1 / 2, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]),
        (4, 0.5, [1 / 2, 1, 2 / 3, 1 / 3]),
        (3, 0.0, [1, 2 / 3, 1 / 3]),
        (4, 1.0, [1 / 4, 1 / 2, 3 / 4, 1]),
        (1, 0.25, [1]),
        (0, 0.25, []),
    ],
)
def test_one_cycle_at_known_steps(steps, warmup, rates):
    assert list(one_cycle(steps, 0.2, warmup)) == pytest.approx([0.2 * rate for rate in rates])


@given(steps=st.integers(1, 300), warmup=st.floats(0, 1))
def test_one_cycle_climbs_once_and_falls_once(steps, warmup):
    rates = list(one_cycle(steps, 3.0, warmup))
    top = rates.index(max(rates))
    assert len(rates) == steps
    assert rates[top] == 3
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b > 0 for a, b in pairwise(rates[top:]))


def test_small_sets_take_smaller_batches():
    assert default_recipe(2499).batch_size < default_recipe(2500).batch_size
    assert default_recipe(2500) == Recipe()


def test_averaged_weights_are_the_mean_of_the_first_ten_and_exponential_from_then_on():
    network = nn.Linear(3, 2).double()
    average, expected = AveragedWeights(network), torch.zeros(2, 3, dtype=torch.float64)
    for step in range(1, 31):
        network.weight.data = torch.full((2, 3), float(step), dtype=torch.float64)
        average.update(network)
        expected = expected + (step - expected) / step if step <= 10 else 0.9 * expected + 0.1 * step
        torch.testing.assert_close(average.network.weight.data, expected)
    assert average.network.weight.data_ptr() != network.weight.data_ptr()


def test_the_average_is_evaluated_with_the_statistics_of_its_own_activations(few):
    network = small()
    training = Training(network, few, 1, seed=0, dtype=torch.float32, recipe=Recipe(batch_size=8))
    next(iter(training))
    averaged = small()
    averaged.load_state_dict(training.state_dict()["average"]["network"])
    seen: list[torch.Tensor] = []
    averaged.bn1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    averaged(normalise(few.train_images, few))  # 72 images, all of which the statistics are taken from
    torch.testing.assert_close(averaged.bn1.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    variance = seen[0].var((0, 2, 3))
    torch.testing.assert_close(averaged.bn1.running_var, variance, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(averaged.bn1.running_mean, network.bn1.running_mean)


def test_raw_weights_are_evaluated_alone_or_besides_the_averaged_ones(few):
    raw, both = Recipe(batch_size=8, evaluated="raw"), Recipe(batch_size=8)
    given = {"seed": 0, "dtype": torch.float32}
    alone = [*Training(small("ab"), few, 2, recipe=raw, **given)]
    beside = [*Training(small("ab"), few, 2, recipe=both, with_raw=True, **given)]
    assert [(epoch.accuracy, epoch.val_loss) for epoch in alone] == [epoch.raw for epoch in beside]
    assert [epoch.loss for epoch in alone] == [epoch.loss for epoch in beside]
    assert [epoch.val_loss for epoch in alone] != [epoch.val_loss for epoch in beside]
    assert [epoch.raw for epoch in alone] == [None, None]
