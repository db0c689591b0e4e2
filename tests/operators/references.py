"""The convolutions of the papers, written from their equations alone as loops that autograd differentiates.

Nothing here is fast and nothing here imports nas_recalib: the functions are what its operators are compared
with. The gates (MS-SAR, Accuracy Booster and their baselines) are in references_gates.py.

Papers: "SCConv" is Liu et al., CVPR 2020; "PSConv" is Li et al., ECCV 2020.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Lattice = list[list[int]]  # D of PSConv's equation 3: [output channel][input channel of its group]


@dataclass(frozen=True)
class Norm:
    """Parameters and running statistics of a batch norm."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps: float = 1e-5
    momentum: float = 0.1


def batch_norm(x: Tensor, norm: Norm | None, *, training: bool) -> Tensor:
    """Normalise each channel of (N, C, H, W) over batch and positions (Ioffe & Szegedy 2015, algorithm 1).

    Training normalises with the variance over m values and moves the running variance towards that over
    m - 1, in place, as torch.nn.functional.batch_norm does. Without a norm the input is returned.
    """
    if norm is None:
        return x
    channels = []
    for c in range(x.shape[1]):
        values = x[:, c]
        mean, var = norm.running_mean[c], norm.running_var[c]
        if training:
            m = values.numel()
            mean = values.sum() / m
            var = ((values - mean) ** 2).sum() / m
            with torch.no_grad():
                norm.running_mean[c] += norm.momentum * (mean - norm.running_mean[c])
                norm.running_var[c] += norm.momentum * (var * m / (m - 1) - norm.running_var[c])
        channels.append((values - mean) / (var + norm.eps).sqrt() * norm.weight[c] + norm.bias[c])
    return torch.stack(channels, 1)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: Callable[[int, int], int] = lambda c, k: 1,
) -> Tensor:
    """Return the convolution whose kernel (c, k) has a dilation of its own (PSConv 3.1, equations 1 to 3).

    H[c, x, y] = sum over k, i, j of G[c, k, i, j] F[k, x + i D(c, k), y + j D(c, k)], i and j from
    -(K - 1) / 2 to (K - 1) / 2, zero outside the map. The equations have no stride; a stride s reads F at
    s x, s y.

    Args:
        x: Input, (N, C_in, H, W).
        weight: Filters, (C_out, C_in / groups, K, K), K odd.
        bias: One value for each output channel.
        stride: Distance between the output positions.
        groups: Number of groups of channels.
        dilation: Dilation of the kernel of output channel c and of input channel k of c's group.
    """
    outputs, inputs, kernel_h, kernel_w = weight.shape
    height, width = x.shape[2:]
    dilations = [[dilation(c, k) for k in range(inputs)] for c in range(outputs)]
    margin = max(map(max, dilations)) * max(kernel_h // 2, kernel_w // 2)
    padded = F.pad(x, (margin, margin, margin, margin))
    maps = []
    for c in range(outputs):
        group = c // (outputs // groups)
        total = torch.zeros((), dtype=x.dtype) if bias is None else bias[c]
        for k in range(inputs):
            reads = []
            for i in range(-(kernel_h // 2), kernel_h // 2 + 1):
                for j in range(-(kernel_w // 2), kernel_w // 2 + 1):
                    top, left = margin + i * dilations[c][k], margin + j * dilations[c][k]
                    plane = padded[:, group * inputs + k]
                    reads.append(plane[:, top : top + height : stride, left : left + width : stride])
            total = total + (weight[c, k].reshape(-1, 1, 1, 1) * torch.stack(reads)).sum(0)
        maps.append(total)
    return torch.stack(maps, 1)


def slots(channels: int, interval: int, layout: str = "cyclic") -> list[int]:
    """Return b, the place in the pattern of each channel (PSConv 3.2 and appendix B).

    "cyclic": channel k has slot k mod t. The paper divides C channels into P partitions of t = ceil(C / P)
    channels and fills the pattern into each, so that only the last partition is cut short where t does not
    divide C.

    "blocks": the channels of one slot are next to each other, in the order of the slots. Appendix B
    assembles "the same dilation rates in each partition", so a slot has as many channels as it has in the
    cyclic layout: where t does not divide C the first C mod t slots have one channel more.
    """
    cyclic = [k % interval for k in range(channels)]
    return cyclic if layout == "cyclic" else sorted(cyclic)


def psconv_lattice(
    outputs: int,
    inputs: int,
    pattern: Sequence[int],
    *,
    groups: int = 1,
    vary: str = "both",
    layout: str = "cyclic",
) -> Lattice:
    """Return the dilations D(c, k) of PSConv (section 3.2, figures 2 and 4; table 5 for what varies).

    "both": a filter's pattern is "shifted by one channel to build its adjacent filter", D(c, k) =
    pattern[(b(k) - b(c)) mod t]; "in" removes the shift, pattern[b(k)]; "out" removes the variation inside a
    filter, pattern[b(c)]. The paper does not say which way the pattern is shifted; here it moves to the
    right.

    A group convolution injects "the shared cyclic pattern into each group": channels count from the first of
    their group.

    Args:
        outputs: Number of output channels.
        inputs: Number of input channels.
        pattern: Dilations d_1 to d_t.
        groups: Number of groups of channels.
        vary: Axes of the lattice along which the dilation varies.
        layout: Order of the channels, "cyclic" or "blocks" as in :func:`slots`.
    """
    t = len(pattern)
    b_out, b_in = slots(outputs // groups, t, layout), slots(inputs // groups, t, layout)
    of_input, of_output = vary != "out", vary != "in"
    sign = -1 if vary == "both" else 1
    rows = []
    for c in range(outputs):
        shift = sign * b_out[c % len(b_out)] if of_output else 0
        rows.append([pattern[((b if of_input else 0) + shift) % t] for b in b_in])
    return rows


def psconv_depthwise_lattice(
    outputs: int, channels: int, pattern: Sequence[int], *, layout: str = "cyclic"
) -> Lattice:
    """Return the dilations of the depthwise form (PSConv appendix A, figure 3).

    "One pattern is arranged across t groups": a group is one channel, so channel i has pattern[i mod t]; or,
    in blocks, the channels of one dilation are next to each other ("akin to the MixConv+dilated accompanied
    with channel shuffling"). With more outputs than channels, every filter of a channel has the channel's
    dilation.
    """
    b = slots(channels, len(pattern), layout)
    return [[pattern[b[c // (outputs // channels)]]] for c in range(outputs)]


def psconv(
    x: Tensor,
    weight: Tensor,
    lattice: Lattice,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """Return the poly-scale convolution of a lattice of dilations (PSConv 3.1, equation 3)."""
    return convolution(x, weight, bias, stride=stride, groups=groups, dilation=lambda c, k: lattice[c][k])


def straight_through(w: Tensor, low: float, *, clip: bool) -> Tensor:
    """Return 1 where w > 0 and `low` elsewhere, with the gradient of the straight-through estimator.

    PSConv 4.2 cites XNOR-Net for it (Rastegari et al. 2016, section 3.1): the gradient passes unchanged where
    |w| <= 1 and stops elsewhere. Without the clip it passes everywhere.
    """
    hard = torch.where(w > 0, 1.0, low).to(w.dtype)
    passed = w * (w.detach().abs() <= 1) if clip else w
    return hard + (passed - passed.detach())


def learned_mask(factors: Sequence[Tensor], *, clip: bool, product_of: str = "bits") -> Tensor:
    """Return the mask, 1 for the large dilation and 0 for the small: a Kronecker product of binary factors.

    PSConv 4.2: "a learnable binary mask to distinguish the large dilation rate from the small one [...]
    decomposed via the Kronecker product", solved with the straight-through estimator. The paper does not say
    which two values a factor has. "bits": 0 and 1, and their product is the mask. "signs": -1 and 1 as in
    XNOR-Net, and their product s gives the mask (1 + s) / 2.

    Args:
        factors: Matrices whose Kronecker product has the shape of the lattice.
        clip: Whether an entry outside [-1, 1] gets no gradient, as in XNOR-Net.
        product_of: Values of the factors, "bits" or "signs".
    """
    low = 0.0 if product_of == "bits" else -1.0
    product = torch.ones(1, 1, dtype=factors[0].dtype)
    for factor in factors:
        binary = straight_through(factor, low, clip=clip)
        rows = [torch.cat([entry * row for entry in above]) for above in product for row in binary]
        product = torch.stack(rows)
    return product if product_of == "bits" else (1 + product) / 2


def psconv_learned(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    dilations: tuple[int, int] = (1, 2),
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """Return PSConv with a mask that chooses each kernel's dilation (PSConv 4.2).

    A kernel of mask m contributes (1 - m) times the map of its small dilation and m times that of its large
    one ("optional dilation rates of 1 and 2").

    Args:
        x: Input, (N, C_in, H, W).
        weight: Filters, (C_out, C_in / groups, K, K).
        mask: Mask of the lattice, (C_out, C_in / groups).
        dilations: Small and large dilation.
        bias: One value for each output channel.
        stride: Distance between the output positions.
        groups: Number of groups of channels.
    """
    m = mask[:, :, None, None]
    total = torch.zeros((), dtype=x.dtype) if bias is None else bias[:, None, None]
    for part, d in zip((1 - m, m), dilations, strict=True):
        lattice = [[d] * weight.shape[1]] * weight.shape[0]
        total = total + psconv(x, weight * part, lattice, stride=stride, groups=groups)
    return total


def pool(x: Tensor, r: int, *, ceil: bool = False, kind: str = "avg") -> Tensor:
    """Return pooling with filter size r x r and stride r (SCConv 3.1.2, equation 2).

    The paper does not say what happens where r does not divide the map. Floor mode, PyTorch's default, leaves
    the rest out. Ceil mode gives the rest a window of its own, cut at the edge of the map: without padding
    PyTorch's ceil_mode clips a window to the map before it counts the positions, so the mean is over the real
    positions, whatever count_include_pad says.

    A side shorter than r has one window, the whole side, in both modes.
    """
    height, width = x.shape[2:]

    def windows(size: int) -> list[slice]:
        count = math.ceil(size / r) if ceil else size // r
        return [slice(i * r, min((i + 1) * r, size)) for i in range(max(count, 1))]

    def reduce(window: Tensor) -> Tensor:
        positions = window.shape[2] * window.shape[3]
        return window.sum((2, 3)) / positions if kind == "avg" else window.amax((2, 3))

    rows = [torch.stack([reduce(x[:, :, h, w]) for w in windows(width)], 2) for h in windows(height)]
    return torch.stack(rows, 2)


def resize(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Return Up of SCConv's equation 3, from (N, C, h, w) to (N, C, H, W).

    The paper says bilinear; the authors' released network uses nearest, which reads source floor(i h / H).
    Bilinear takes positions as centres of pixels (align_corners=False, which the paper leaves open): source
    (i + 1/2) h / H - 1/2, kept inside the map.
    """

    def taps(i: int, source: int, target: int) -> list[tuple[int, float]]:
        if mode == "nearest":
            return [(i * source // target, 1.0)]
        at = min(max((i + 0.5) * source / target - 0.5, 0.0), source - 1.0)
        low = math.floor(at)
        return [(low, 1 - (at - low)), (min(low + 1, source - 1), at - low)]

    rows = []
    for i in range(size[0]):
        row = []
        for j in range(size[1]):
            reads = [
                a * b * x[:, :, y, z]
                for y, a in taps(i, x.shape[2], size[0])
                for z, b in taps(j, x.shape[3], size[1])
            ]
            row.append(torch.stack(reads).sum(0))
        rows.append(torch.stack(row, 2))
    return torch.stack(rows, 2)


def scconv(
    x: Tensor,
    kernels: tuple[Tensor, Tensor, Tensor, Tensor],
    norms: tuple[Norm | None, Norm | None] = (None, None),
    *,
    training: bool = False,
    r: int = 4,
    stride: int = 1,
    groups: int = 1,
    ceil: bool = False,
    pooling: str = "avg",
    identity: bool = True,
    upsample: str = "bilinear",
) -> Tensor:
    """Return the self-calibrated convolution (SCConv 3.1, equations 2 to 5).

    T1 = AvgPool_r(X1); X1' = Up(T1 * K2); Y1' = (X1 * K3) . sigmoid(X1 + X1'); Y1 = Y1' * K4;
    Y2 = X2 * K1; Y = [Y1, Y2]. Without the identity connection (section 4.2.1, table 2) the weights are
    sigmoid(X1'). The equations have neither norms nor strides: the norms follow K2 and K3, and the stride is
    that of K4 and K1, as in the authors' released network.

    Args:
        x: Input, (N, C, H, W), C even.
        kernels: Filters K1, K2, K3, K4, each (C_out / 2, C / 2 / groups, K, K).
        norms: Norms after K2 and after K3.
        training: Whether the norms use the batch's statistics.
        r: Down-sampling rate.
        stride: Stride of the convolution.
        groups: Number of groups of each of the four convolutions.
        ceil: Whether a rest of the map gets a window of its own.
        pooling: "avg" or "max".
        identity: Whether X1 is added to X1'.
        upsample: "bilinear" or "nearest".
    """
    k1, k2, k3, k4 = kernels
    x1, x2 = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
    t1 = pool(x1, r, ceil=ceil, kind=pooling)
    low = batch_norm(convolution(t1, k2, groups=groups), norms[0], training=training)
    reference = resize(low, (x.shape[2], x.shape[3]), upsample)
    gate = torch.sigmoid(x1 + reference if identity else reference)
    calibrated = batch_norm(convolution(x1, k3, groups=groups), norms[1], training=training) * gate
    y1 = convolution(calibrated, k4, stride=stride, groups=groups)
    return torch.cat([y1, convolution(x2, k1, stride=stride, groups=groups)], 1)
