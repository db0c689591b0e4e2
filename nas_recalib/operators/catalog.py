"""Operators by name: what may be written in a search space, and what it builds.

An operator's arguments, their types and defaults are read off its constructor. A user's own operator joins by
`register`, and is from then on searched, counted and exported like the others::

    @register("blurconv", "convolution")
    class BlurConv2d(nn.Module):
        def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, groups=1, *, blur: int = 2):
            ...
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache, partial
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn

from nas_recalib.operators._checks import require_buildable
from nas_recalib.operators._tracing import as_one_node
from nas_recalib.operators.booster import AccuracyBooster
from nas_recalib.operators.booster_designs import BoosterDesign
from nas_recalib.operators.cbam import CBAM
from nas_recalib.operators.choice import Part, Value, read_part, split_parts
from nas_recalib.operators.gather_excite import GatherExcite
from nas_recalib.operators.msar import MSSAR
from nas_recalib.operators.psconv import PSConv2d
from nas_recalib.operators.psconv_learned import LearnedPSConv2d
from nas_recalib.operators.scconv import SCConv2d
from nas_recalib.operators.squeeze_excite import SqueezeExcite

Kind = Literal["convolution", "recalibration"]
Constructor = TypeVar("Constructor", bound=Callable[..., nn.Module])
Arguments = dict[str, Value | None]
Reduce = Callable[[Arguments], Part | None]

_NUMBER = re.compile(r"\d{1,9}")
VANILLA = Part("vanilla")
NONE = Part("none")

# What the block around an operator gives it; a constructor's other parameters may be written in a choice.
# A recalibration that takes `source_channels` is called with the block's running concatenation, too.
_GIVEN = {
    "convolution": ("in_channels", "out_channels", "kernel_size", "stride", "groups"),
    "recalibration": ("channels", "source_channels", "clamp"),
}


class UnknownOperator(ValueError):
    """No operator of that name, or of that kind, is registered."""


@dataclass(frozen=True)
class Operator:
    """A registered operator.

    Attributes:
        name: As written in a choice.
        kind: Which place in a block it takes.
        construct: Called with the block's shape and the arguments of the choice.
        hints: Type of each argument that may be written.
        defaults: Default of each, `inspect.Parameter.empty` where it must be written.
        reduce: Gives the simpler part that builds the same module, where there is one.
    """

    name: str
    kind: Kind
    construct: Callable[..., nn.Module]
    hints: dict[str, Any]
    defaults: dict[str, Any]
    reduce: Reduce

    def takes(self, parameter: str) -> bool:
        """Whether the constructor wants that to be given by the block."""
        return parameter in _parameters(self.construct)


@dataclass(frozen=True, order=True)
class BlockChoice:
    """One convolution and one recalibration, in canonical form: equal choices build equal blocks."""

    convolution: Part = VANILLA
    recalibration: Part = NONE

    def __post_init__(self) -> None:
        for key, part in vars(self).items():
            if not isinstance(part, Part):
                raise ValueError(f"{key}: {part!r} is not a Part; BlockChoice.parse reads text")

    @classmethod
    def parse(cls, text: str) -> "BlockChoice":
        """Reads `convolution`, `recalibration` or `convolution+recalibration`.

        Raises:
            ValueError: If a name, an argument or a value is not allowed; the message says what is.
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


def register(name: str, kind: Kind, reduce: Reduce = lambda _: None) -> Callable[[Constructor], Constructor]:
    """Adds a constructor to the catalog under a name.

    A class becomes one node of every torch.fx trace, whatever its forward decides by sizes.

    Raises:
        ValueError: If the name is taken or the kind unknown, or if a block could not build it.
    """

    def add(construct: Constructor) -> Constructor:
        if name in _operators:
            raise ValueError(f"an operator named {name!r} is registered already")
        if kind not in _GIVEN:
            raise ValueError(f"{kind!r} is not a kind of operator; allowed: {', '.join(_GIVEN)}")
        require_buildable(name, construct, kind)
        hints, defaults = _writable(construct, kind)
        _operators[name] = Operator(name, kind, construct, hints, defaults, reduce)
        function = construct.func if isinstance(construct, partial) else construct
        if inspect.isclass(function) and issubclass(function, nn.Module):
            as_one_node(function)
        return construct

    return add


def names(kind: Kind) -> list[str]:
    """Names of the registered operators of a kind."""
    return [operator.name for operator in _operators.values() if operator.kind == kind]


def kind_of(name: str) -> Kind:
    """Kind of a registered operator.

    Raises:
        ValueError: If there is none of that name; the message lists those there are.
    """
    return _operator(name).kind


