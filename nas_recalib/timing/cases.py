"""Cases of the operator benchmark: layers, blocks and networks at the papers' sizes, as pairs of calls."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from nas_recalib.costs.macs import fixed_cost
from nas_recalib.device import default_threads, keep_freed_memory
from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.operators import BlockChoice, build_convolution
from nas_recalib.operators.catalog import NONE
from nas_recalib.timing.paired import Call

Set = Literal["layers", "blocks", "networks"]
Sizes = Literal["imagenet", "cifar"]

SETS: tuple[Set, ...] = ("layers", "blocks", "networks")
SIZES: tuple[Sizes, ...] = ("imagenet", "cifar")
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


@dataclass(frozen=True)
class Place:
    """Something that takes a choice and keeps the shape of its input and output whatever it is given.

    Attributes:
        set: What kind of thing it is.
        sizes: Whose images it is made for.
        name: As tables show it: `64@56` (channels, side), `resnet50 layer1.1`, `resnet50`.
        shape: Of one input, (C, H, W).
        build: Gives the module with a choice in it, by torch's global generator.
    """

    set: Set
    sizes: Sizes
    name: str
    shape: tuple[int, int, int]
    build: Callable[[BlockChoice], nn.Module]


@dataclass(frozen=True)
class Case:
    """A choice to be timed against vanilla.

    Attributes:
        place: Where both stand.
        choice: The one that is not vanilla.
        batch: Inputs at once.
    """

    place: Place
    choice: BlockChoice
    batch: int

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (self.batch, *self.place.shape)

    def __str__(self) -> str:
        return f"{self.place.set}, {self.place.name}, batch {self.batch}, {self.choice}"


def layers(sizes: Sizes) -> tuple[Place, ...]:
    """The 3x3 convolutions of each stage's blocks of stride 1, alone."""

    def build(channels: int, choice: BlockChoice) -> nn.Module:
        return build_convolution(choice.convolution, channels, channels, 1)

    return tuple(
        Place("layers", sizes, f"{channels}@{side}", (channels, side, side), partial(build, channels))
        for channels, side in _LAYERS[sizes]
    )


def blocks(sizes: Sizes) -> tuple[Place, ...]:
    """The second block of each stage, the first that keeps its input's shape."""
    backbone = get_backbone(_BACKBONES[sizes])
    _, shapes = fixed_cost(backbone, backbone.input_size, backbone.num_classes, 3)
    places = []
    for name, spec in backbone.blocks().items():
        if name.endswith(".1"):
            _, channels, height, width = shapes[name]
            shape = (channels, height, width)
            places.append(Place("blocks", sizes, f"{backbone.name} {name}", shape, spec.build))
    return tuple(places)


def networks(sizes: Sizes) -> tuple[Place, ...]:
    """ResNet-50 or ResNet-20, with one choice at every block."""
    backbone = get_backbone(_BACKBONES[sizes])

    def build(choice: BlockChoice) -> nn.Module:
        return backbone.build(dict.fromkeys(backbone.blocks(), choice), backbone.num_classes, 3)

    side = backbone.input_size
    return (Place("networks", sizes, backbone.name, (3, side, side), build),)


_PLACES: dict[Set, Callable[[Sizes], tuple[Place, ...]]] = {
    "layers": layers,
    "blocks": blocks,
    "networks": networks,
}


def list_cases(
    which: str = "all",
    sizes: str = "all",
    choices: Sequence[str] = (),
    *,
    mode: str = "forward",
    batch_size: int | None = None,
) -> list[Case]:
    """The cases of the sets and sizes named; a layer takes only choices without recalibration.

    Args:
        which: One of `SETS`, or "all".
        sizes: One of `SIZES`, or "all".
        choices: Written as in a search space (default: `CHOICES`, the papers' operators at the widths that
            they have in the papers' networks of these sizes).
        mode: One of `MODES`; a ResNet-50 is timed at batch 1, 8 and 32 forward, at 32 in training.
        batch_size: For all cases (default: 32 of ImageNet's size, 128 of CIFAR's).

    Raises:
        InputError: If a word is unknown, a choice does not fit, or one has nowhere to stand.
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
    nowhere = [choice for choice in _parse(choices) if choice not in {case.choice for case in cases}]
    if nowhere:
        raise InputError(f"choice: {nowhere[0]} recalibrates a block, and the set 'layers' has none")
    for case in {(case.place.set, case.place.name, case.choice): case for case in cases}.values():
        _refuse_misfit(case, training=mode == "train")
    return cases


def require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises InputError unless a value is one of those allowed."""
    if value not in allowed:
        raise InputError(f"{name}: {value!r} is not one of {', '.join(allowed)}")


