"""Architecture: a backbone with a choice for each block; reading, writing, building and costing it."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from nas_recalib.costs.macs import Cost, network_cost
from nas_recalib.costs.memory import network_memory
from nas_recalib.errors import InputError, whole_number
from nas_recalib.files import StrictModel, dump_yaml, path_argument, read_yaml, write_atomically
from nas_recalib.networks import Backbone, get_backbone
from nas_recalib.networks.backbone import GateFan
from nas_recalib.operators import BlockChoice
from nas_recalib.operators.catalog import UnknownOperator
from nas_recalib.operators.choice_format import (
    FORMATS,
    modern_text,
    oldest_format,
    require_applicable,
    write_in_format,
)
from nas_recalib.plugins import load_installed, require_plugins

_TEXT = re.compile(
    r"(?P<backbone>[^@\s]+)@(?P<size>\d+)/(?P<classes>\d+)(#(?P<format>[1-9]\d?))?(?P<blocks>( \S+?=\S+)*)"
)
_FORMAT = "nas-recalib/architecture/"
_MOST = 1_000_000  # pixels of a side, classes and channels
_MOST_SEED = 2**63 - 1


class _CostFile(StrictModel):
    macs: int
    params: int


class _ArchitectureFile(StrictModel):
    format: Literal["nas-recalib/architecture/1", "nas-recalib/architecture/2"]
    backbone: str
    input_size: int
    num_classes: int
    blocks: dict[str, str]
    cost: _CostFile | None = None
    origin: dict[str, Any] | None = None


@dataclass(frozen=True)
class Architecture:
    """A backbone with one block choice for each block; equal if it builds the same network.

    Attributes:
        backbone: Name of the backbone.
        choices: Choice of each block, in the order of the blocks.
        input_size: Side of the images, in pixels.
        num_classes: Number of classes.
    """

    backbone: str
    choices: tuple[BlockChoice, ...]
    input_size: int
    num_classes: int

    @classmethod
    def of(
        cls,
        backbone: str,
        blocks: Mapping[str, str | BlockChoice] | str | BlockChoice,
        *,
        input_size: int | None = None,
        num_classes: int | None = None,
    ) -> "Architecture":
        """Return an architecture with a choice for each block, or one choice for all.

        Args:
            backbone: Name of the backbone.
            blocks: Choices under the blocks' names, or a single choice that every block takes.
            input_size: Side of the images (default: the backbone's).
            num_classes: Number of classes (default: the backbone's), at least 1: for a network without a
                classifier, build the architecture with `nr.build(architecture, num_classes=0)`.

        Raises:
            ValueError: If the backbone, a block or a choice is unknown, a block is missing, or a size is not
                a whole number from 1 to 1,000,000.
        """
        if not isinstance(backbone, str):
            raise InputError(f"backbone: {backbone!r} is not the name of a backbone, such as 'resnet50'")
        shape = get_backbone(backbone)
        names = list(shape.blocks())
        if isinstance(blocks, str | BlockChoice):
            blocks = dict.fromkeys(names, blocks)
        if not isinstance(blocks, Mapping):
            raise InputError(f"blocks: {blocks!r} is neither a choice nor a mapping from blocks to choices")
        unknown = [name for name in blocks if name not in names]
        if unknown:
            raise ValueError(f"{backbone} has no block {unknown[0]!r}; its blocks: {', '.join(names)}")
        missing = [name for name in names if name not in blocks]
        if missing:
            raise ValueError(f"no choice for the block {missing[0]!r} of {backbone}")
        size = shape.input_size if input_size is None else input_size
        classes = shape.num_classes if num_classes is None else num_classes
        if num_classes == 0:
            raise InputError(
                f"num_classes: {num_classes!r} is not from 1 to 1,000,000; for a network without a "
                "classifier, call nr.build(architecture, num_classes=0)"
            )
        size = whole_number("input_size", size, 1, _MOST)
        classes = whole_number("num_classes", classes, 1, _MOST)
        choices = tuple(_choice(name, blocks[name]) for name in names)
        for name, choice in zip(names, choices, strict=True):
            try:
                require_applicable(choice.convolution, depthwise=shape.depthwise)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return cls(backbone, choices, size, classes)

    @classmethod
    def parse(cls, text: str) -> "Architecture":
        """Return the architecture that `str` wrote as text.

        Raises:
            ValueError: If the text has another form.
        """
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                f"{text!r} is not an architecture; expected backbone@size/classes block=choice ..."
            )
        items = [item.split("=", 1) for item in match["blocks"].split()]
        names = [name for name, _ in items]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"the block {twice[0]!r} is given twice")
        number = int(match["format"] or 1)
        if number not in FORMATS:
            raise ValueError(f"{text.split()[0]!r} was written by a later version of nas-recalib")
        sizes = {"input_size": int(match["size"]), "num_classes": int(match["classes"])}
        return cls._read(match["backbone"], dict(items), number, **sizes)

    @classmethod
    def load(cls, path: str | Path) -> "Architecture":
        """Read an architecture file; a cost in it must be that of the network.

        Raises:
            InputError: If the file is incomplete or inconsistent; file, key and what is allowed are named.
        """
        path = path_argument("path", path)
        file = read_yaml(path, _ArchitectureFile)
        sizes = {"input_size": file.input_size, "num_classes": file.num_classes}
        try:
            number = int(file.format.removeprefix(_FORMAT))
            architecture = cls._read(file.backbone, file.blocks, number, **sizes)
            cost = architecture.cost()
        except ValueError as error:
            plugins = (file.origin or {}).get("plugins")
            unknown = isinstance(error.__cause__, UnknownOperator)
            if unknown and isinstance(plugins, list) and all(type(plugin) is str for plugin in plugins):
                require_plugins(f"{path}: it", plugins)
            raise InputError(f"{path}: {error}") from error
        for key, given in file.cost.model_dump().items() if file.cost else ():
            counted = getattr(cost, key)
            if given != counted:
                raise InputError(
                    f"{path}: cost.{key} is {given}, but its blocks cost {counted}; was it edited?"
                )
        return architecture

    def save(self, path: str | Path, origin: Mapping[str, Any] | None = None) -> None:
        """Write an architecture file atomically.

        Args:
            path: Path of the file.
            origin: Plain data on the origin of the architecture (study, trial, proxy, accuracy).

        Raises:
            InputError: If the file cannot be written or the origin is not plain data.
        """
        write_atomically(path_argument("path", path), self.to_yaml(origin))

    def to_yaml(self, origin: Mapping[str, Any] | None = None) -> str:
        """Return the content of an architecture file; see `save`.

        Raises:
            InputError: If the origin is not plain data.
        """
        if origin is not None and not isinstance(origin, Mapping):
            raise InputError(f"origin: {origin!r} is not a mapping")
        cost = self.cost()
        content: dict[str, Any] = {
            "format": f"{_FORMAT}{self._format}",
            "backbone": self.backbone,
            "input_size": self.input_size,
            "num_classes": self.num_classes,
            "blocks": self._texts(),
            "cost": {"macs": cost.macs, "params": cost.params},
            **({"origin": dict(origin)} if origin else {}),
        }
        return dump_yaml(content)

    @property
    def blocks(self) -> dict[str, BlockChoice]:
        """The choice of each block, under its module name."""
        return dict(zip(self.shape.blocks(), self.choices, strict=True))

    @property
    def shape(self) -> Backbone:
        return get_backbone(self.backbone)

    def cost(self) -> Cost:
        """Return the MACs and parameters at the architecture's own image size and classes.

        Raises:
            ValueError: If an operator does not fit its block.
        """
        return network_cost(self.shape, self.blocks, input_size=self.input_size, num_classes=self.num_classes)

    def memory(self, batch: int = 1, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> int:
        """Return the peak bytes of activations, without weights, in inference at the architecture's size.

        Args:
            batch: Number of images at once.
            dtype: Type of the images and of the network's weights.
            device: "cpu" or "cuda"; neither has to be present.

        Raises:
            ValueError: If an operator does not fit its block.
        """
        batch = whole_number("batch", batch, 1, _MOST)
        if str(device).partition(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"device: {device!r} is not cpu or cuda")
        sizes = {"input_size": self.input_size, "num_classes": self.num_classes, "batch": batch}
        return network_memory(self.shape, self.blocks, **sizes, dtype=dtype, device=device)

    def operators(self) -> str:
        """Return the number of blocks with each operator, as in `9 scconv, 7 psconv; 10 none, 6 ab`."""
        kinds = zip(*((choice.convolution, choice.recalibration) for choice in self.choices), strict=True)
        return "; ".join(
            ", ".join(f"{count} {part}" for part, count in Counter(kind).most_common()) for kind in kinds
        )

    def __str__(self) -> str:
        blocks = " ".join(f"{name}={text.replace(' ', '')}" for name, text in self._texts().items())
        mark = "" if self._format == 1 else f"#{self._format}"
        return f"{self.backbone}@{self.input_size}/{self.num_classes}{mark} {blocks}"

    @property
    def _format(self) -> int:
        """Number of the oldest format that can express the choices; see `operators.choice_format`."""
        parts = (part for choice in self.choices for part in (choice.convolution, choice.recalibration))
        return oldest_format(parts, depthwise=self.shape.depthwise)

    def _texts(self) -> dict[str, str]:
        """Return the choice of each block as text, in the architecture's format."""
        number, depthwise = self._format, self.shape.depthwise
        return {
            name: write_in_format(choice, number, depthwise=depthwise) for name, choice in self.blocks.items()
        }

    @classmethod
    def _read(cls, backbone: str, texts: Mapping[str, str], number: int, **sizes: int) -> "Architecture":
        """Return the architecture of texts in a format; see `operators.choice_format`."""
        shape = get_backbone(backbone)
        if not set(texts) <= set(shape.blocks()):
            return cls.of(backbone, texts, **sizes)  # raises the error that names the unknown block
        depthwise = shape.depthwise
        blocks = {
            name: _choice(name, text, lambda text: modern_text(text, number, depthwise=depthwise))
            for name, text in texts.items()
        }
        return cls.of(backbone, blocks, **sizes)


def cost(architecture: Architecture) -> Cost:
    """Return the MACs and parameters of an architecture, at its own image size and classes."""
    return architecture_argument(architecture).cost()


def build(
    architecture: Architecture, *, num_classes: int | None = None, in_channels: int = 3, seed: int = 0
) -> nn.Module:
    """Return the network of an architecture, freshly initialised.

    Args:
        architecture: The architecture to build.
        num_classes: Number of classes (default: the architecture's); 0 builds the network without its
            classifier.
        in_channels: Number of channels of the images.
        seed: Seed of the initial weights. torch's global generator is left as it was.

    Returns:
        A module from (N, in_channels, H, W) to (N, num_classes) under torchvision's names; for no classes, to
        the features that the classifier would take, (N, C), as timm's networks give them.

    Raises:
        InputError: If an argument is of another type or out of range; it is named.
    """
    shape = architecture_argument(architecture).shape
    classes = architecture.num_classes if num_classes is None else num_classes
    classes = whole_number("num_classes", classes, 0, _MOST)
    channels = whole_number("in_channels", in_channels, 1, _MOST)
    seed = whole_number("seed", seed, 0, _MOST_SEED)
    return build_seeded(shape, architecture.blocks, classes, channels, seed)


def build_seeded(
    shape: Backbone,
    blocks: Mapping[str, BlockChoice],
    num_classes: int,
    in_channels: int,
    seed: int,
    gate_fan: GateFan = "fan_in",
) -> nn.Module:
    """Build a network whose initial weights follow from the seed alone; see `Backbone.build`."""
    with torch.random.fork_rng(devices=[]):  # modules initialise themselves from the global generator
        torch.manual_seed(seed)
        return shape.build(blocks, num_classes, in_channels, gate_fan)


def architecture_argument(value: object) -> Architecture:
    """Return an argument that must be an architecture.

    Raises:
        InputError: If it is something else, such as the path of an architecture's file.
    """
    if not isinstance(value, Architecture):
        raise InputError(
            f"architecture: expected an Architecture, found {type(value).__name__}; "
            "Architecture.load reads a file, and Architecture.of takes a backbone and its choices"
        )
    return value


def _choice(
    block: str, choice: str | BlockChoice, modern: Callable[[str], str] = lambda text: text
) -> BlockChoice:
    if isinstance(choice, BlockChoice):
        return choice
    if not isinstance(choice, str):
        raise InputError(f"{block}: {choice!r} is not a choice; write it like psconv+ab")
    load_installed()
    try:
        return BlockChoice.parse(modern(choice))
    except ValueError as error:
        raise ValueError(f"{block}: {error}") from error
