"""Validation of operators' arguments and inputs, and of user operators' signatures."""

import inspect
import re
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from nas_recalib.operators._tracing import shape_at_hand


def require(condition: bool, operator: str, argument: str, value: object, allowed: str) -> None:
    """Raises ValueError naming the operator, the argument, its value and what is allowed."""
    if not condition:
        raise ValueError(f"{operator}: {argument} = {value!r} is not {allowed}")


def require_convolution(
    operator: str,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    groups: int,
    *,
    parts: int = 1,
    parts_are: str = "",
) -> None:
    """Raises ValueError unless a convolution can be made, each of whose groups falls into equal parts."""
    given = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size}
    for name, value in {**given, "stride": stride, "groups": groups}.items():
        require(type(value) is int, operator, name, value, "a whole number")
    require(kernel_size >= 1 and kernel_size % 2 == 1, operator, "kernel_size", kernel_size, "an odd number")
    require(stride >= 1, operator, "stride", stride, "at least 1")
    require(groups >= 1, operator, "groups", groups, "at least 1")
    unit = groups * parts
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        product = f"groups x {parts_are}" if parts > 1 else "groups"
        allowed = f"a positive multiple of {product} = {unit}"
        require(channels > 0 and channels % unit == 0, operator, name, channels, allowed)


def whole_numbers(operator: str, argument: str, value: object, allowed: str) -> tuple[int, ...]:
    """The value as a tuple; raises ValueError unless it is a list of numbers of at least 1."""
    numbers = tuple(value) if isinstance(value, Iterable) else ()
    require(len(numbers) >= 1, operator, argument, value, allowed)
    require(all(type(n) is int and n >= 1 for n in numbers), operator, argument, value, allowed)
    return numbers


def require_residual(operator: str, x: Tensor, residual: Tensor | None) -> None:
    """Raises ValueError unless what is to be added has the shape of the map."""
    if residual is None:
        return
    expected, got = shape_at_hand(x), shape_at_hand(residual)
    if got != expected:
        raise ValueError(f"{operator}: expected a residual {tuple(expected)}, got {tuple(got)}")


def require_channels(operator: str, x: Tensor, channels: int) -> None:
    """Raises ValueError unless x is (N, channels, H, W)."""
    if x.dim() != 4 or shape_at_hand(x)[1] != channels:
        raise ValueError(f"{operator}: expected (N, {channels}, H, W), got {tuple(shape_at_hand(x))}")


def require_statistics(operator: str, x: Tensor, layers: nn.Module) -> None:
    """Raises ValueError where a batch norm in training, among the layers, would see one value a channel."""
    if not layers.training:
        return
    images, _, height, width = shape_at_hand(x)
    if images * height * width != 1:
        return
    if any(isinstance(layer, nn.BatchNorm2d) and layer.training for layer in layers.modules()):
        raise ValueError(
            f"{operator}: training needs a batch of at least 2 images, batch norm has one value here"
        )


_NAME = re.compile(r"[a-z][a-z0-9-]*")
_ARGUMENT = re.compile(r"[a-z][a-z0-9_]*")

# What a block gives by position.
_LEADING = {
    "convolution": ("in_channels", "out_channels", "kernel_size", "stride", "groups"),
    "recalibration": ("channels",),
}


def require_buildable(name: str, construct: Callable[..., object], kind: str) -> None:
    """Raises ValueError naming what keeps a block from building a constructor, or a choice from naming it."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"an operator cannot be named {name!r}; use lower-case letters, digits and '-'")
    leading = _LEADING[kind]
    try:
        parameters = list(inspect.signature(construct).parameters.values())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: {construct!r} is not a class or function that tells its arguments"
        ) from error
    by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if tuple(by_position[: len(leading)]) != leading:
        raise ValueError(
            f"{name}: a block builds a {kind} from ({', '.join(leading)}), "
            f"but its constructor takes ({', '.join(map(str, parameters))})"
        )
    for parameter in parameters[len(leading) :]:
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise ValueError(f"{name}: a block does not give what {parameter} takes")
        if parameter.kind is parameter.POSITIONAL_ONLY or not _ARGUMENT.fullmatch(parameter.name):
            raise ValueError(f"{name}: argument {parameter.name!r} cannot be written like r=2 in a choice")
