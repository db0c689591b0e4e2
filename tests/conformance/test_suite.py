"""The suite finds what is wrong with an operator, by the name of the check, and nothing else."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas_recalib.conformance import ConformanceError, check_operator
from nas_recalib.conformance.suite import CHECKS
from nas_recalib.operators import catalog

DEAR = {"torch_compile", "torch_export", "export_sizes", "jit_trace", "onnx_export", "onnx_torchscript"}


class Gate(nn.Module):
    """A recalibration that keeps every promise."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x):
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"gate: expected {self.channels} channels, got {tuple(x.shape)}")
        return self.gate(x)

    def gate(self, x):
        return x * torch.sigmoid(self.weight)


class Plain(nn.Conv2d):
    """A convolution that keeps every promise."""

    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, groups=1):
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups)

    def forward(self, x):
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"plain: expected {self.in_channels} channels, got {tuple(x.shape)}")
        return super().forward(x)


class KeepsStride(Plain):
    def forward(self, x):
        y = super().forward(x)
        return y if self.stride == (1, 1) else F.interpolate(y, size=x.shape[2:])


class LosesGroups(Plain):
    def forward(self, x):
        y = super().forward(x)
        return y[:, ::2] if self.groups == 2 and self.stride == (1, 1) else y


class EvenMaps(Gate):
    def gate(self, x):
        height, width = (side if side == 1 else side // 2 * 2 for side in x.shape[2:])
        return super().gate(x)[:, :, :height, :width]


class NeedsNeighbours(Gate):
    def gate(self, x):
        return F.avg_pool2d(F.pad(super().gate(x), [1] * 4, mode="reflect"), 3, 1)


class RefusesWithoutName(Gate):
    def gate(self, x):
        if x.shape[2] == 1:
            raise ValueError("too small")
        return super().gate(x)


class NeedsSpread(Gate):
    def gate(self, x):
        means = x.mean((1, 2, 3))
        spread = (means - means.mean()).square().sum() / (len(x) - 1) if self.training else 0
        return super().gate(x) * (1 + spread)


class Rounds(Gate):
    def gate(self, x):
        x = super().gate(x)
        return x + (x.round() - x).detach()


class LosesDigits(Gate):
    def gate(self, x):
        identity = torch.eye(self.channels, dtype=x.dtype, device=x.device)[:, :, None, None]
        return F.conv2d(super().gate(x) + 100, identity) - 100


class Unreached(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        self.forgotten = nn.Parameter(torch.zeros(3))


class InPlace(Gate):
    def gate(self, x):
        x.detach().clamp_(min=0)
        return super().gate(x)


class TakesAnything(Gate):
    def forward(self, x):
        return x * torch.sigmoid(self.weight.mean())


class TakesLonelyImages(Gate):
    def forward(self, x):
        return super().forward(x if x.dim() == 4 else x[None])


class DearerThanCounted(Gate):
    def gate(self, x):
        x = super().gate(x)
        if x.is_meta:
            return x
        identity = torch.eye(self.channels, dtype=x.dtype, device=x.device)[:, :, None, None]
        return F.conv2d(x, identity)


class Draws(Gate):
    def gate(self, x):
        return super().gate(x) + 0 * torch.rand(1, dtype=x.dtype, device=x.device)


class Remembers(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("calls", torch.zeros(()))

    def gate(self, x):
        self.calls += 1
        return super().gate(x)


class MixesImages(Gate):
    def gate(self, x):
        return super().gate(x) + x.mean(0, keepdim=True)


class DropsTheFormat(Gate):
    def gate(self, x):
        return super().gate(x).contiguous()


class BreaksTheGraph(Gate):
    def gate(self, x):
        torch._dynamo.graph_break()
        return super().gate(x)


class LooksAtNumbers(Gate):
    def gate(self, x):
        return super().gate(x) if x.sum() != 0 else x


class OneBatchSize(Gate):
    def gate(self, x):
        return super().gate(x) if x.shape[0] != 2 else x * torch.sigmoid(self.weight)


class UnknownToOnnx(Gate):
    def gate(self, x):
        return x * torch.special.i0e(self.weight)


class HoldsALambda(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        self.activation = lambda x: torch.sigmoid(x)


class HiddenState(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        self.level = torch.rand(1, device="cpu").item()

    def gate(self, x):
        return super().gate(x) * self.level


class HiddenAverage(Gate):
    average = 0.0

    def gate(self, x):
        if self.training:
            self.average = float(x.detach().mean())
            return super().gate(x)
        return super().gate(x) + self.average


class Specialises(Gate):
    def gate(self, x):
        return super().gate(x + 0 if x.shape[-1] == x.shape[-2] + 1 else x)


class LooksAtTheMode(Gate):
    def gate(self, x):
        return super().gate(x) if torch.is_grad_enabled() else x.mul(torch.sigmoid(self.weight + 0))


class ForwardsByItself(Gate):
    def __init__(self, channels):
        super().__init__(channels)
        self.forward = self.other

    def other(self, x):
        return super().forward(x)


class UnknownToTorchScript(Gate):
    def gate(self, x):
        weight = torch.kron(self.weight[:, :, 0], torch.ones(1, 1, dtype=x.dtype))
        return x * torch.sigmoid(weight[:, :, None])


BROKEN = [
    (KeepsStride, "shape", {"map_sizes", "small_maps"}),
    (LosesGroups, "groups", set()),
    (EvenMaps, "map_sizes", set()),
    (NeedsNeighbours, "small_maps", {"one_image"}),
    (RefusesWithoutName, "small_maps", set()),
    (NeedsSpread, "one_image", set()),
    (Rounds, "gradcheck", set()),
    (LosesDigits, "autocast", set()),
    (Unreached, "autocast", set()),
    (InPlace, "input_kept", {"gradcheck"}),
    (TakesAnything, "channels", set()),
    (TakesLonelyImages, "channels", set()),
    (DearerThanCounted, "costs", set()),
    (Draws, "repeatable", set()),
    (Remembers, "repeatable", set()),
    (MixesImages, "images_apart", set()),
    (DropsTheFormat, "channels_last", set()),
    (BreaksTheGraph, "torch_compile", set()),
    (LooksAtNumbers, "torch_export", {"torch_compile", "export_sizes", "onnx_export", "costs"}),
    (OneBatchSize, "torch_export", {"export_sizes", "onnx_export"}),
    (Specialises, "export_sizes", set()),
    (LooksAtTheMode, "jit_trace", set()),
    (ForwardsByItself, "fx_trace", set()),
    (UnknownToOnnx, "onnx_export", {"onnx_torchscript"}),
    (UnknownToTorchScript, "onnx_torchscript", set()),
    (HoldsALambda, "copies", set()),
    (HiddenState, "state_dict", set()),
    (HiddenAverage, "state_dict", set()),
]


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(catalog, "_operators", dict(catalog._operators))
    catalog.parse_part.cache_clear()

    def add(module):
        kind = "convolution" if issubclass(module, Plain) else "recalibration"
        name = module.__bases__[0].__name__.lower()
        catalog.register(name, kind)(module)
        return name

    yield add
    catalog.parse_part.cache_clear()


@pytest.mark.parametrize(("broken", "check", "also"), BROKEN, ids=[row[0].__name__ for row in BROKEN])
def test_each_broken_operator_fails_its_check_alone(registered, broken, check, also):
    cheap = not {check, *also} & DEAR
    name = registered(broken)
    with pytest.raises(ConformanceError) as caught:
        check_operator(name, skip=DEAR if cheap else ())
    failures = caught.value.failures
    assert set(failures) == {check, *also}
    head, *lines = str(caught.value).split("\n")
    assert head == f"{name} fails {len(failures)} of {len(CHECKS)} checks"
    assert lines == [f"  {check}: {why}" for check, why in failures.items()]


def test_there_is_a_broken_operator_for_every_check():
    assert {check for _, check, _ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("sound", [Gate, Plain])
def test_a_valid_operator_passes_and_skipped_checks_have_reasons(registered, monkeypatch, sound):
    monkeypatch.setattr("nas_recalib.conformance.tooling.find_spec", lambda name: None)
    sound = type("Sound", (sound,), {})
    random = torch.get_rng_state()
    report = check_operator(registered(sound), skip=("torch_compile", "copies"))
    assert torch.equal(torch.get_rng_state(), random)
    skipped = {
        "torch_compile": "as requested",
        "copies": "as requested",
        "onnx_export": "onnx and onnxscript and onnxruntime not installed",
        "onnx_torchscript": "onnx and onnxscript and onnxruntime not installed",
    }
    if report.operator == "gate":
        skipped["groups"] = "only convolutions have groups"
    assert report.skipped == skipped
    assert report.passed == tuple(name for name in CHECKS if name not in skipped)
    assert f"{report.operator} passes {len(report.passed)} checks; not run: " in str(report)
    assert "onnx_export (onnx and onnxscript and onnxruntime not installed)" in str(report)


@pytest.mark.parametrize(
    ("choice", "options", "message"),
    [
        ("gates", {}, "unknown operator 'gates'; allowed: vanilla"),
        ("psconv+ab", {}, r"'psconv\+ab' is not an operator"),
        ("ab(groups=7)", {}, "ab: groups = 7 is not a divisor of the channels"),
        (3, {}, "choice: 3 is not an operator; write it like 'psconv"),
        ("ab", {"channels": 0}, "channels: 0 is not a whole number from 1 to"),
        ("ab", {"channels": 24.0}, r"channels: 24\.0 is not a whole number"),
        ("ab", {"size": 1}, "size: 1 is not a whole number from 2 to"),
        ("ab", {"size": True}, "size: True is not a whole number"),
        (
            "ab",
            {"skip": "shape"},
            "skip: 'shape' is not a list of names of checks",
        ),
        ("ab", {"skip": None}, "skip: None is not a list of names of checks"),
        ("ab", {"skip": [["shape"]]}, r"skip: \['shape'\] is not a check"),
        ("ab", {"skip": ["speed"]}, "skip: 'speed' is not a check; allowed: shape, groups"),
    ],
)
def test_invalid_arguments_are_refused(choice, options, message):
    with pytest.raises(ValueError, match=message):
        check_operator(choice, **options)
