"""Operators by name: registration, parsing of block choices, and building of what a choice names.

An operator's arguments, their types and defaults are read from its constructor. An operator of your own is
searched, counted and exported like the others once it is registered::

    @register("blurconv", "convolution")
    class BlurConv2d(nn.Module):
        def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, groups=1, *, blur: int = 2):
            ...
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Literal, TypeVar, get_args

import torch
from torch import nn

from nas_recalib.operators._signature import describe_type, read_parameters, read_value, writable_parameters
from nas_recalib.operators._tracing import as_one_node
from nas_recalib.operators.choice import Part, Value, read_part, split_parts

Kind = Literal["convolution", "recalibration"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Constructor = TypeVar("Constructor", bound=Callable[..., nn.Module])
Arguments = dict[str, Value | None]
Simplify = Callable[[Arguments], Arguments | Part]

VANILLA = Part("vanilla")
NONE = Part("none")


class UnknownOperator(ValueError):
    """No operator of that name, or of that kind, is registered."""


@dataclass(frozen=True)
class Operator:
    """A registered operator.

    Attributes:
        name: Name of the operator in a choice.
        kind: Place that the operator takes in a block.
        construct: Constructor, called with the block's shape and the arguments of the choice.
        parameters: Parameters of the constructor.
        writable: Those parameters that a choice may set.
        simplify: Function from all arguments of a choice to the simplest ones that build the same module, or
            to a simpler operator.
    """

    name: str
    kind: Kind
    construct: Callable[..., nn.Module]
    parameters: Mapping[str, inspect.Parameter]
    writable: Mapping[str, inspect.Parameter]
    simplify: Simplify


@dataclass(frozen=True, order=True)
class BlockChoice:
    """One convolution and one recalibration, in canonical form: equal choices build equal blocks."""

    convolution: Part = VANILLA
    recalibration: Part = NONE

    def __post_init__(self) -> None:
        for key, part in vars(self).items():
            if not isinstance(part, Part):
                raise ValueError(f"{key}: {part!r} is not a Part; use BlockChoice.parse to read text")

    @classmethod
    def parse(cls, text: str) -> "BlockChoice":
        """Return the choice that `convolution`, `recalibration` or `convolution+recalibration` names.

        Raises:
            ValueError: If a name, an argument or a value is not allowed; the message lists what is.
        """
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is not an operator choice; write it like 'psconv(pattern=1-2)+ab'")
        parts: dict[Kind, Part] = {}
        for part_text in split_parts(text):
            name, _ = read_part(part_text)
            kind = kind_of(name)
            if kind in parts:
                raise ValueError(f"{text!r} names two operators of the kind {kind}")
            parts[kind] = parse_part(part_text, kind)
        return cls(**parts)

    def __str__(self) -> str:
        if self.recalibration == NONE:
            return str(self.convolution)
        return f"{self.convolution}+{self.recalibration}"


_operators: dict[str, Operator] = {}


def register(
    name: str, kind: Kind, simplify: Simplify = lambda arguments: arguments
) -> Callable[[Constructor], Constructor]:
    """Return a decorator that adds a constructor to the catalog under a name.

    torch.fx traces a registered class as one node, since its forward may branch on sizes.

    Args:
        name: Name of the operator in a choice.
        kind: "convolution" or "recalibration".
        simplify: Function from all arguments of a choice to the simplest ones that build the same module, or
            to a simpler operator.

    Raises:
        ValueError: If the name is taken or the kind unknown, or if a block could not build it.
    """

    def add(construct: Constructor) -> Constructor:
        if name in _operators:
            raise ValueError(f"an operator named {name!r} is registered already")
        parameters = read_parameters(name, construct, kind)
        writable = writable_parameters(name, parameters, kind)
        _operators[name] = Operator(name, kind, construct, parameters, writable, simplify)
        function = construct.func if isinstance(construct, partial) else construct
        if inspect.isclass(function) and issubclass(function, nn.Module):
            as_one_node(function)
        return construct

    return add


def names(kind: Kind) -> list[str]:
    """Return the names of the registered operators of a kind."""
    return [operator.name for operator in _operators.values() if operator.kind == kind]


def kind_of(name: str) -> Kind:
    """Return the kind of a registered operator.

    Raises:
        UnknownOperator: If no operator has that name; the message lists those that exist.
    """
    return _operator(name).kind


@lru_cache(maxsize=4096)
def parse_part(text: str, kind: Kind) -> Part:
    """Return one operator with its arguments in canonical form.

    Raises:
        ValueError: If a name, an argument or a value is not allowed; the message lists what is.
    """
    name, given = read_part(text)
    operator = _operator(name, kind)
    for key in given:
        if key not in operator.writable:
            allowed = ", ".join(operator.writable) or "none"
            raise ValueError(f"{name} takes no argument {key!r}; allowed: {allowed}")
    for key, parameter in operator.writable.items():
        if parameter.default is parameter.empty and key not in given:
            raise ValueError(f"{name} needs an argument {key!r}, {describe_type(parameter.annotation)}")
    arguments = {
        key: read_value(name, key, value, operator.writable[key].annotation) for key, value in given.items()
    }
    _try_construct(operator, arguments)
    defaults = {key: parameter.default for key, parameter in operator.writable.items()}
    simple = operator.simplify({**defaults, **arguments})
    if isinstance(simple, Part):
        return simple
    written = [(k, v) for k, v in sorted(simple.items()) if v is not None and v != defaults[k]]
    return Part(name, tuple(written))


def build_convolution(
    part: Part, in_channels: int, out_channels: int, stride: int, groups: int = 1
) -> nn.Module:
    """Build the 3x3 convolution of a block.

    Returns:
        A module from (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)).
    """
    operator = _operator(part.name, "convolution")
    return operator.construct(in_channels, out_channels, 3, stride, groups, **dict(part.arguments))


def build_recalibration(
    part: Part, channels: int, *, clamp: bool = False, source_channels: int | None = None
) -> nn.Module:
    """Build the recalibration of a block.

    Args:
        part: Operator and its arguments.
        channels: Channels of the block's output.
        clamp: Whether to accept maps smaller than the operator's regions, as low-resolution proxies have.
        source_channels: Channels of the block's running concatenation, where it has one.

    Returns:
        A module from (N, channels, H, W) to the same shape; where `takes_source` holds, it is called with the
        running concatenation (N, source_channels, H, W) as well.

    Raises:
        ValueError: If the operator needs a running concatenation and the block has none, or does not fit.
    """
    operator = _operator(part.name, "recalibration")
    if source_channels is None and takes_source(part):
        raise ValueError(
            f"{part.name} computes its weights from a running concatenation, which this block does not have"
        )
    options = {"clamp": clamp, "source_channels": source_channels}
    accepted = {name: value for name, value in options.items() if name in operator.parameters}
    return operator.construct(channels, **dict(part.arguments), **accepted)


def takes_source(part: Part) -> bool:
    """Return whether a recalibration is called with a second tensor, (N, source_channels, H, W)."""
    return "source_channels" in _operator(part.name, "recalibration").parameters


def _operator(name: str, kind: Kind | None = None) -> Operator:
    operator = _operators.get(name)
    if operator is None or (kind is not None and operator.kind != kind):
        allowed = names(kind) if kind else list(_operators)
        problem = f"unknown {kind or 'operator'} {name!r}; allowed: {', '.join(allowed)}"
        raise UnknownOperator(f"{problem}; {_hint(name, operator, allowed)}")
    return operator


def _hint(name: str, other: Operator | None, allowed: Sequence[str]) -> str:
    """Return what the author of an unknown name may have meant."""
    if other is not None:
        return f"{name!r} is a {other.kind}"
    close = get_close_matches(name, allowed, n=1, cutoff=0.7)
    if close:
        return f"did you mean {close[0]!r}?"
    return "load an operator of your own with --plugin MODULE (in Python, import its module first)"


def _try_construct(operator: Operator, arguments: dict[str, Value]) -> None:
    """Let the constructor refuse impossible values, at a size that every number among them divides."""
    numbers = [n for value in arguments.values() for n in (value if isinstance(value, tuple) else (value,))]
    size = 1920 * math.lcm(*(n for n in numbers if type(n) is int and n > 0))
    sizes = (size, size, 3, 1, 1) if operator.kind == "convolution" else (size,)
    source = {"source_channels": size} if "source_channels" in operator.parameters else {}
    try:
        with torch.device("meta"):
            operator.construct(*sizes, **arguments, **source)
    except ValueError:
        raise
    except Exception as error:  # sizes that no tensor has, or a user's own mistake
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{operator.name}: no module of such a size can be made ({why})") from error
