"""Checks of operators' arguments and inputs; every error names the operator and what is allowed."""

from collections.abc import Iterable

from torch import Tensor, nn

from nas_recalib.operators._tracing import shape_at_hand


def require(condition: bool, operator: str, argument: str, value: object, allowed: str) -> None:
    """Raise ValueError naming the operator, the argument, its value and what is allowed, unless it holds."""
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
    """Raise ValueError unless a convolution of this shape exists and its groups divide into equal parts.

    Args:
        operator: Name of the operator.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the square kernels.
        stride: Stride of the convolution.
        groups: Groups of the convolution.
        parts: Number of parts that the channels of each group divide into.
        parts_are: Name of the parts in the message, such as "2 halves".
    """
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
    """Return the value as a tuple, or raise ValueError unless it is a list of numbers of at least 1."""
    numbers = tuple(value) if isinstance(value, Iterable) else ()
    require(len(numbers) >= 1, operator, argument, value, allowed)
    require(all(type(n) is int and n >= 1 for n in numbers), operator, argument, value, allowed)
    return numbers


def require_channels(operator: str, x: Tensor, channels: int, residual: Tensor | None = None) -> None:
    """Raise ValueError unless x is (N, channels, H, W) and the residual, if there is one, has its shape."""
    shape = shape_at_hand(x)
    if x.dim() != 4 or shape[1] != channels:
        raise ValueError(f"{operator}: expected (N, {channels}, H, W), got {tuple(shape)}")
    got = shape if residual is None else shape_at_hand(residual)
    if got != shape:
        raise ValueError(f"{operator}: expected a residual {tuple(shape)}, got {tuple(got)}")


def require_statistics(operator: str, x: Tensor, layers: nn.Module) -> None:
    """Raise ValueError if a training batch norm among the layers would see a single value per channel."""
    if not layers.training:
        return
    images, _, height, width = shape_at_hand(x)
    if images * height * width != 1:
        return
    if any(isinstance(layer, nn.BatchNorm2d) and layer.training for layer in layers.modules()):
        raise ValueError(
            f"{operator}: training needs a batch of at least 2 images, for more than one value per channel"
        )
