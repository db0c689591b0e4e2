"""Correlation of the Jacobian (Mellor et al., "Neural Architecture Search without Training", 2020, v1)."""

import torch
from torch import Tensor, nn

from nas_recalib.proxy.scores.registry import register_score

EPSILON = 1e-5


@register_score("jacob_cov")
def jacob_cov(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """How differently a network responds to different images.

    With J_n the gradient of the sum of all logits with respect to image n, Sigma the correlations of the
    J_n and v its eigenvalues::

        S = -sum_i (log(v_i + k) + 1 / (v_i + k)),    k = 1e-5       (eq. 5 of version 1)

    In training mode, as published: norms let an image's gradient hold something of the others. It is nan
    where the gradient of an image is constant, for which no correlation is defined.
    """
    pixels = images.detach().requires_grad_()
    (jacobian,) = torch.autograd.grad(network(pixels).sum(), pixels)
    correlations = torch.corrcoef(jacobian.flatten(1).double())
    if not correlations.isfinite().all():
        return float("nan")
    values = torch.linalg.eigvalsh(correlations).clamp(min=0) + EPSILON
    return -float((values.log() + 1 / values).sum())
