"""Runs on meta tensors, which have shapes and no values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def run_on_meta(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Runs a module whose parameters are on the meta device once, for who watches it.

    Args:
        network: In evaluation mode.
        input_shape: Of its one input, (1, C, H, W).
    """
    with torch.no_grad(), _NormsAreLikeTheirInput():
        network(torch.empty(input_shape, device="meta"))


class _NormsAreLikeTheirInput(TorchFunctionMode):
    """Without multiply-accumulates and with the shape of their input, they are more than half of the time."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and not torch.is_grad_enabled() and _fit(*args, *kwargs.values()):
            return torch.empty_like(args[0])
        return func(*args, **kwargs)


def _fit(images: Tensor, mean: Tensor | None, variance: Tensor | None, *given: Any) -> bool:
    """Whether a norm has statistics, and they and its weights have one value for each channel."""
    if mean is None or variance is None:
        return False
    vectors = [mean, variance, *(one for one in given if isinstance(one, Tensor))]
    return all(vector.shape == images.shape[1:2] for vector in vectors)
