"""Helpers for operators while torch.jit.trace, torch.export or torch.fx records them."""

import warnings
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer


def sizes_vary(*sizes: int) -> bool:
    """Return whether the operations being recorded will also run on maps of other sizes.

    torch.jit.trace always records for all sizes, torch.export where a size is a symbol. Then no faster path
    may be chosen by the sizes of this call.
    """
    if torch.jit.is_tracing():
        return True
    if not torch.compiler.is_exporting():
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return not all(has_static_value(size) for size in sizes)


def shape_at_hand(x: Tensor) -> tuple[int, ...]:
    """Return the shape as plain numbers, without the warning of torch.jit.trace."""
    if not torch.jit.is_tracing():
        return x.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return tuple(int(size) for size in x.shape)


def clamped(size: int, x: Tensor) -> tuple[int, int]:
    """Return a size for rows and for columns, at most those of the map.

    Under torch.jit.trace a smaller map raises a warning, since the trace keeps the sides of that map.
    """
    height, width = shape_at_hand(x)[-2:]
    if torch.jit.is_tracing() and (height < size or width < size):
        message = f"traced on a {height}x{width} map where it takes {size} rows and columns of larger ones"
        warnings.warn(
            f"{message}: the trace is right for maps of this size alone", torch.jit.TracerWarning, 2
        )
    # Compared one by one: the min of a symbol would be another symbol.
    return size if size <= height else height, size if size <= width else width


def as_one_node(operator: type[nn.Module]) -> None:
    """Make torch.fx record each call of an operator class as one node, as it does for torch.nn's modules.

    Operators compare sizes and choose the fastest path for them, which a symbolic trace cannot follow. A
    trace does enter the forward of an operator without a network around it, and that of a subclass.
    """
    forward = operator.forward
    if getattr(forward, "is_one_node", False):
        return

    @wraps(forward)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, Proxy) and getattr(self.forward, "__func__", None) is call:
            tracer = first.tracer
            if isinstance(tracer, Tracer) and tracer.root is not self:
                return tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)
        return forward(self, *args, **kwargs)

    call.is_one_node = True  # type: ignore[attr-defined]
    operator.forward = call
