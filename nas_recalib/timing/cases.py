"""Cases of the operator benchmark: layers, blocks and networks at the papers' sizes, and their settings."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nas_recalib.costs.macs import fixed_cost
from nas_recalib.device import default_threads, keep_freed_memory
from nas_recalib.errors import InputError, input_errors
from nas_recalib.networks import get_backbone
from nas_recalib.operators import BlockChoice, build_convolution
from nas_recalib.operators.catalog import NONE
from nas_recalib.timing.paired import Call

Set = Literal["layers", "blocks", "networks"]
Sizes = Literal["imagenet", "cifar"]

SETS: tuple[Set, ...] = get_args(Set)
SIZES: tuple[Sizes, ...] = get_args(Sizes)
MODES = ("forward", "train")
MSAR: Mapping[Sizes, str] = {"imagenet": "msar(reduction=16)", "cifar": "msar(reduction=3)"}  # as printed
CHOICES: Mapping[Sizes, tuple[str, ...]] = {
    sizes: ("scconv", "psconv", "psconv(pattern=1-2)", MSAR[sizes], "ab", "ab-plus", "se") for sizes in SIZES
}

_BACKBONES: dict[Sizes, str] = {"imagenet": "resnet50", "cifar": "resnet20"}
_LAYERS: dict[Sizes, tuple[tuple[int, int], ...]] = {
    "imagenet": ((64, 56), (128, 28), (256, 14), (512, 7)),
    "cifar": ((16, 32), (32, 16), (64, 8)),
}
_BATCH: dict[Sizes, int] = {"imagenet": 32, "cifar": 128}
_INFERENCE_BATCHES = (1, 8, 32)
DTYPES = ("float32", "bfloat16")
MEMORY_FORMATS = ("channels_last", "contiguous")
_MAX_SECONDS = 3600


@dataclass(frozen=True)
class Place:
    """Place for a choice: a layer, block or network whose shapes are the same for every choice.

    Attributes:
        set: Kind of the place: layers, blocks or networks.
        sizes: Data set whose image sizes the place has.
        name: Name in tables: `64@56` (channels, side), `resnet50 layer1.1`, `resnet50`.
        shape: Shape of one input, (C, H, W).
        build: Function that returns the module with a choice, initialised by torch's global generator.
    """

    set: Set
    sizes: Sizes
    name: str
    shape: tuple[int, ...]
    build: Callable[[BlockChoice], nn.Module]


@dataclass(frozen=True)
class Case:
    """A choice that is timed against vanilla at the same place.

    Attributes:
        place: Layer, block or network of both.
        choice: Choice to compare with vanilla.
        batch: Batch size.
    """

    place: Place
    choice: BlockChoice
    batch: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input, (N, C, H, W)."""
        return (self.batch, *self.place.shape)

    def __str__(self) -> str:
        return f"{self.place.set}, {self.place.name}, batch {self.batch}, {self.choice}"


def layers(sizes: Sizes) -> tuple[Place, ...]:
    """Return a place for the 3x3 convolution of each stage's blocks of stride 1."""

    def build(channels: int, choice: BlockChoice) -> nn.Module:
        return build_convolution(choice.convolution, channels, channels, 1)

    return tuple(
        Place("layers", sizes, f"{channels}@{side}", (channels, side, side), partial(build, channels))
        for channels, side in _LAYERS[sizes]
    )


def blocks(sizes: Sizes) -> tuple[Place, ...]:
    """Return a place for the second block of each stage, the first that keeps its input's shape."""
    backbone = get_backbone(_BACKBONES[sizes])
    _, shapes = fixed_cost(backbone, backbone.input_size, backbone.num_classes, 3)
    return tuple(
        Place("blocks", sizes, f"{backbone.name} {name}", shapes[name][1:], spec.build)
        for name, spec in backbone.blocks().items()
        if name.endswith(".1")
    )


def networks(sizes: Sizes) -> tuple[Place, ...]:
    """Return the place that is ResNet-50 or ResNet-20, with one choice at every block."""
    backbone = get_backbone(_BACKBONES[sizes])

    def build(choice: BlockChoice) -> nn.Module:
        return backbone.build(dict.fromkeys(backbone.blocks(), choice), backbone.num_classes, 3)

    side = backbone.input_size
    return (Place("networks", sizes, backbone.name, (3, side, side), build),)


_PLACES = {"layers": layers, "blocks": blocks, "networks": networks}


def list_cases(
    which: str = "all",
    sizes: str = "all",
    choices: Sequence[str] = (),
    *,
    mode: str = "forward",
    batch_size: int | None = None,
) -> list[Case]:
    """Return the cases of the named sets and sizes; a layer takes only choices without recalibration.

    Args:
        which: One of `SETS`, or "all".
        sizes: One of `SIZES`, or "all".
        choices: Choices as in a search space (default: `CHOICES`, the papers' operators at the widths of the
            papers' networks of these sizes).
        mode: One of `MODES`.
        batch_size: Batch size of all cases (default: 32 for ImageNet, 128 for CIFAR, and 1, 8 and 32 for a
            ResNet-50 forward).

    Raises:
        InputError: If a word is unknown, or a choice does not fit any or all of the places.
    """
    require_one_of("set", which, (*SETS, "all"))
    require_one_of("sizes", sizes, (*SIZES, "all"))
    require_one_of("mode", mode, MODES)
    cases = [
        Case(place, choice, batch)
        for kind in SETS
        if which in (kind, "all")
        for size in SIZES
        if sizes in (size, "all")
        for batch in _batches(kind, size, mode, batch_size)
        for place in _PLACES[kind](size)
        for choice in _parse(choices or CHOICES[size])
        if kind != "layers" or choice.recalibration == NONE
    ]
    unused = [choice for choice in _parse(choices) if choice not in {case.choice for case in cases}]
    if unused:
        raise InputError(f"choice: {unused[0]} recalibrates a block, but the set 'layers' has no blocks")
    for case in {(case.place.set, case.place.name, case.choice): case for case in cases}.values():
        with input_errors(f"choice: {case}"), torch.device("meta"), torch.no_grad():
            case.place.build(case.choice).train(mode == "train")(torch.empty(case.input_shape))
    return cases


