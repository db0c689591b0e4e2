"""Fisher information of activations (Theis et al., 2018; Turner et al., ICLR 2020)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.proxy.scores._layers import layers
from nas_recalib.proxy.scores.registry import register_score


@register_score("fisher")
def fisher(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How much the loss would change without each channel, to second order.

    For each channel of the output A of each convolution and linear layer, with g its gradient of the loss::

        delta = 1 / (2 N) * sum_n (sum_ij A_nij * g_nij)^2          (Turner et al., eq. 3 and 4)

    and the score is their sum over channels and layers, each channel once (the released code of Abdelfattah
    et al., eq. 3, counts a channel once for each of its weights). The loss is the mean cross-entropy, in
    training mode; that it is a mean is one factor, 1 / N^2, for all networks.
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # what follows in place would overwrite what is kept

    for layer, _ in layers(network):
        layer.register_forward_hook(keep)
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, outputs, materialize_grads=True)
    return sum(_information(a.detach(), g) for a, g in zip(outputs, gradients, strict=True))


def _information(activation: Tensor, gradient: Tensor) -> float:
    products = activation.double() * gradient.double()
    of_channels = products.reshape(*products.shape[:2], -1).sum(2)
    return float(of_channels.square().sum()) / (2 * len(activation))