def _parse(choices: Sequence[str]) -> list[BlockChoice]:
    try:
        return list(dict.fromkeys(map(BlockChoice.parse, choices)))
    except ValueError as error:
        raise InputError(f"choice: {error}") from error


def _batches(kind: Set, sizes: Sizes, mode: str, batch_size: int | None) -> Iterator[int]:
    if batch_size is not None:
        yield batch_size
    elif kind == "networks" and sizes == "imagenet" and mode == "forward":
        yield from _INFERENCE_BATCHES
    else:
        yield _BATCH[sizes]


def _refuse_misfit(case: Case, *, training: bool) -> None:
    """Runs a case once on the meta device, where it costs nothing."""
    try:
        with torch.device("meta"), torch.no_grad():
            case.place.build(case.choice).train(training)(torch.empty(case.input_shape))
    except ValueError as error:
        raise InputError(f"choice: {case}: {error}") from error


DTYPES = ("float32", "bfloat16")
MEMORY_FORMATS = ("channels_last", "contiguous")
_MOST_SECONDS = 3600


@dataclass(frozen=True)
class Settings:
    """How cases are timed.

    Attributes:
        device: Where.
        mode: "forward" is inference; "train" is forward and backward with batch norm in training.
        dtype: Of convolutions: float32, or bfloat16 under autocast.
        memory_format: Of inputs and weights, channels_last or contiguous.
        threads: Of the CPU (default: half of its cores).
        seconds: Spent on each case, beside warming up; slow ones take five rounds however long.
        compile: Whether both sides are compiled first, each as one graph.
        seed: Of weights, inputs and gradients.

    Raises:
        InputError: If a value is not allowed; it is named.
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
        if not 0 < self.seconds <= _MOST_SECONDS:
            raise InputError(f"seconds: {self.seconds:g} is not more than 0 and at most {_MOST_SECONDS}")


def vanilla_and_choice(case: Case, settings: Settings) -> tuple[Call, Call]:
    """Two callables that do the same work with the same input, one with vanilla and one with the choice.

    In training the gradient of the input is computed too, but for whole networks, whose inputs are images.
    Those also stay float32, where layers and blocks take what convolutions before them would give.
    """
    if settings.compile:
        torch.compiler.reset()  # it gives up on code that it has compiled too often
    images = case.place.set == "networks"
    x = draw(case.input_shape, settings.seed, torch.float32 if images else _dtype(settings), settings)
    x.requires_grad_(settings.mode == "train" and not images)
    return _call(case, BlockChoice(), x, settings), _call(case, case.choice, x, settings)


def _call(case: Case, choice: BlockChoice, x: Tensor, settings: Settings) -> Call:
    with torch.random.fork_rng(devices=[]):  # modules initialise themselves from the global generator
        torch.manual_seed(settings.seed)
        module = case.place.build(choice)
    lay_out(module, settings)
    if settings.compile:
        module.compile(fullgraph=True)
    forward = forward_call(module, x, settings)
    if settings.mode == "forward":
        return forward
    y = forward().detach()
    gradient = draw(tuple(y.shape), settings.seed + 1, y.dtype, settings)

    def forward_and_backward() -> None:
        forward().backward(gradient)
        module.zero_grad()
        x.grad = None

    return forward_and_backward


def lay_out(module: nn.Module, settings: Settings) -> None:
    """Moves a module to the settings' device, memory format and mode, in place."""
    layout = {"device": settings.device, "memory_format": _memory_format(settings)}
    module.to(**layout).train(settings.mode == "train")  # type: ignore[call-overload]


def forward_call(module: nn.Module, x: Tensor, settings: Settings) -> Callable[[], Tensor]:
    """Calls a module with an input in the settings' dtype; in the mode "forward" without any gradient."""
    dtype = _dtype(settings)

    def forward() -> Tensor:
        with torch.autocast(settings.device.type, dtype, enabled=dtype != torch.float32):
            y: Tensor = module(x)
        return y

    return torch.inference_mode()(forward) if settings.mode == "forward" else forward


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype, settings: Settings) -> Tensor:
    """Normal values on the settings' device and in their memory format, by a seed."""
    generator = torch.Generator(settings.device).manual_seed(seed)
    x = torch.randn(shape, generator=generator, device=settings.device, dtype=dtype)
    return x.to(memory_format=_memory_format(settings)) if x.dim() == 4 else x


def _dtype(settings: Settings) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, settings.dtype)
    return dtype


def _memory_format(settings: Settings) -> torch.memory_format:
    channels_last = settings.memory_format == "channels_last"
    return torch.channels_last if channels_last else torch.contiguous_format


def set_up(settings: Settings) -> None:
    """Threads as the settings say and memory kept, from now on."""
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
