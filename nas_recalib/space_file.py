"""Search space files: their location and content, and the choices that they allow at each block."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from nas_recalib.errors import InputError, input_errors
from nas_recalib.files import StrictModel, path_argument
from nas_recalib.operators import BlockChoice, Part
from nas_recalib.operators.catalog import KINDS, Kind, parse_part
from nas_recalib.operators.choice_format import modern_text, require_applicable
from nas_recalib.plugins import load_installed

Granularity = Literal["block", "stage", "network"]


class _Options(StrictModel):
    convolution: list[str] | None = Field(default=None, min_length=1)
    recalibration: list[str] | None = Field(default=None, min_length=1)


class _Proxy(StrictModel):
    width: float = Field(default=1.0, gt=0, le=4)
    resolution: int = Field(default=32, ge=8, le=512)


class SpaceFile(StrictModel):
    """Content of search_spaces/*.yaml.

    A file without a format is read as one of version 0.1, with the operators of that version, as Rust reads a
    package without an edition.
    """

    format: Literal["nas-recalib/space/1", "nas-recalib/space/2"] | None = None
    name: str = Field(max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    backbone: str
    input_size: int | None = Field(default=None, ge=1, le=10_000)
    num_classes: int | None = Field(default=None, ge=1, le=1_000_000)
    granularity: Granularity = "block"
    convolution: list[str] = Field(min_length=1)
    recalibration: list[str] = Field(min_length=1)
    overrides: dict[str, _Options] = Field(default_factory=dict)
    proxy: _Proxy = Field(default_factory=_Proxy)


@dataclass(frozen=True)
class Position:
    """Blocks that share one choice, and the choices allowed for them.

    Attributes:
        name: Name of a block (layer1.0) or a stage (layer1), or "network".
        blocks: Names of the blocks that take the choice.
        convolutions: Allowed convolutions.
        recalibrations: Allowed recalibrations.
    """

    name: str
    blocks: tuple[str, ...]
    convolutions: tuple[Part, ...]
    recalibrations: tuple[Part, ...]

    @cached_property
    def choices(self) -> tuple[BlockChoice, ...]:
        """Every allowed pair, with the recalibration varying fastest."""
        return tuple(BlockChoice(c, r) for c in self.convolutions for r in self.recalibrations)


def space_names() -> list[str]:
    """Return the names of the spaces that come with the package."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    installed = Path(__file__).parent / "search_spaces"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "search_spaces"


def find_space(name_or_path: str | Path) -> Path:
    """Return the path of a space's file, given its name or the path itself.

    Raises:
        InputError: If no space that comes with the package has that name.
    """
    path = path_argument("space", name_or_path)
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        return path
    if str(name_or_path) not in space_names():
        known = ", ".join(space_names())
        raise InputError(
            f"unknown space {str(name_or_path)!r}; allowed: {known}, or the path of a .yaml file"
        )
    return _folder() / f"{name_or_path}.yaml"


def read_positions(blocks: list[str], file: SpaceFile, *, depthwise: bool) -> list[Position]:
    """Return the positions of a search space and the choices allowed at each.

    Args:
        blocks: Names of the backbone's blocks.
        file: Content of the space's file.
        depthwise: Whether the backbone's 3x3 convolutions are depthwise.

    Raises:
        ValueError: If an operator or an override is not allowed; the key is named.
    """
    load_installed()
    for key in file.overrides:
        if not any(name == key or name.startswith(f"{key}.") for name in blocks):
            raise ValueError(f"overrides: {key!r} is neither a block nor a stage of {file.backbone}")
    groups: dict[str, list[str]] = {}
    for name in blocks:
        owner = {"block": name, "stage": name.rsplit(".", 1)[0], "network": "network"}[file.granularity]
        groups.setdefault(owner, []).append(name)
    positions = []
    for owner, names in groups.items():
        allowed = {tuple(_allowed(name, kind, file, depthwise=depthwise) for kind in KINDS) for name in names}
        if len(allowed) > 1:
            raise ValueError(
                f"overrides: the blocks of {owner} share one choice, so they need the same options"
            )
        positions.append(Position(owner, tuple(names), *allowed.pop()))
    return positions


def space_format(number: int) -> str:
    """Return the `format` of files whose choices are written in a format of `operators.choice_format`."""
    return f"nas-recalib/space/{number}"


def ambiguous_choices(file: SpaceFile, *, depthwise: bool) -> dict[str, str]:
    """Return the choices whose meaning has changed since version 0.1, and how to write them today."""
    if file.format is not None:
        return {}
    lists = [file.convolution, file.recalibration]
    for options in file.overrides.values():
        lists += [options.convolution or [], options.recalibration or []]
    modern = {}
    for text in (text for texts in lists for text in texts):
        with suppress(ValueError):  # invalid, in a list that overrides leave unused
            modern[text] = modern_text(text, 1, depthwise=depthwise)
    return {text: meant for text, meant in modern.items() if text != meant}


def _allowed(block: str, kind: Kind, file: SpaceFile, *, depthwise: bool) -> tuple[Part, ...]:
    """Return the options of a block: its own override, else its stage's, else those of the space."""
    texts: list[str] = getattr(file, kind)
    key: str = kind
    for owner in (block.rsplit(".", 1)[0], block):
        override = file.overrides.get(owner)
        overriding = getattr(override, kind) if override else None
        if overriding is not None:
            texts, key = overriding, f"overrides.{owner}.{kind}"
    number = int(file.format.rpartition("/")[2]) if file.format else 1
    parts: dict[Part, str] = {}
    for text in texts:
        with input_errors(key):
            part = parse_part(modern_text(text, number, depthwise=depthwise), kind)
            require_applicable(part, depthwise=depthwise)
        if part in parts:
            raise ValueError(f"{key}: {text!r} and {parts[part]!r} are the same operator")
        parts[part] = text
    return tuple(parts)
