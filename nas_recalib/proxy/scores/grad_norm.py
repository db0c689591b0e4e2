"""Norm of the gradient (Abdelfattah et al., ICLR 2021, section 3.1)."""

from torch import Tensor, nn

from nas_recalib.proxy.scores._layers import weights_and_gradients
from nas_recalib.proxy.scores.registry import register_score


@register_score("grad_norm")
def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum over convolution and linear layers of the Euclidean norm of dL/dw, after one batch.

    The paper says the Euclidean norm of the gradients; its released code takes that of each layer and adds
    them up, which is what its figures show and what this does. L is the mean cross-entropy in training mode.
    """
    pairs = weights_and_gradients(network, images, labels)
    return sum(float(gradient.double().norm()) for _, gradient in pairs)
