"""Zero-cost proxies from activations of random inputs: Jacobian covariance, NASWOT, Zen-Score."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas_recalib.networks import FeatureMaps
from nas_recalib.proxy.scores.gradients import layers, zero_biases
from nas_recalib.proxy.scores.registry import OpenGates, register_score

EPSILON = 1e-5
aten = torch.ops.aten


@register_score("jacob_cov")
def jacob_cov(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """Score how differently a network responds to different images.

    With J_n the gradient of the sum of all logits with respect to image n, Sigma the correlations of the
    J_n and v its eigenvalues::

        S = -sum_i (log(v_i + k) + 1 / (v_i + k)),    k = 1e-5       (eq. 5 of version 1)

    In training mode, as published, in which batch norms let an image's gradient depend on the others. It is
    nan where the gradient of an image is constant, for which no correlation is defined.
    """
    pixels = images.detach().requires_grad_()
    (jacobian,) = torch.autograd.grad(network(pixels).sum(), pixels)
    correlations = torch.corrcoef(jacobian.flatten(1).double())
    if not correlations.isfinite().all():
        return float("nan")
    values = torch.linalg.eigvalsh(correlations).clamp(min=0) + EPSILON
    return -float((values.log() + 1 / values).sum())


@register_score("naswot")
def naswot(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """Score how well images are distinguished by the ReLUs that they activate.

    With c_i the binary code of image i, one digit for each of the N_A values that a ReLU sees, and d_H the
    Hamming distance::

        K_ij = N_A - d_H(c_i, c_j),    s = log |det K|               (eq. 1 and 2)

    All ReLUs count, as modules or as functions, those inside gates too, in training mode as published. 1e-5
    is added to the eigenvalues of K: negligible for whole numbers of this size, but images of the same code
    cost -11.5 each instead of making it -inf for a batch with an image twice.
    """
    with torch.no_grad(), _CodeKernel(images) as codes:
        network(images)
    values = torch.linalg.eigvalsh(codes.kernel).clamp(min=0) + EPSILON
    return float(values.log().sum())


class _CodeKernel(TorchDispatchMode):
    """Mode in which the contribution of every ReLU to K is added up."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (aten.relu.default, aten.relu_.default):
            signs = 2 * (args[0] > 0).flatten(1).double() - 1
            self.kernel += (signs @ signs.T + signs.shape[1]) / 2
        return func(*args, **(kwargs or {}))


ALPHA = 0.01
DRAWS = 4


@register_score("zen")
def zen(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """Score how much the last map of a network changes with its input, with the scales that norms remove.

    With f the network up to its global pooling, x and e images of normal noise, and s_ij^2 the variance of
    channel j of m before norm i (algorithm 1)::

        Zen = log E |f(x) - f(x + 0.01 e)| + sum_i log sqrt(sum_j s_ij^2 / m)

    Weights of convolution and linear layers are drawn from N(0, 1), biases are zero; the score is the mean
    over four draws of weights and images. Only number and size of the given images are used. Norms are in
    training mode, with the variances of the batch x.

    The paper removes everything but convolutions and ReLUs. Here shortcuts stay, since blocks are designed
    with one. Gates are open, and norms inside them do not count: a sigmoid of about 1/2 and the small
    variance of averages would lower the score of every gate. The score therefore depends on convolutions
    only, not on recalibrations.

    Raises:
        ValueError: If the network does not name its maps, as those of this package do.
    """
    body = FeatureMaps(network)
    zero_biases(network)
    for norm in _norms(network):
        norm.reset_parameters()
        norm.momentum = 1.0  # its running variance is then that of the last batch
    _draw_weights(network)
    with OpenGates():
        scaling = _scaling_norms(body, images)
        return sum(_draw(body, scaling, images) for _ in range(DRAWS)) / DRAWS


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def _draw_weights(network: nn.Module) -> None:
    for _, weight in layers(network):
        weight.copy_(torch.randn(weight.shape))


def _last_map(body: FeatureMaps, images: Tensor) -> Tensor:
    *_, last = body(images).values()
    features: Tensor = last
    return features


def _scaling_norms(body: FeatureMaps, images: Tensor) -> list[nn.BatchNorm2d]:
    """Return the norms that the last map depends on."""
    norms = _norms(body)
    last = _last_map(body, torch.randn(images.shape).to(images))
    noise = torch.randn(last.shape).to(last)
    gradients = torch.autograd.grad(last, [norm.weight for norm in norms], noise, materialize_grads=True)
    return [norm for norm, gradient in zip(norms, gradients, strict=True) if gradient.any()]


@torch.no_grad()
def _draw(body: FeatureMaps, norms: list[nn.BatchNorm2d], images: Tensor) -> float:
    _draw_weights(body)
    x, noise = torch.randn(2, *images.shape).to(images)
    last = _last_map(body, x)
    variances = torch.stack([norm.running_var.double().mean() for norm in norms])  # type: ignore[union-attr]
    change = _last_map(body, x + ALPHA * noise) - last
    distance = change.double().flatten(1).norm(dim=1).mean()
    return float(distance.log() + variances.log().sum() / 2)
