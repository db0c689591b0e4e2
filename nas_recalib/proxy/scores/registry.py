"""Registry of zero-cost proxies, their computation without side effects, and rank aggregation."""

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
    """Adds a score under a name.

    A score is called with a network, normalised images (N, C, H, W) and labels (N,), and is the higher, the
    better the network. What it may count on is said at `score_network`, which calls it.

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
    """Names of the registered scores."""
    return tuple(sorted(_scores))


def get_score(name: str) -> Score:
    """The score of that name.

    Raises:
        ValueError: If there is none; the message lists those there are.
    """
    if name not in _scores:
        raise ValueError(f"unknown score {name!r}; allowed: {', '.join(_scores)}")
    return _scores[name]


def score_network(name: str, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0) -> float:
    """Scores an untrained network; its weights, buffers, gradients, mode and hooks stay as they are.

    The score has a copy to spoil: in training mode, without gradients, each of its parameters asking for
    them, and the images in its precision and on its device. Random numbers that the score draws, by torch's
    global CPU generator, follow from the seed; the generator goes on where it was. Hooks are copied along
    and see the passes of the copy.

    Args:
        name: Of the score.
        network: With its initial weights.
        images: Normalised, (N, C, H, W).
        labels: Their classes, (N,), int64.
        seed: Of what the score draws.

    Returns:
        The score, the higher the better. It need not be finite (`aggregate_ranks` takes what comes): a
        network without any signal may score -inf, and one whose numbers overflow inf or nan.

    Raises:
        ValueError: If there is no score of that name, or the network cannot be scored by it.
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
    """While it is entered, every sigmoid is 1, its value for large inputs, where it has no gradient.

    Gates multiply a map by a sigmoid of its averages; held open they leave it as it is, and the network is
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
    """Mean rank of each network over the scores: 1 is the lowest, and ties share the mean of their ranks.

    Ranks are all that scores of different units have in common; nothing that keeps a score's order changes
    them. Infinite scores rank as their order says, and what is not a number ranks below everything.

    Args:
        scores: For each score, its value for each network; higher is better.

    Returns:
        A mean rank for each network, between 1 and their number; higher is better.

    Raises:
        ValueError: If there is no score, or two are of different numbers of networks.
    """
    if not scores:
        raise ValueError("no scores to aggregate")
    lengths = {name: len(values) for name, values in scores.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"scores of different numbers of networks: {told}")
    ranks = zip(*(_ranks(values) for values in scores.values()), strict=True)
    return [sum(of_one) / len(scores) for of_one in ranks]


def _ranks(values: Sequence[float]) -> list[float]:
    keys = [(False, 0.0) if math.isnan(value) else (True, value) for value in values]
    ordered = sorted(keys)
    return [(bisect_left(ordered, key) + bisect_right(ordered, key) + 1) / 2 for key in keys]


@register_score("macs")
def macs(network: nn.Module, images: Tensor, _labels: Tensor) -> float:
    """Multiply-accumulates of convolution and linear layers for one of the images."""
    return float(count_cost(network.float().to("meta"), (1, *images.shape[1:])).macs)


@register_score("params")
def params(network: nn.Module, _images: Tensor, _labels: Tensor) -> float:
    """Parameters of the network."""
    return float(sum(parameter.numel() for parameter in network.parameters()))
