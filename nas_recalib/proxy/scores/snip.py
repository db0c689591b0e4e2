"""Connection sensitivity (SNIP: Lee et al., ICLR 2019), summed as Abdelfattah et al. (ICLR 2021) do."""

from torch import Tensor, nn

from nas_recalib.proxy.scores._layers import weights_and_gradients
from nas_recalib.proxy.scores.registry import register_score


@register_score("snip")
def snip(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How much the loss would change without each weight: the sum of |w * dL/dw| (eq. 1 of Abdelfattah).

    That is |dL/dc| for a factor c = 1 on each weight (Lee et al., eq. 5 and 6), without their division by the
    sum, by which connections of one network are compared. L is the mean cross-entropy in training mode; the
    sum is over weights of convolution and linear layers, not norms, biases or masks.
    """
    pairs = weights_and_gradients(network, images, labels)
    return sum(float((weight * gradient).abs().double().sum()) for weight, gradient in pairs)
