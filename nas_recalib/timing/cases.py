"""Where operators are timed: layers alone, blocks and whole networks, at the papers' sizes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from nas_recalib.costs.macs import fixed_cost
from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.operators import BlockChoice, build_convolution
from nas_recalib.operators.catalog import NONE

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