@lru_cache(maxsize=4096)
def parse_part(text: str, kind: Kind) -> Part:
    """Reads one operator with its arguments into canonical form.

    Raises:
        ValueError: If a name, an argument or a value is not allowed; the message says what is.
    """
    name, given = read_part(text)
    operator = _operator(name, kind)
    unknown = [key for key in given if key not in operator.hints]
    if unknown:
        allowed = ", ".join(operator.hints) or "none"
        raise ValueError(f"{name} takes no argument {unknown[0]!r}; allowed: {allowed}")
    needed = [key for key, default in operator.defaults.items() if default is inspect.Parameter.empty]
    for key in (key for key in needed if key not in given):
        raise ValueError(f"{name} needs an argument {key!r}, {_describe(_bare(operator.hints[key]))}")
    arguments = {key: _read_value(name, key, value, operator.hints[key]) for key, value in given.items()}
    _try_construct(operator, arguments)
    part = operator.reduce({**operator.defaults, **arguments})
    return part or _canonical(operator, arguments)


def build_convolution(
    part: Part, in_channels: int, out_channels: int, stride: int, groups: int = 1
) -> nn.Module:
    """The 3x3 convolution of a block: (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
    operator = _operator(part.name, "convolution")
    return operator.construct(in_channels, out_channels, 3, stride, groups, **dict(part.arguments))


def build_recalibration(
    part: Part, channels: int, *, clamp: bool = False, source_channels: int | None = None
) -> nn.Module:
    """The recalibration of a block: (N, channels, H, W) to the same.

    Args:
        part: Which.
        channels: Channels of the block's output.
        clamp: Accept maps smaller than the operator's regions, as low-resolution proxies have.
        source_channels: Channels of the block's running concatenation, where it has one.

    Raises:
        ValueError: If the operator needs a running concatenation and the block has none, or does not fit.
    """
    operator = _operator(part.name, "recalibration")
    if source_channels is None and takes_source(part):
        raise ValueError(
            f"{part.name} computes its weights from a running concatenation, which this block does not have"
        )
    given = {"clamp": clamp, "source_channels": source_channels}
    taken = {name: value for name, value in given.items() if operator.takes(name)}
    return operator.construct(channels, **dict(part.arguments), **taken)


def takes_source(part: Part) -> bool:
    """Whether a recalibration is called with a second tensor, (N, source_channels, H, W)."""
    return _operator(part.name, "recalibration").takes("source_channels")


def _operator(name: str, kind: Kind | None = None) -> Operator:
    operator = _operators.get(name)
    if operator is None or (kind is not None and operator.kind != kind):
        allowed = names(kind) if kind else list(_operators)
        problem = f"unknown {kind or 'operator'} {name!r}; allowed: {', '.join(allowed)}"
        raise UnknownOperator(f"{problem}; {_hint(name, operator, allowed)}")
    return operator


def _hint(name: str, other: Operator | None, allowed: Sequence[str]) -> str:
    """Return what whoever wrote an unknown name may have meant."""
    if other is not None:
        return f"{name!r} is a {other.kind}"
    close = get_close_matches(name, allowed, n=1, cutoff=0.7)
    if close:
        return f"did you mean {close[0]!r}?"
    return "one of your own needs --plugin MODULE (in Python, import its module first)"


def _canonical(operator: Operator, arguments: Mapping[str, Value | None]) -> Part:
    told = [
        (key, value)
        for key, value in sorted(arguments.items())
        if value is not None and value != operator.defaults[key]
    ]
    return Part(operator.name, tuple(told))


def _try_construct(operator: Operator, arguments: dict[str, Value]) -> None:
    """Lets the constructor refuse impossible values, at a size that every number among them divides."""
    numbers = [n for value in arguments.values() for n in (value if isinstance(value, tuple) else (value,))]
    size = 1920 * math.lcm(*(n for n in numbers if type(n) is int and n > 0))
    sizes = (size, size, 3, 1, 1) if operator.kind == "convolution" else (size,)
    source = {"source_channels": size} if operator.takes("source_channels") else {}
    try:
        with torch.device("meta"):
            operator.construct(*sizes, **arguments, **source)
    except ValueError:
        raise
    except Exception as error:  # sizes that no tensor has, or a user's own mistake
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{operator.name}: no module of such a size can be made ({why})") from error


def _writable(construct: Callable[..., nn.Module], kind: Kind) -> tuple[dict[str, Any], dict[str, Any]]:
    function = construct.__init__ if inspect.isclass(construct) else construct
    if isinstance(construct, partial):
        function = construct.func.__init__ if inspect.isclass(construct.func) else construct.func
    parameters = {
        name: parameter
        for name, parameter in _parameters(construct).items()
        if name not in _GIVEN[kind] and parameter.kind is not parameter.VAR_KEYWORD
    }
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ValueError(f"an operator's type hints cannot be read: {error}") from error
    for name in parameters:
        hint = _bare(hints.get(name))
        if hint not in (int, bool) and get_origin(hint) not in (tuple, Literal):
            allowed = "int, bool, tuple[int, ...] or Literal[...]"
            raise ValueError(f"an operator's argument {name!r} must have one of the types {allowed}")
    return {name: hints[name] for name in parameters}, {name: p.default for name, p in parameters.items()}


def _parameters(construct: Callable[..., nn.Module]) -> dict[str, inspect.Parameter]:
    """Parameters of a constructor, without those that a partial has bound."""
    bound = construct.keywords if isinstance(construct, partial) else {}
    parameters = inspect.signature(construct).parameters
    return {name: parameter for name, parameter in parameters.items() if name not in bound}


def _bare(hint: Any) -> Any:
    """The type of an optional argument without its None."""
    if get_origin(hint) in (Union, UnionType):
        return next(choice for choice in get_args(hint) if choice is not type(None))
    return hint


def _read_value(operator: str, key: str, text: str, hint: Any) -> Value:
    hint = _bare(hint)
    value: Value | None = None
    if hint is bool:
        value = {"yes": True, "no": False}.get(text)
    elif hint is int and _NUMBER.fullmatch(text):
        value = int(text)
    elif get_origin(hint) is tuple and all(map(_NUMBER.fullmatch, text.split("-"))):
        value = tuple(map(int, text.split("-")))
    elif get_origin(hint) is Literal:
        value = next((choice for choice in get_args(hint) if str(choice) == text), None)
    if value is None:
        raise ValueError(f"{operator}: {key}={text} is not {_describe(hint)}")
    return value


def _describe(hint: Any) -> str:
    if hint is bool:
        return "yes or no"
    if hint is int:
        return "a whole number of at most 9 digits"
    if get_origin(hint) is tuple:
        return "a list of whole numbers like 1-2-4"
    return f"one of {', '.join(map(str, get_args(hint)))}"


def _reduce_psconv(arguments: Arguments) -> Part | None:
    """A pattern is its shortest period (the same lattice, channels relabelled); all ones is vanilla."""
    pattern = arguments["pattern"]
    assert isinstance(pattern, tuple)
    t = len(pattern)
    period = next(p for p in range(1, t + 1) if t % p == 0 and pattern == pattern[:p] * (t // p))
    if pattern[:period] == (1,):
        return VANILLA
    told = {**arguments, "pattern": pattern[:period]}
    if period == 1:
        told["vary"] = "both"
        told["depthwise"] = _operators["psconv"].defaults["depthwise"]
    return _canonical(_operators["psconv"], told)


def _reduce_scconv(arguments: Arguments) -> Part | None:
    """A window of one position leaves nothing to pool and nothing to bring back to size."""
    if arguments["r"] != 1:
        return None
    defaults = _operators["scconv"].defaults
    same = {key: defaults[key] for key in ("ceil", "pooling", "upsample")}
    return _canonical(_operators["scconv"], {**arguments, **same})


def _reduce_ab(arguments: Arguments) -> Part | None:
    return Part("ab-plus") if arguments["groups"] == 1 else None


def _reduce_msar(name: str, arguments: Arguments) -> Part | None:
    """Scales are terms of a sum; one alone shares nothing.

    A window of scale 1 is not the whole map where that is longer than it is wide.
    """
    scales = arguments["scales"]
    assert isinstance(scales, tuple)
    told = {**arguments, "scales": tuple(sorted(scales))}
    if len(scales) == 1:
        told["share"] = False
    return _canonical(_operators[name], told)


def _reduce_ge(arguments: Arguments) -> Part | None:
    """The default extent may be told; a reduction is that of the "mlp" alone."""
    told = dict(arguments)
    if told["extent"] == 8:
        told["extent"] = None
    if told["excitation"] != "mlp":
        told["r"] = _operators["ge"].defaults["r"]
    return _canonical(_operators["ge"], told)


@register("vanilla", "convolution")
def _vanilla(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, groups: int = 1
) -> nn.Module:
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)


@register("none", "recalibration")
def _none(channels: int) -> nn.Module:  # noqa: ARG001 - one call for every recalibration
    return nn.Identity()


register("scconv", "convolution", _reduce_scconv)(SCConv2d)
register("psconv", "convolution", _reduce_psconv)(PSConv2d)
register("psconv-learned", "convolution")(LearnedPSConv2d)
register("msar", "recalibration", partial(_reduce_msar, "msar"))(partial(MSSAR, source_channels=None))
register("msar-multi", "recalibration", partial(_reduce_msar, "msar-multi"))(MSSAR)
register("ab", "recalibration", _reduce_ab)(AccuracyBooster)
register("ab-plus", "recalibration")(partial(AccuracyBooster, groups=1))
register("se", "recalibration")(SqueezeExcite)
register("cbam", "recalibration")(CBAM)
register("ge", "recalibration", _reduce_ge)(GatherExcite)
register("ab-design", "recalibration")(BoosterDesign)
