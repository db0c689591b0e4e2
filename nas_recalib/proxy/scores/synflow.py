"""Synaptic flow (Tanaka et al., NeurIPS 2020), summed over a network as Abdelfattah et al. (ICLR 2021) do."""

import math

import torch
from torch import Tensor, nn

from nas_recalib.proxy.scores._gates import OpenGates
from nas_recalib.proxy.scores._layers import layers, zero_biases
from nas_recalib.proxy.scores.registry import register_score

PROBES = (1.0, 1e-250, 1e250)


@register_score("synflow")
def synflow(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """Logarithm of the sum over all weights of w * dR/dw, where R is what flows through the network.

    R is the sum of the logits for an image of ones where each weight w of a convolution or linear layer is
    taken as |w| (Tanaka et al., eq. 2). R is a product of layers, so that the network must be nothing else:
    norms are left out (as in the authors' comparison without them, and Abdelfattah's), biases are zero and
    gates are open: under the flow's large values sigmoids are 1 and let no gradient through. Hence what
    recalibrates a map changes nothing here, and only convolutions are told apart.

    The logarithm has the order of the sum, which leaves the range of float64 in deep networks. R is
    homogeneous in its input, and so the sum is computed with input and output scaled by R ** -0.5 each, which
    keeps every activation and gradient between R ** -0.5 and R ** 0.5: good from an R of 1e-550 to 1e550.

    Returns:
        The logarithm; -inf where nothing flows, inf where more does.
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
    """Logarithm of R, by an input of the first size at which the output is within range."""
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
