"""Constructors of operators: what a block passes to them, and which arguments a choice may set."""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from nas_recalib.operators.choice import Value

# What a block passes by position and by name; every other parameter of a constructor may be set in a choice.
_POSITIONAL = {
    "convolution": ("in_channels", "out_channels", "kernel_size", "stride", "groups"),
    "recalibration": ("channels",),
}
_KEYWORDS = ("source_channels", "clamp")  # to recalibrations whose constructors have them

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_ARGUMENT = re.compile(r"[a-z][a-z0-9_]*")
_NUMBER = re.compile(r"\d{1,9}")


def read_parameters(name: str, construct: Callable[..., Any], kind: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of an operator's constructor without those that a partial has bound.

    Raises:
        ValueError: If a choice cannot name the operator, or a block cannot build it.
    """
    if kind not in _POSITIONAL:
        raise ValueError(f"{kind!r} is not a kind of operator; allowed: {', '.join(_POSITIONAL)}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"an operator cannot be named {name!r}; use lower-case letters, digits and '-'")
    try:
        signature = inspect.signature(construct, eval_str=True)
    except NameError as error:
        raise ValueError(f"{name}: its type hints cannot be read: {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: {construct!r} is not a class or function whose arguments can be read"
        ) from error
    bound = construct.keywords if isinstance(construct, partial) else {}
    taken = signature.parameters.values()
    by_position = [p.name for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    positional = _POSITIONAL[kind]
    if tuple(by_position[: len(positional)]) != positional:
        raise ValueError(
            f"{name}: a block builds a {kind} from ({', '.join(positional)}), "
            f"but its constructor takes ({', '.join(map(str, taken))})"
        )
    return {key: parameter for key, parameter in signature.parameters.items() if key not in bound}


def writable_parameters(
    name: str, parameters: Mapping[str, inspect.Parameter], kind: str
) -> dict[str, inspect.Parameter]:
    """Return the parameters that a choice may set, their annotations without None.

    Raises:
        ValueError: If one cannot be written in a choice, by its name or by its type.
    """
    passed = (*_POSITIONAL[kind], *(_KEYWORDS if kind == "recalibration" else ()))
    writable = {}
    for key, parameter in parameters.items():
        if key in passed or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise ValueError(f"{name}: a block passes nothing to {parameter}")
        if parameter.kind is parameter.POSITIONAL_ONLY or not _ARGUMENT.fullmatch(key):
            raise ValueError(f"{name}: argument {key!r} cannot be written like r=2 in a choice")
        hint = parameter.annotation
        if get_origin(hint) in (Union, UnionType):
            hint = next(choice for choice in get_args(hint) if choice is not type(None))
        if hint not in (int, bool) and get_origin(hint) not in (tuple, Literal):
            allowed = "int, bool, tuple[int, ...] or Literal[...]"
            raise ValueError(f"{name}: its argument {key!r} must have one of the types {allowed}")
        writable[key] = parameter.replace(annotation=hint)
    return writable


def read_value(operator: str, key: str, text: str, hint: Any) -> Value:
    """Return the value of an argument that a choice writes as text.

    Raises:
        ValueError: If the text is not a value of the argument's type.
    """
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
        raise ValueError(f"{operator}: {key}={text} is not {describe_type(hint)}")
    return value


def describe_type(hint: Any) -> str:
    """Return the values that an argument of a type may have, in words."""
    if hint is bool:
        return "yes or no"
    if hint is int:
        return "a whole number of at most 9 digits"
    if get_origin(hint) is tuple:
        return "a list of whole numbers like 1-2-4"
    return f"one of {', '.join(map(str, get_args(hint)))}"
