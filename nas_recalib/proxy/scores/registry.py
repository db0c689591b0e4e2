"""Scores by name, and how one is computed without a trace on the network that it scores."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

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
    return tuple(_scores)


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
