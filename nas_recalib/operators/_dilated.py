"""Dilated convolutions whose gradients are right in every precision."""

import torch
from torch import Tensor
from torch.nn import functional as F

_SOUND = 16


def dilated_conv2d(x: Tensor, weight: Tensor, stride: int, dilation: int, groups: int) -> Tensor:
    """A convolution with square kernels, padded so that a stride of 1 keeps the size of the map.

    Computed in float32 where a CPU's own gradient in less would be wrong.
    """
    dtype = autocast_dtype(x) or x.dtype
    geometry = (None, stride, dilation * (weight.shape[-1] // 2), dilation, groups)
    castable = x.dtype == weight.dtype or autocast_dtype(x) is not None
    if x.is_cpu and castable and not is_sound(dtype, dilation, weight.shape[1]):
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x.float(), weight.float(), *geometry).to(dtype)
    return F.conv2d(x, weight, *geometry)


def is_sound(dtype: torch.dtype, dilation: int, channels: int) -> bool:
    """Whether a CPU's weight gradient of a dilated convolution with so many inputs a group is right.

    In bfloat16 that of oneDNN 3.13 is wrong, not a number or a crash on maps of 32 pixels and more, but for
    multiples of 16 channels.
    """
    return dilation == 1 or dtype.itemsize > 2 or channels % _SOUND == 0


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast makes of an input of a convolution, where it is on."""
    if x.is_meta or not x.is_floating_point() or x.dtype == torch.float64:
        return None
    if not torch.is_autocast_enabled(x.device.type):
        return None
    return torch.get_autocast_dtype(x.device.type)
