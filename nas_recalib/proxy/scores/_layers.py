"""What several scores ask of a network: its layers and the gradients of their weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def layers(network: nn.Module) -> list[tuple[nn.Module, nn.Parameter]]:
    """Convolution and linear layers, those inside operators too, each with its weight.

    They are the modules with a `weight` of as many dimensions as a convolution's or a linear layer's: not
    all of them are nn.Conv2d.
    """
    pairs = [(module, getattr(module, "weight", None)) for module in network.modules()]
    return [(m, w) for m, w in pairs if isinstance(w, nn.Parameter) and w.dim() in (2, 4)]


def weights_and_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each layer's weight and its gradient of the mean cross-entropy; zeros where the loss ignores it."""
    weights = [weight for _, weight in layers(network)]
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return [(w.detach(), g) for w, g in zip(weights, gradients, strict=True)]


@torch.no_grad()
def zero_biases(network: nn.Module) -> None:
    """Sets every bias to zero."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
