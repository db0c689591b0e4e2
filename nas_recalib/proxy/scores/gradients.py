"""Zero-cost proxies from gradients of weights: Fisher, gradient norm, SNIP, SynFlow."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas_recalib.proxy.scores.registry import OpenGates, register_score


def layers(network: nn.Module) -> list[tuple[nn.Module, nn.Parameter]]:
    """Return the convolution and linear layers, those inside operators too, each with its weight.

    They are the modules whose `weight` has as many dimensions as that of a convolution or a linear layer;
    not all of them are nn.Conv2d.
    """
    pairs = [(module, getattr(module, "weight", None)) for module in network.modules()]
    return [(m, w) for m, w in pairs if isinstance(w, nn.Parameter) and w.dim() in (2, 4)]


def weights_and_gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return each layer's weight and its gradient of the mean cross-entropy, zeros where unused."""
    weights = [weight for _, weight in layers(network)]
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    return [(w.detach(), g) for w, g in zip(weights, gradients, strict=True)]


@torch.no_grad()
def zero_biases(network: nn.Module) -> None:
    """Set every bias to zero."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()


@register_score("fisher")
def fisher(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Score how much the loss would change without each channel, to second order.

    For each channel of the output A of each convolution and linear layer, with g its gradient of the loss::

        delta = 1 / (2 N) * sum_n (sum_ij A_nij * g_nij)^2          (Turner et al., eq. 3 and 4)

    and the score is their sum over channels and layers, each channel once (the released code of Abdelfattah
    et al., eq. 3, counts a channel once for each of its weights). The loss is the mean cross-entropy, in
    training mode; that it is a mean is one factor, 1 / N^2, for all networks.
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # a following in-place operation would overwrite the kept output

    for layer, _ in layers(network):
        layer.register_forward_hook(keep)
    loss = F.cross_entropy(network(images), labels)
    gradients = torch.autograd.grad(loss, outputs, materialize_grads=True)
    return sum(_information(a.detach(), g) for a, g in zip(outputs, gradients, strict=True))


def _information(activation: Tensor, gradient: Tensor) -> float:
    products = activation.double() * gradient.double()
    of_channels = products.reshape(*products.shape[:2], -1).sum(2)
    return float(of_channels.square().sum()) / (2 * len(activation))


@register_score("grad_norm")
def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over convolution and linear layers of the Euclidean norm of dL/dw, after one batch.

    The paper defines the Euclidean norm of all gradients; its released code and its figures sum the norms of
    the layers, as is done here. L is the mean cross-entropy in training mode.
    """
    pairs = weights_and_gradients(network, images, labels)
    return sum(float(gradient.double().norm()) for _, gradient in pairs)


@register_score("snip")
def snip(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Score how much the loss would change without each weight: sum of |w * dL/dw| (Abdelfattah, eq. 1).

    That is |dL/dc| for a factor c = 1 on each weight (Lee et al., eq. 5 and 6), without their division by the
    sum, which serves to compare connections of one network. L is the mean cross-entropy in training mode; the
    sum is over weights of convolution and linear layers, not norms, biases or masks.
    """
    pairs = weights_and_gradients(network, images, labels)
    return sum(float((weight * gradient).abs().double().sum()) for weight, gradient in pairs)


PROBES = (1.0, 1e-250, 1e250)


@register_score("synflow")
def synflow(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """Return the logarithm of the sum over all weights of w * dR/dw, with R the sum of the outputs.

    R is the sum of the logits for an image of ones where each weight w of a convolution or linear layer is
    replaced by |w| (Tanaka et al., eq. 2). R is a product of layers, so the network must be nothing else:
    norms are removed (as in the authors' comparison without them, and in Abdelfattah's), biases are zero and
    gates are open: at such large values sigmoids are 1 and have no gradient. The score therefore depends on
    convolutions only, not on recalibrations.

    The logarithm keeps the order of the sum, which exceeds the range of float64 in deep networks. R is
    homogeneous in its input, so the sum is computed with input and output scaled by R ** -0.5 each, which
    keeps every activation and gradient between R ** -0.5 and R ** 0.5, for R from 1e-550 to 1e550.

    Returns:
        The logarithm; -inf where R is zero, inf where it is beyond that range.
    """
    _keep_layers_alone(network.double())
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    weights = [weight for _, weight in layers(network)]
    with OpenGates():
        flow = _log_flow(network, ones)
        if not math.isfinite(flow):
            return flow
        scale = math.exp(-flow / 2)
        scaled = scale * network(scale * ones).sum()
        gradients = torch.autograd.grad(scaled, weights, materialize_grads=True)
    saliency = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True))
    return flow + math.log(saliency)


@torch.no_grad()
def _log_flow(network: nn.Module, ones: Tensor) -> float:
    """Return the logarithm of R, from the first probe whose output is finite."""
    for probe in PROBES:
        flow = float(network(probe * ones).sum().log()) - math.log(probe)
        if math.isfinite(flow):
            break
    return flow


@torch.no_grad()
def _keep_layers_alone(network: nn.Module) -> None:
    zero_biases(network)
    for _, weight in layers(network):
        weight.abs_()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.SyncBatchNorm):
                parent.add_module(name, nn.Identity())
