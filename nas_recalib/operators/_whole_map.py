"""What a convolution as large as the map needs: a map of just its size."""

from torch import Tensor
from torch.nn import functional as F

from nas_recalib.operators._checks import require
from nas_recalib.operators._tracing import shape_at_hand


def fit_whole_map(operator: str, x: Tensor, size: int, clamp: bool) -> Tensor:
    """The map (N, C, H, W) at the size (N, C, size, size) of the kernel that weighs its every point.

    Args:
        operator: Named in the message.
        x: The map.
        size: Side of the kernel.
        clamp: Average or repeat points of a map of another size, instead of refusing it; what a
            low-resolution proxy of a network needs.

    Raises:
        ValueError: If the map has another size and is not to be clamped.
    """
    if clamp:
        return F.adaptive_avg_pool2d(x, size)
    height, width = shape_at_hand(x)[-2:]
    require(height == width == size, operator, "size", size, f"the side of a {height}x{width} map")
    return x
