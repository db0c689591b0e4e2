"""The gates of the papers, written from their equations alone as loops that autograd differentiates.

Every function returns the recalibrated map. Nothing here imports nas_recalib. The convolutions are in
references.py.

Papers: "MS-SAR" is Wang et al., ECCV 2018; "AB" is Singh et al., WACV 2020; "SE" is Hu et al., CVPR 2018;
"GE" is Hu et al., NeurIPS 2018; "CBAM" is Woo et al., ECCV 2018. The last three are baselines of the first
two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from references import Norm, batch_norm, convolution, resize
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """A 1x1 convolution: weight (C_out, C_in / groups), and a bias and a norm where it has them."""

    weight: Tensor
    bias: Tensor | None = None
    norm: Norm | None = None


def linear(y: Tensor, layer: Layer, *, training: bool, groups: int = 1) -> Tensor:
    """Apply a layer to the channels at each position of (N, C, h, w), then its norm."""
    weight = layer.weight.reshape(*layer.weight.shape[:2], 1, 1)
    return batch_norm(convolution(y, weight, layer.bias, groups=groups), layer.norm, training=training)


def global_average(x: Tensor) -> Tensor:
    """Return F_GAP, the mean of each channel over the H x W positions, as (N, C, 1, 1) (AB section 3)."""
    return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])


def gather_regional(x: Tensor, scale: int) -> Tensor:
    """Return the mean of each of K x K regions, (N, C, K, K) (MS-SAR 3.2, the *regional* strategy).

    The paper's regions are equally sized. Where K does not divide the map, region i reaches from
    floor(i H / K) to ceil((i + 1) H / K), as torch's adaptive pooling has it: neighbouring regions then share
    a row. A map of fewer than K rows has a region for each row.
    """

    def parts(size: int) -> list[slice]:
        count = min(scale, size)
        return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]

    columns = parts(x.shape[3])
    rows = [torch.stack([x[:, :, h, w].mean((2, 3)) for w in columns], 2) for h in parts(x.shape[2])]
    return torch.stack(rows, 2)


def gather_sliding(x: Tensor, scale: int, window: str) -> Tensor:
    """Return the mean over each position's neighbourhood, (N, C, H, W) (MS-SAR 3.2, the *sliding* strategy).

    S = {(w', h') : ||(w, h) - (w', h')||_1 <= T}, T = sqrt(W H) / K. S is a subset of the lattice, so that
    only positions of the map are counted. "ball" takes the norm as written, |dw| + |dh| <= T, a diamond.
    "square" takes max(|dw|, |dh|) <= T: footnote 1 says that the constraint "results in a square region", and
    the partial sums of footnote 3 add up rectangles. Distances are compared as integers, (d K)^2 <= W H.
    """
    height, width = x.shape[2:]
    rows = []
    for h in range(height):
        row = []
        for w in range(width):
            members = []
            for i in range(height):
                for j in range(width):
                    down, right = abs(i - h), abs(j - w)
                    distance = down + right if window == "ball" else max(down, right)
                    if (distance * scale) ** 2 <= width * height:
                        members.append(x[:, :, i, j])
            row.append(torch.stack(members).sum(0) / len(members))
        rows.append(torch.stack(row, 2))
    return torch.stack(rows, 2)


def msar(
    x: Tensor,
    weights: Sequence[tuple[Layer, Layer]],
    scales: Sequence[int],
    *,
    strategy: str = "regional",
    training: bool = False,
    source: Tensor | None = None,
) -> Tensor:
    """Return X . (1/L) sum over l of Z^(l), the multi-scale recalibration (MS-SAR 3.2 and 3.3, eq. 1 and 2).

    Z = sigma_2[Omega_2 sigma_1[Omega_1 mean over S]]. sigma_1 is "a composite function of batch normalization
    followed by ReLU activation", and sigma_2 "replaces ReLU with sigmoid": batch norm, then sigmoid. The
    norms are those of the layers; where the second layer has none, sigma_2 is the sigmoid alone. The layers
    work on the pooled map ("by sharing computations", 3.5; figure 2: pool, lfc, lfc, ups), so that at the
    regional strategy a norm in training sees K x K positions of an image. ups repeats each element over its
    region.

    Args:
        x: Input, (N, D, H, W).
        weights: Omega_1 and Omega_2 of each scale; the same pair again where scales share them.
        scales: Scale factors K^(l).
        strategy: "regional", "ball" or "square" (the two readings of *sliding*).
        training: Whether the norms use the batch's statistics.
        source: Map that the weights are computed from, the main vector of multi-stage recalibration (3.4); x
            where it is left out.
    """
    source = x if source is None else source
    total = torch.zeros((), dtype=x.dtype)
    for (first, second), scale in zip(weights, scales, strict=True):
        regional = strategy == "regional"
        y = gather_regional(source, scale) if regional else gather_sliding(source, scale, strategy)
        hidden = torch.relu(linear(y, first, training=training))
        z = torch.sigmoid(linear(hidden, second, training=training))
        total = total + resize(z, (x.shape[2], x.shape[3]), "nearest")
    return x * (total / len(scales))


def msar_hidden(channels: int, divisor: int) -> int:
    """Return D' = D / (r L), rounded to the nearest integer and at least 1 (MS-SAR 3.5 has D' = D / L).

    The CIFAR ResNets of table 2 need r L = 9 and the ResNeXt-50 of table 5 r L = 48 (r = 16 as in SE, L = 3).
    With projection shortcuts and the norms of sigma_1 and sigma_2, the ResNets have 0.2857M, 0.4889M and
    0.8954M parameters, which the table cuts off to 0.28M, 0.48M and 0.89M as it cuts off the baselines'
    0.2725M, 0.4669M and 0.8558M; the ResNeXt-50 has 27.64M, printed 27.6M. Rounding down prints the same,
    rounding up prints 0.49M for ResNet-32.
    """
    return max(1, (2 * channels + divisor) // (2 * divisor))


def se(x: Tensor, first: Layer, second: Layer) -> Tensor:
    """Return X . sigmoid(W2 ReLU(W1 GAP(X))) (SE section 3, equations 2 to 4; AB figure 2(A))."""
    hidden = torch.relu(linear(global_average(x), first, training=False))
    return x * torch.sigmoid(linear(hidden, second, training=False))


def ab(x: Tensor, layer: Layer, *, groups: int, training: bool = False) -> Tensor:
    """Return X . sigmoid(BN(Conv1x1(GAP(X)))) (AB section 3; groups between in section 7.5, table 15).

    groups = C is AB, figure 2(D): p_k depends on W_k y_k alone. groups = 1 is AB-Plus, figure 2(C). A layer
    without a norm is AB "if we remove Batch Normalization" (6.1).
    """
    return x * torch.sigmoid(linear(global_average(x), layer, training=training, groups=groups))


def single_fully_connected(x: Tensor, layer: Layer) -> Tensor:
    """Return X . sigmoid(W GAP(X)), AB's figure 2(B): "a shallower design" than SE (AB sections 4 and 7.1).

    By the text, figure 2 shows (A) the SE block: GAP, fully connected layers C to C/r and C/r to C, sigmoid;
    (B) GAP, one fully connected layer C to C, sigmoid, and no norm is named; (C) AB-Plus: GAP, 1x1
    convolution, batch norm, sigmoid; (D) AB: (C) with a depthwise 1x1 convolution. The caption calls (B) and
    (C) similar because a fully connected layer does what a 1x1 convolution does on a 1x1 map. Table 10 has
    (A), (C), (D).
    """
    return x * torch.sigmoid(linear(global_average(x), layer, training=False))


def averaged(
    x: Tensor, weights: Tensor | None, norm: Norm | None = None, *, training: bool = False
) -> Tensor:
    """Return X . sigmoid(average of X), AB's designs (E) to (H) without the 1x1 layer (AB 7.2, table 11).

    (E) GAP; (F) GAP and batch norm; (G) a weight for each point of a channel, (C, 1, H, W); (H) a filter as
    large as the set of maps for each channel, (C, C, H, W). The text names a norm in (F) alone.
    """
    if weights is None:
        y = global_average(x)
    else:
        channels = []
        for k in range(x.shape[1]):
            seen = x[:, k : k + 1] if weights.shape[1] == 1 else x
            channels.append((seen * weights[k]).sum((1, 2, 3)))
        y = torch.stack(channels, 1)[:, :, None, None]
    return x * torch.sigmoid(batch_norm(y, norm, training=training))


def fine_grained(
    x: Tensor, kernel: Tensor, bias: Tensor | None = None, norm: Norm | None = None, *, training: bool = False
) -> Tensor:
    """Return X . sigmoid(Conv(X)), AB's designs (I) to (L) with a weight for each point (AB 7.3, table 12).

    The kernel is 3x3 or 7x7 (9x9 in table 13), over all channels or depthwise (C, 1, K, K), padded to the
    same size; table 13 adds a batch norm.
    """
    groups = x.shape[1] // kernel.shape[1]
    return x * torch.sigmoid(batch_norm(convolution(x, kernel, bias, groups=groups), norm, training=training))


def combined(
    x: Tensor, kernel: Tensor, layer: Layer | None, bias: Tensor | None = None, *, training: bool = False
) -> Tensor:
    """Return X . sigmoid(F(GAP(Conv(X)))), AB's designs (M) to (O) (AB 7.4, table 14).

    A depthwise 7x7 convolution, then GAP and sigmoid (M, no layer), AB (N, weight (C, 1)) or AB-Plus (O,
    weight (C, C)).
    """
    y = global_average(convolution(x, kernel, bias, groups=x.shape[1]))
    if layer is not None:
        y = linear(y, layer, training=training, groups=x.shape[1] // layer.weight.shape[1])
    return x * torch.sigmoid(y)


def cbam(
    x: Tensor,
    first: Layer,
    second: Layer,
    spatial: Tensor,
    spatial_bias: Tensor | None = None,
    spatial_norm: Norm | None = None,
    *,
    training: bool = False,
) -> Tensor:
    """Return channel attention followed by spatial attention (CBAM section 3, equations 1 to 3).

    M_c = sigmoid(W1 ReLU(W0 F_avg) + W1 ReLU(W0 F_max)), one MLP for both descriptors; F' = M_c . F.
    M_s = sigmoid(f7x7([mean over channels; max over channels])) of F'; F'' = M_s . F'. The equations have
    neither norm nor bias; the authors' code has biases in the MLP, a batch norm after f7x7, and the maximum
    before the mean.

    Args:
        x: Input, (N, C, H, W).
        first: W0, (C / r, C).
        second: W1, (C, C / r).
        spatial: f7x7, (1, 2, 7, 7); its first input is the mean.
        spatial_bias: Bias of f7x7.
        spatial_norm: Norm after f7x7.
        training: Whether the norm uses the batch's statistics.
    """
    score = torch.zeros((), dtype=x.dtype)
    for descriptor in (global_average(x), x.amax((2, 3), keepdim=True)):
        score = score + linear(torch.relu(linear(descriptor, first, training=False)), second, training=False)
    x = torch.sigmoid(score) * x
    planes = torch.stack([x.sum(1) / x.shape[1], x.amax(1)], 1)
    score = batch_norm(convolution(planes, spatial, spatial_bias), spatial_norm, training=training)
    return torch.sigmoid(score) * x


def ge_theta(
    x: Tensor,
    gather: Sequence[tuple[Tensor, Norm | None]],
    excite: Sequence[Layer] = (),
    *,
    training: bool = False,
    whole: bool = False,
    groups: int = 1,
) -> Tensor:
    """Return X . sigmoid(interp(excite(gather(X)))), GE-theta and GE-theta+ (GE section 2; AB 6.1.3).

    The gather of extent 2, 4 or 8 is a chain of one, two or three depthwise 3x3 convolutions of stride 2;
    that of global extent is one depthwise convolution as large as the map. Each convolution has a norm, and
    ReLU follows it unless the sigmoid is next: so have the authors' released networks (RN50-GEP and
    RN50-GEPP), which are of global extent, and the chains here are built alike. theta+ excites with SE's two
    fully connected layers (reduction 16), theta with nothing, "GE-theta+ with AB" with a depthwise 1x1
    convolution and batch norm. interp is nearest neighbour.

    Args:
        x: Input, (N, C, H, W).
        gather: Depthwise filters (C, 1, 3, 3) of a chain, or one (C, 1, H, W), each with its norm.
        excite: Layers of the excitation, ReLU between two.
        training: Whether the norms use the batch's statistics.
        whole: Whether the gather is the one convolution of global extent.
        groups: Number of groups of the excitation's layers.
    """
    y = x
    for index, (kernel, norm) in enumerate(gather):
        y = torch.relu(y) if index else y
        if whole:
            y = (y * kernel[:, 0]).sum((2, 3), keepdim=True)
        else:
            y = convolution(y, kernel, stride=2, groups=x.shape[1])
        y = batch_norm(y, norm, training=training)
    for layer in excite:
        y = linear(torch.relu(y), layer, training=training, groups=groups)
    return x * torch.sigmoid(resize(y, (x.shape[2], x.shape[3]), "nearest"))
