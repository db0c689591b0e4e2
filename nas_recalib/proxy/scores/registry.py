"""Registry of zero-cost proxies, their computation without side effects, and mean ranks."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas_recalib.costs.macs import count_cost

Score = Callable[[nn.Module, Tensor, Tensor], float]

_scores: dict[str, Score] = {}


def register_score(name: str) -> Callable[[Score], Score]:
    """Return a decorator that registers a score under a name.

    A score is a function of a network, normalised images (N, C, H, W) and labels (N,), higher for better
    networks. `score_network` calls it and documents what it may rely on.

    Raises:
        ValueError: If the name is taken.
    """

    def add(score: Score) -> Score:
        if name in _scores:
            raise ValueError(f"a score named {name!r} is registered already")
        _scores[name] = score
        return score

    return add


def score_names() -> tuple[str, ...]:
    """Return the names of the registered scores."""
    return tuple(sorted(_scores))


def get_score(name: str) -> Score:
    """Return the score of a name.

    Raises:
        ValueError: If no score has that name; the message lists those that exist.
    """
    if name not in _scores:
        raise ValueError(f"unknown score {name!r}; allowed: {', '.join(_scores)}")
    return _scores[name]


def score_network(name: str, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0) -> float:
    """Return the score of an untrained network, which is not modified.

    The score gets a copy that it may modify: in training mode, without gradients, all parameters requiring
    them, and the images in its precision and on its device. Its random draws, from torch's global CPU
    generator, follow from the seed; the generator is restored afterwards. Hooks are copied along and see the
    passes of the copy.

    Args:
        name: Name of the score.
        network: Network with its initial weights.
        images: Normalised images, (N, C, H, W).
        labels: Classes of the images, (N,), int64.
        seed: Seed of the score's random draws.

    Returns:
        The score, higher for better networks. It may be infinite or nan (which `aggregate_ranks` accepts):
        -inf for a network without any signal, inf or nan for one whose numbers overflow.

    Raises:
        ValueError: If no score has that name, or it cannot be computed for the network.
    """
    score = get_score(name)
    copy = deepcopy(network).train().requires_grad_(True)
    copy.zero_grad(set_to_none=True)
    like = next(copy.parameters())
    with torch.random.fork_rng([like.device] if like.is_cuda else []), torch.enable_grad():
        torch.default_generator.manual_seed(seed)
        return float(score(copy, images.detach().to(like), labels.to(like.device)))


aten = torch.ops.aten


class OpenGates(TorchDispatchMode):
    """Mode in which every sigmoid is 1, its value for large inputs, with a gradient of zero.

    Gates multiply a map by a sigmoid of its averages; held open they do not change it, and the network is
    positively homogeneous. The backward pass computes a sigmoid's gradient from its value, hence zero.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is aten.sigmoid.default:
            return torch.ones_like(args[0])
        if func is aten.sigmoid_.default:
            return args[0].fill_(1)
        return func(*args, **(kwargs or {}))


def aggregate_ranks(scores: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the mean rank of each network over the scores, where ties share the mean of their ranks.

    Ranks make scores of different units comparable and depend on the order of values only. nan ranks lowest.

    Args:
        scores: Value of each network by each score, higher for better networks.

    Returns:
        Mean rank of each network, from 1 (lowest) to their number.

    Raises:
        ValueError: If there is no score, or two have different numbers of networks.
    """
    if not scores:
        raise ValueError("no scores to aggregate")
    lengths = {name: len(values) for name, values in scores.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"scores of different numbers of networks: {counts}")
    ranks = zip(*(_ranks(values) for values in scores.values()), strict=True)
    return [sum(of_network) / len(scores) for of_network in ranks]


def _ranks(values: Sequence[float]) -> list[float]:
    keys = [(False, 0.0) if math.isnan(value) else (True, value) for value in values]
    ordered = sorted(keys)
    return [(bisect_left(ordered, key) + bisect_right(ordered, key) + 1) / 2 for key in keys]


@register_score("macs")
def macs(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """Return the multiply-accumulates of convolution and linear layers for one of the images."""
    return float(count_cost(network.float().to("meta"), (1, *images.shape[1:])).macs)


@register_score("params")
def params(network: nn.Module, _images: Tensor, _labels: Tensor) -> float:
    """Return the number of parameters of the network."""
    return float(sum(parameter.numel() for parameter in network.parameters()))
