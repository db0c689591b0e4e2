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
    rows, columns = torch.randint(2 * reach + 1, (2, count), generator=generator, device=device)
    # Every window of every image, (N, shifts, shifts, R, R, C): a view, of which whole windows are taken.
    windows = padded.permute(0, 2, 3, 1).contiguous().unfold(1, side, 1).unfold(2, side, 1)
    picked = windows.permute(0, 1, 2, 4, 5, 3)[order, rows, columns]
    if flips:
        mirrored = (torch.rand(count, generator=generator, device=device) < 0.5)[:, None, None, None]
        picked = torch.where(mirrored, picked.flip(2), picked)
    return picked.permute(0, 3, 1, 2)
