"""Gates held open, for scores whose theory knows networks of layers and ReLUs alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class OpenGates(TorchDispatchMode):
    """While it is entered, every sigmoid is 1, its value for large inputs, where it has no gradient.

    Gates multiply a map by a sigmoid of its averages; held open they leave it as it is, and the network is
    positively homogeneous. The backward pass computes a sigmoid's gradient from its value, hence zero.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is aten.sigmoid.default:
            return torch.ones_like(args[0])
        if func is aten.sigmoid_.default:
            return args[0].fill_(1)
        return func(*args, **(kwargs or {}))
