"""The number of parameters: what a score must beat."""

from torch import Tensor, nn

from nas_recalib.proxy.scores.registry import register_score


@register_score("params")
def params(network: nn.Module, _images: Tensor, _labels: Tensor) -> float:
    """Parameters of the network."""
    return float(sum(parameter.numel() for parameter in network.parameters()))
