"""One wording for what is wrong with an operator's argument or input."""

from torch import Tensor


def require(condition: bool, operator: str, argument: str, value: object, allowed: str) -> None:
    """Raises ValueError naming the operator, the argument, its value and what is allowed."""
    if not condition:
        raise ValueError(f"{operator}: {argument} = {value!r} is not {allowed}")


def require_channels(operator: str, x: Tensor, channels: int) -> None:
    """Raises ValueError unless x is (N, channels, H, W)."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise ValueError(f"{operator}: expected (N, {channels}, H, W), got {tuple(x.shape)}")


def require_statistics(operator: str, x: Tensor) -> None:
    """Raises ValueError where a batch norm in training would see one value a channel."""
    if x.shape[0] * x.shape[2] * x.shape[3] == 1:
        raise ValueError(
            f"{operator}: training needs a batch of at least 2 images, batch norm has one value here"
        )