def require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise InputError unless a value is allowed."""
    if value not in allowed:
        raise InputError(f"{name}: {value!r} is not one of {', '.join(allowed)}")


def _parse(choices: Sequence[str]) -> list[BlockChoice]:
    with input_errors("choice"):
        return list(dict.fromkeys(map(BlockChoice.parse, choices)))


def _batches(kind: Set, sizes: Sizes, mode: str, batch_size: int | None) -> tuple[int, ...]:
    if batch_size is None and (kind, sizes, mode) == ("networks", "imagenet", "forward"):
        return _INFERENCE_BATCHES
    return (_BATCH[sizes] if batch_size is None else batch_size,)


@dataclass(frozen=True)
class Settings:
    """Settings of timings.

    Attributes:
        device: Device to time on.
        mode: "forward" for inference, "train" for forward and backward with batch norm in training mode.
        dtype: Type of the convolutions: float32, or bfloat16 under autocast.
        memory_format: Memory format of inputs and weights, channels_last or contiguous.
        threads: Number of CPU threads (default: half of the cores).
        seconds: Time for each case without warm-up; slow cases take a few rounds, however long.
        compile: Whether the modules are compiled first, each as one graph.
        seed: Seed of weights, inputs and gradients.

    Raises:
        InputError: If a value is not allowed.
    """

    device: torch.device
    mode: str = "forward"
    dtype: str = "float32"
    memory_format: str = "channels_last"
    threads: int = field(default_factory=default_threads)
    seconds: float = 2.0
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_one_of("mode", self.mode, MODES)
        require_one_of("dtype", self.dtype, DTYPES)
        require_one_of("memory-format", self.memory_format, MEMORY_FORMATS)
        cores = os.cpu_count() or 1
        if not 1 <= self.threads <= cores:
            raise InputError(f"threads: {self.threads} is not from 1 to the {cores} cores of this machine")
        if not 0 < self.seconds <= _MAX_SECONDS:
            raise InputError(f"seconds: {self.seconds:g} is not more than 0 and at most {_MAX_SECONDS}")


def make_calls(case: Case, settings: Settings) -> tuple[Call, Call]:
    """Return two callables that do the same work on the same input, with vanilla and with the choice.

    The inputs of networks are images: float32, and without a gradient. Layers and blocks take the dtype of
    the convolutions before them, and in training the gradient of their input is computed too.
    """
    if settings.compile:
        torch.compiler.reset()  # it gives up on code that it has compiled too often
    images = case.place.set == "networks"
    dtype: torch.dtype = torch.float32 if images else getattr(torch, settings.dtype)
    x = random_input(case.input_shape, settings.seed, dtype, settings)
    x.requires_grad_(settings.mode == "train" and not images)
    return _call(case, BlockChoice(), x, settings), _call(case, case.choice, x, settings)


def _call(case: Case, choice: BlockChoice, x: Tensor, settings: Settings) -> Call:
    with torch.random.fork_rng(devices=[]):  # modules initialise themselves from the global generator
        torch.manual_seed(settings.seed)
        module = case.place.build(choice)
    move_module(module, settings)
    if settings.compile:
        module.compile(fullgraph=True)
    forward = forward_call(module, x, settings)
    if settings.mode == "forward":
        return forward
    y = forward().detach()
    gradient = random_input(tuple(y.shape), settings.seed + 1, y.dtype, settings)

    def forward_and_backward() -> None:
        forward().backward(gradient)
        module.zero_grad()
        x.grad = None

    return forward_and_backward


def move_module(module: nn.Module, settings: Settings) -> None:
    """Move a module to the settings' device, memory format and mode, in place."""
    layout = {"device": settings.device, "memory_format": _memory_format(settings)}
    module.to(**layout).train(settings.mode == "train")  # type: ignore[call-overload]


def forward_call(module: nn.Module, x: Tensor, settings: Settings) -> Callable[[], Tensor]:
    """Return a call of a module in the settings' dtype; in the mode "forward" in inference mode."""
    dtype: torch.dtype = getattr(torch, settings.dtype)

    def forward() -> Tensor:
        with torch.autocast(settings.device.type, dtype, enabled=dtype != torch.float32):
            y: Tensor = module(x)
        return y

    return torch.inference_mode()(forward) if settings.mode == "forward" else forward


def random_input(shape: tuple[int, ...], seed: int, dtype: torch.dtype, settings: Settings) -> Tensor:
    """Return normal random values on the settings' device and in their memory format."""
    generator = torch.Generator(settings.device).manual_seed(seed)
    x = torch.randn(shape, generator=generator, device=settings.device, dtype=dtype)
    return x.to(memory_format=_memory_format(settings)) if x.dim() == 4 else x


def _memory_format(settings: Settings) -> torch.memory_format:
    return torch.channels_last if settings.memory_format == "channels_last" else torch.contiguous_format


def configure_torch(settings: Settings) -> None:
    """Set torch's number of threads, and let it keep freed memory."""
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
