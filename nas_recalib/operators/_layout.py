"""The order in which a map's numbers lie in memory."""

import torch
from torch import Tensor


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last where a map lies so, else contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def laid_out(x: Tensor, like: Tensor) -> Tensor:
    """A map laid out as another one is; itself where it is so already."""
    return x.contiguous(memory_format=memory_format(like))
