"""The number of multiply-accumulates: what a score must beat."""

from torch import Tensor, nn

from nas_recalib.costs.macs import count_cost
from nas_recalib.proxy.scores.registry import register_score


@register_score("macs")
def macs(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """Multiply-accumulates of convolution and linear layers for one of the images."""
    return float(count_cost(network.float().to("meta"), (1, *images.shape[1:])).macs)
