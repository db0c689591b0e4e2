"""Two sides of a case: the same work with the same input, as the settings say."""

import pytest
import torch
from torch import nn

from nas_recalib.errors import InputError
from nas_recalib.operators import BlockChoice
from nas_recalib.timing.cases import Case, Place, Settings, list_cases, make_calls

CPU = torch.device("cpu")
PSCONV, VANILLA = BlockChoice.parse("psconv"), BlockChoice()


class Spy(nn.Module):
    """A convolution that remembers what it saw."""

    def __init__(self, choice):
        super().__init__()
        self.choice = choice
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.saw = []

    def forward(self, x):
        y = self.conv(x)
        y.register_hook(lambda gradient: self.saw.append(("gradient", gradient))) if y.requires_grad else None
        self.saw.append(("input", x))
        self.saw.append(("output", y.detach(), self.training, torch.is_inference_mode_enabled()))
        return y


def spied(kind="layers", **settings):
    """Both sides, warmed up, each called once more: the modules, and what only that call saw."""
    modules = []

    def build(choice):
        modules.append(Spy(choice))
        return modules[-1]

    place = Place(kind, "cifar", "4@6", (4, 6, 6), build)
    calls = make_calls(Case(place, PSCONV, batch=2), Settings(CPU, threads=1, **settings))
    for module, call in zip(modules, calls, strict=True):
        module.saw.clear()
        call()
    return modules


def seen(module, what):
    (entry,) = (entry for entry in module.saw if entry[0] == what)
    return entry[1]


def test_vanilla_comes_first():
    assert [module.choice for module in spied()] == [VANILLA, PSCONV]


@pytest.mark.parametrize("mode", ["forward", "train"])
def test_both_sides_get_the_same_input_weights_and_gradient(mode):
    first, second = spied(mode=mode)
    assert seen(first, "input").shape == (2, 4, 6, 6)
    assert torch.equal(seen(first, "input"), seen(second, "input"))
    assert torch.equal(first.conv.weight, second.conv.weight)
    if mode == "train":
        assert seen(first, "gradient").std() > 0.5
        assert torch.equal(seen(first, "gradient"), seen(second, "gradient"))


@pytest.mark.parametrize("choice", ["scconv", "psconv"])
def test_the_choice_has_as_many_weights_of_convolutions_as_vanilla(choice):
    built = []
    (case, *_) = list_cases("layers", "cifar", [choice], batch_size=1)

    def build(choice):
        built.append(case.place.build(choice))
        return built[-1]

    place = Place("layers", "cifar", "16@32", case.place.shape, build)
    make_calls(Case(place, case.choice, 1), Settings(CPU, threads=1))
    first, second = (sum(p.numel() for p in m.parameters() if p.dim() == 4) for m in built)
    assert first == second == 9 * 16 * 16


def test_forward_is_inference():
    for module in spied(mode="forward"):
        ((_, _, training, inference),) = (entry for entry in module.saw if entry[0] == "output")
        assert (training, inference) == (False, True)


def test_train_goes_forward_and_backward_and_keeps_no_gradient():
    for module in spied(mode="train"):
        assert [entry[0] for entry in module.saw] == ["input", "output", "gradient"]
        assert module.training
        assert seen(module, "input").grad is None
        assert module.conv.weight.grad is None


@pytest.mark.parametrize(("kind", "wanted"), [("layers", True), ("blocks", True), ("networks", False)])
def test_the_inputs_gradient_is_computed_but_for_images(kind, wanted):
    for module in spied(kind, mode="train"):
        assert seen(module, "input").requires_grad == wanted


def test_a_call_computes_the_gradients_that_autograd_does(monkeypatch):
    kept = []
    monkeypatch.setattr(
        Spy, "zero_grad", lambda self: kept.append((self.conv.weight.grad.clone(), seen(self, "input").grad))
    )
    for module in spied(mode="train"):
        weight, x = kept.pop(0)
        y = module.conv(seen(module, "input"))
        wanted = torch.autograd.grad(y, (module.conv.weight, seen(module, "input")), seen(module, "gradient"))
        torch.testing.assert_close((weight, x), wanted)


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize(
    ("kind", "dtype", "given", "computed"),
    [
        ("layers", "float32", torch.float32, torch.float32),
        ("layers", "bfloat16", torch.bfloat16, torch.bfloat16),
        ("networks", "bfloat16", torch.float32, torch.bfloat16),
    ],
)
def test_dtypes(kind, mode, dtype, given, computed):
    for module in spied(kind, mode=mode, dtype=dtype):
        assert seen(module, "input").dtype == given
        assert seen(module, "output").dtype == computed
        assert module.conv.weight.dtype == torch.float32, "autocast"


@pytest.mark.parametrize(
    ("name", "memory_format"),
    [("channels_last", torch.channels_last), ("contiguous", torch.contiguous_format)],
)
def test_memory_formats(name, memory_format):
    for module in spied(mode="train", memory_format=name):
        for tensor in (seen(module, "input"), seen(module, "gradient"), module.conv.weight):
            assert tensor.is_contiguous(memory_format=memory_format)
            assert not (tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last))


def test_compiled_sides_compute_the_same(monkeypatch):
    compiled = []
    original = nn.Module.compile

    def eager(self, *, fullgraph):
        compiled.append((self, fullgraph))
        original(self, fullgraph=fullgraph, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", eager)
    place = Place("layers", "cifar", "4@6", (4, 6, 6), lambda _: nn.Conv2d(4, 4, 3, padding=1))
    case = Case(place, PSCONV, batch=2)
    settings = [Settings(CPU, threads=1, compile=first) for first in (False, True)]
    results = [call() for each in settings for call in make_calls(case, each)]
    assert len(compiled) == 2
    assert all(fullgraph for _, fullgraph in compiled)
    for result in results:
        torch.testing.assert_close(result, results[0])


def test_another_seed_is_another_input_and_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    first, second = (spied(seed=seed)[0] for seed in (0, 1))
    assert not torch.equal(seen(first, "input"), seen(second, "input"))
    assert not torch.equal(first.conv.weight, second.conv.weight)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"mode": "both"}, "mode: 'both' is not one of forward, train"),
        ({"dtype": "float16"}, "dtype: 'float16' is not one of float32, bfloat16"),
        ({"memory_format": "nhwc"}, "memory-format: 'nhwc' is not one of channels_last, contiguous"),
        ({"threads": 0}, "threads: 0 is not from 1 to"),
        ({"threads": 9999}, "threads: 9999 is not from 1 to"),
        ({"seconds": 0.0}, "seconds: 0 is not"),
        ({"seconds": float("nan")}, "seconds: nan is not"),
        ({"seconds": float("inf")}, "seconds: inf is not"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, named):
    with pytest.raises(InputError, match=named):
        Settings(CPU, **given)
