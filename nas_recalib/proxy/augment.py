"""A whole epoch's shuffle, crop and flip in a few calls on the device."""

import torch
from torch import Tensor
from torch.nn import functional as F


def augment_epoch(images: Tensor, order: Tensor, flips: bool, generator: torch.Generator) -> Tensor:
    """Shuffled images, each shifted by up to an eighth of its side and perhaps mirrored.

    Args:
        images: (N, C, R, R), uint8.
        order: Which image comes when, (M,).
        flips: Whether to mirror half of them.
        generator: On the images' device; owns every draw.

    Returns:
        (M, C, R, R), uint8, channels last in memory.
    """
    side = images.shape[-1]
    reach = side // 8
    padded = F.pad(images, (reach,) * 4, mode="reflect") if reach else images
    count, device = len(order), images.device
    offsets = torch.randint(2 * reach + 1, (2, count, 1), generator=generator, device=device)
    rows = offsets[0] + torch.arange(side, device=device)
    columns = offsets[1] + torch.arange(side, device=device)
    if flips:
        mirrored = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    # The channels, indexed by a slice between index tensors, come out last: (M, R, R, C).
    picked = padded[order[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
