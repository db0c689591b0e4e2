"""Overlap of ReLU codes (NASWOT: Mellor et al., "Neural Architecture Search without Training", ICML 2021)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas_recalib.proxy.scores.registry import register_score

EPSILON = 1e-5
aten = torch.ops.aten


@register_score("naswot")
def naswot(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """How well images are told apart by which ReLUs they switch on.

    With c_i the binary code of image i, one digit for each of the N_A values that a ReLU sees, and d_H the
    Hamming distance::

        K_ij = N_A - d_H(c_i, c_j),    s = log |det K|               (eq. 1 and 2)

    All ReLUs count, as modules or as functions, gates' own too, in training mode as published. Eigenvalues
    of K are taken as 1e-5 larger: next to nothing for whole numbers of this size, but images of the same
    code cost -11.5 each instead of making it -inf for a batch with an image twice.
    """
    with torch.no_grad(), _CodeKernel(images) as codes:
        network(images)
    values = torch.linalg.eigvalsh(codes.kernel).clamp(min=0) + EPSILON
    return float(values.log().sum())


class _CodeKernel(TorchDispatchMode):
    """While it is entered, adds up what every ReLU contributes to K."""

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
