"""Search space: a backbone and the choices allowed at each of its blocks; sampling, encoding, costs."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch

from nas_recalib.architecture import Architecture, architecture_argument
from nas_recalib.costs import Budget, CostTable, Feasible
from nas_recalib.costs.macs import Cost, fixed_cost, named_block_cost
from nas_recalib.costs.memory import fixed_memory, named_block_memory
from nas_recalib.costs.table import Integers
from nas_recalib.errors import FormatNote, InputError, input_errors, whole_number
from nas_recalib.files import dump_yaml, parse_yaml, read_yaml
from nas_recalib.networks import get_backbone
from nas_recalib.operators import Part
from nas_recalib.operators.choice_format import LATEST, oldest_format, write_part_in_format
from nas_recalib.space_file import (
    Granularity,
    Position,
    SpaceFile,
    ambiguous_choices,
    find_space,
    read_positions,
    space_format,
)

Limits = Budget | str | float | None
_MOST_SEED = 2**63 - 1
_MOST_SAMPLES = 10**9


@dataclass(frozen=True)
class SearchSpace:
    """Architectures that a search may choose from.

    An architecture has three forms here: the `Architecture` itself; its indices, the index of its choice at
    every position (`from_indices`, `indices_of`); and its params, the parameters of an Optuna trial such as
    `layer1.0.convolution` (`encode`, `decode`, `indices_to_params`, `params_to_indices`).

    Attributes:
        name: Name of the space.
        backbone: Name of the backbone.
        input_size: Side of the full-size images, in pixels.
        num_classes: Number of classes of the full-size network.
        granularity: Whether a choice is made for every block, every stage or once.
        positions: Blocks that share a choice, and the choices allowed for them.
        proxy_width: Factor on the channels of the proxy network.
        proxy_resolution: Side of the proxy's images, in pixels.
    """

    name: str
    backbone: str
    input_size: int
    num_classes: int
    granularity: Granularity
    positions: tuple[Position, ...]
    proxy_width: float
    proxy_resolution: int

    @classmethod
    def load(cls, name_or_path: str | Path) -> "SearchSpace":
        """Read a space from a file, by path or by the name of a space that comes with the package.

        Raises:
            InputError: If the space does not exist or its file is wrong; file and key are named.
        """
        path = find_space(name_or_path)
        file = read_yaml(path, SpaceFile)
        space = cls._from_file(file, str(path))
        for text, meant in ambiguous_choices(file, depthwise=get_backbone(file.backbone).depthwise).items():
            warnings.warn(
                f"{path}: {text} is read as in version 0.1, as {meant}; for its current meaning add the line "
                f"'format: {space_format(LATEST)}'",
                FormatNote,
                stacklevel=2,
            )
        return space

    @classmethod
    def parse(cls, text: str, origin: str) -> "SearchSpace":
        """Return the space that `describe` wrote as text.

        Args:
            text: Content of a space file.
            origin: Source of the text, for error messages.

        Raises:
            InputError: If the text is not that of a space.
        """
        return cls._from_file(parse_yaml(text, SpaceFile, origin), origin)

    @classmethod
    def _from_file(cls, file: SpaceFile, origin: str) -> "SearchSpace":
        with input_errors(f"{origin}: backbone"):
            shape = get_backbone(file.backbone)
        with input_errors(origin):
            space = cls(
                name=file.name,
                backbone=file.backbone,
                input_size=file.input_size or shape.input_size,
                num_classes=file.num_classes or shape.num_classes,
                granularity=file.granularity,
                positions=tuple(read_positions(list(shape.blocks()), file, depthwise=shape.depthwise)),
                proxy_width=file.proxy.width,
                proxy_resolution=file.proxy.resolution,
            )
            _ = space.table  # builds every choice once, which refuses those that do not fit their block
        return space

    @cached_property
    def table(self) -> CostTable:
        """Cost table of the space: MACs and parameters of every choice at every position."""
        shape = get_backbone(self.backbone)
        specs = shape.blocks()
        constant, shapes = fixed_cost(shape, self.input_size, self.num_classes, 3)
        entries = []
        for position in self.positions:
            costs = [
                sum(
                    (named_block_cost(name, specs[name], choice, shapes[name]) for name in position.blocks),
                    Cost(0, 0),
                )
                for choice in position.choices
            ]
            entries.append(np.array([astuple(cost) for cost in costs]))
        return CostTable(("macs", "params"), np.array(astuple(constant)), tuple(entries))

    def peaks(self, batch: int, dtype: torch.dtype, device: str) -> tuple[int, list[Integers]]:
        """Return peak bytes in inference: an architecture's is the maximum of a constant and its entries.

        Args:
            batch: Number of images at once.
            dtype: Data type of the images and the networks' weights.
            device: "cpu" or "cuda"; neither has to be present.

        Returns:
            The constant peak outside all blocks, and the peaks of each position's choices, (choices,).

        Raises:
            ValueError: If a choice does not fit its block; the block is named.
        """
        shape = get_backbone(self.backbone)
        specs = shape.blocks()
        sizes = (self.input_size, self.num_classes, batch)
        constant, held = fixed_memory(shape, *sizes, dtype, device)
        entries = [
            [
                max(named_block_memory(n, specs[n], choice, held[n], dtype, device) for n in position.blocks)
                for choice in position.choices
            ]
            for position in self.positions
        ]
        return constant, [np.array(entry, dtype=np.int64) for entry in entries]

    def feasible(self, budget: Limits = None) -> Feasible:
        """Return the architectures within a budget.

        Args:
            budget: A `Budget`, or a limit on multiply-accumulates alone as text ("4G") or number (4e9).

        Raises:
            InputError: If no architecture is within the budget, or it is not a budget.
        """
        return _feasible(self, budget if isinstance(budget, Budget) else Budget.parse(budget))

    def count(self, budget: Limits = None) -> int:
        """Return the number of architectures, or of those within a budget: see `Feasible.count`.

        Args:
            budget: A `Budget`, or a limit on multiply-accumulates alone as text ("4G") or number (4e9).

        Raises:
            InputError: If none is within the budget, or it is not a budget.
        """
        return self.feasible(budget).count()

    def sample(self, *, seed: int, budget: Limits = None) -> Architecture:
        """Return an architecture within a budget, drawn uniformly: see `Feasible`.

        Args:
            seed: Seed of the draw, a whole number of at least 0.
            budget: A `Budget`, or a limit on multiply-accumulates alone as text ("4G") or number (4e9).

        Raises:
            InputError: If none is within the budget, or an argument is not as above; it is named.
        """
        return self.from_indices(self.feasible(budget).sample(_generator(seed)))

    def sample_many(self, count: int, *, seed: int, budget: Limits = None) -> list[Architecture]:
        """Return many architectures as `sample` does; the first is not that of `sample` with this seed.

        Args:
            count: Number of architectures.
            seed: Seed of the draws, a whole number of at least 0.
            budget: A `Budget`, or a limit on multiply-accumulates alone as text ("4G") or number (4e9).

        Raises:
            InputError: If none is within the budget, or an argument is not as above; it is named.
        """
        count = whole_number("count", count, 0, _MOST_SAMPLES)
        indices = self.feasible(budget).sample_many(count, _generator(seed))
        return [self.from_indices(tuple(row)) for row in indices.tolist()]

    def from_indices(self, indices: tuple[int, ...]) -> Architecture:
        """Return the architecture with choice indices[i] at position i."""
        blocks = {
            block: position.choices[index]
            for position, index in zip(self.positions, indices, strict=True)
            for block in position.blocks
        }
        sizes = {"input_size": self.input_size, "num_classes": self.num_classes}
        return Architecture.of(self.backbone, blocks, **sizes)

    def indices_of(self, architecture: Architecture) -> tuple[int, ...]:
        """Return the index of an architecture's choice at every position.

        Raises:
            InputError: If the architecture is not in this space; the block is named.
        """
        architecture_argument(architecture)
        same = (self.backbone, self.input_size, self.num_classes)
        if (architecture.backbone, architecture.input_size, architecture.num_classes) != same:
            raise InputError(f"{architecture.backbone} is not an architecture of the space {self.name}")
        blocks = architecture.blocks
        indices = []
        for position in self.positions:
            chosen = {blocks[name] for name in position.blocks}
            if len(chosen) > 1 or not chosen <= set(position.choices):
                allowed = ", ".join(map(str, position.choices))
                raise InputError(f"{position.name}: {blocks[position.blocks[0]]} is not one of {allowed}")
            indices.append(position.choices.index(chosen.pop()))
        return tuple(indices)

    def encode(self, architecture: Architecture) -> dict[str, str]:
        """Return the params of an architecture, `layer1.0.convolution` and so on, as a study stores them.

        Raises:
            InputError: If the architecture is not in this space.
        """
        return self.indices_to_params(self.indices_of(architecture))

    def decode(self, params: Mapping[str, str]) -> Architecture:
        """Return the architecture of a trial's params.

        Raises:
            InputError: If a parameter is missing or its value is not allowed.
        """
        return self.from_indices(self.params_to_indices(params))

    def indices_to_params(self, indices: tuple[int, ...]) -> dict[str, str]:
        """Return the params of the architecture with choice indices[i] at position i."""
        params = {}
        for position, index in zip(self.positions, indices, strict=True):
            pair = divmod(index, len(position.recalibrations))
            for kind, part_index in zip(("convolution", "recalibration"), pair, strict=True):
                name = f"{position.name}.{kind}"
                params[name] = self._options[name][part_index]
        return params

    def params_to_indices(self, params: Mapping[str, str]) -> tuple[int, ...]:
        """Return the index of the choice at every position of the architecture with the given params.

        Raises:
            InputError: If a parameter is missing or its value is not allowed.
        """
        found = {}
        for name, allowed in self._option_indices.items():
            value = params.get(name)
            if value not in allowed:
                raise InputError(f"{name}: {value!r} is not one of {', '.join(allowed)}")
            found[name] = allowed[value]
        return tuple(
            found[f"{p.name}.convolution"] * len(p.recalibrations) + found[f"{p.name}.recalibration"]
            for p in self.positions
        )

    def options(self) -> dict[str, tuple[str, ...]]:
        """Return the allowed values of every parameter, by name."""
        return self._options

    @cached_property
    def _options(self) -> dict[str, tuple[str, ...]]:
        options: dict[str, tuple[str, ...]] = {}
        for position in self.positions:
            options[f"{position.name}.convolution"] = self._texts(position.convolutions)
            options[f"{position.name}.recalibration"] = self._texts(position.recalibrations)
        return options

    @cached_property
    def _option_indices(self) -> dict[str, dict[str, int]]:
        return {
            name: {text: index for index, text in enumerate(texts)} for name, texts in self._options.items()
        }

    @cached_property
    def _format(self) -> int:
        """Number of the oldest format that can express the options; see `operators.choice_format`."""
        parts = (part for p in self.positions for part in (*p.convolutions, *p.recalibrations))
        return oldest_format(parts, depthwise=get_backbone(self.backbone).depthwise)

    def _texts(self, parts: Iterable[Part]) -> tuple[str, ...]:
        """Return operators as text in the format of the space."""
        depthwise = get_backbone(self.backbone).depthwise
        return tuple(str(write_part_in_format(p, self._format, depthwise=depthwise)) for p in parts)

    def _as_lists(self, position: Position) -> dict[str, list[str]]:
        return {
            "convolution": list(self._texts(position.convolutions)),
            "recalibration": list(self._texts(position.recalibrations)),
        }

    def describe(self) -> str:
        """Return the space as the content of a space file, equal for equal spaces."""
        first = self.positions[0]
        content = {
            **({"format": space_format(self._format)} if self._format > 1 else {}),
            "name": self.name,
            "backbone": self.backbone,
            "input_size": self.input_size,
            "num_classes": self.num_classes,
            "granularity": self.granularity,
            **self._as_lists(first),
            "overrides": {
                other.name: self._as_lists(other)
                for other in self.positions
                if self._as_lists(other) != self._as_lists(first)
            },
            "proxy": {"width": self.proxy_width, "resolution": self.proxy_resolution},
        }
        return dump_yaml(content)


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(whole_number("seed", seed, 0, _MOST_SEED))


@lru_cache(maxsize=2)  # prepared once for all draws, but large
def _feasible(space: SearchSpace, budget: Budget) -> Feasible:
    return Feasible(space.table, budget)
