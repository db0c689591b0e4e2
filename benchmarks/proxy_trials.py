"""Timing of trials at each named fidelity."""

import statistics
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from proxy_sides import seconds_of
from torch import nn

from nas_recalib.architecture import Architecture, build_seeded
from nas_recalib.data import Source, load_resident
from nas_recalib.device import fast_dtype
from nas_recalib.proxy.evaluation import evaluate
from nas_recalib.proxy.fidelity import FIDELITIES, Fidelity, find_fidelity
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Training, default_recipe
from nas_recalib.proxy.trainer import refuse_misfits
from nas_recalib.space import SearchSpace
from nas_recalib.timing.cases import Settings


def time_ladder(
    space: SearchSpace, source: Source, settings: Settings, count: int, steps: int, *, whole: bool
) -> list[dict[str, Any]]:
    """Return one row for each named fidelity, the mean over architectures drawn uniformly.

    Args:
        space: Search space.
        source: Data set.
        settings: Device and seed.
        count: Number of architectures to draw.
        steps: Number of training steps in the piece that a trial is extrapolated from.
        whole: Whether to run whole trials instead.
    """
    architectures = space.sample_many(count, seed=settings.seed)
    rows = []
    for name in FIDELITIES:
        fidelity = find_fidelity(name, space, source, settings.device)
        refuse_misfits(space, fidelity)
        drawn = _time_trials(architectures, fidelity, source, settings, None if whole else steps)
        mean = statistics.mean(trial["seconds"] for trial in drawn)
        rows.append(
            {
                "space": space.name,
                "fidelity": name,
                **fidelity.as_dict(),
                "multiplied_out": not whole,
                "seconds": mean,
                "trials_an_hour": 3600 / mean,
                "trials": drawn,
            }
        )
        print(f"{space.name}, {name}: {mean:.1f} s a trial", file=sys.stderr, flush=True)
    return rows


def _time_trials(
    architectures: Sequence[Architecture],
    fidelity: Fidelity,
    source: Source,
    settings: Settings,
    steps: int | None,
) -> list[dict[str, Any]]:
    """Return the seconds of each trial, from a piece of some steps or, for None, from the whole trial."""
    images = fidelity.images or len(source.train.labels) - fidelity.validation
    recipe = default_recipe(images)
    seen = images if steps is None else min(images, steps * recipe.batch_size)
    data = load_resident(source, fidelity.resolution, seen, fidelity.validation, settings.seed)
    proxy = Proxy(
        data=data.to(settings.device),
        width=fidelity.width,
        epochs=fidelity.epochs,
        recipe=recipe,
        dtype=fast_dtype(settings.device),
        seed=settings.seed,
    )
    measure = _time_whole if steps is None else partial(_time_pieces, images=images)
    return [{"architecture": str(network), **measure(proxy, network)} for network in architectures]


def _time_whole(proxy: Proxy, architecture: Architecture) -> dict[str, float]:
    def trial() -> None:
        outcome = proxy.train(architecture, lambda _: False)
        if isinstance(outcome, Failure):
            raise RuntimeError(f"{architecture}: {outcome.message}")

    return {"seconds": seconds_of(trial, proxy.data.train_images.device)}


def _time_pieces(proxy: Proxy, architecture: Architecture, images: int) -> dict[str, float]:
    """Extrapolate a trial from pieces; the set-up and the slower first piece count once."""
    data, device = proxy.data, proxy.data.train_images.device
    network = nn.Module()

    def set_up() -> None:
        nonlocal network
        shape = architecture.shape.scaled(proxy.width)
        network = build_seeded(shape, architecture.blocks, data.num_classes, 3, proxy.seed)
        network.to(device=device, memory_format=torch.channels_last)

    timed = {"set_up": seconds_of(set_up, device)}
    given = {"seed": proxy.seed, "dtype": proxy.dtype, "recipe": proxy.recipe}
    epoch = Training(network, data, proxy.epochs, **given).train_epoch
    timed["first_piece"] = seconds_of(epoch, device)
    timed["piece"] = seconds_of(epoch, device)
    timed["validation"] = seconds_of(lambda: evaluate(network, data, proxy.dtype), device)
    batch = min(proxy.recipe.batch_size, images)
    timed["pieces"] = proxy.epochs * (images // batch) / (len(data.train_labels) // batch)
    return {**timed, "seconds": multiply_out(**timed, epochs=proxy.epochs)}


def multiply_out(
    *, set_up: float, first_piece: float, piece: float, validation: float, pieces: float, epochs: int
) -> float:
    """Return the seconds of a trial from those of its pieces."""
    return set_up + first_piece + (pieces - 1) * piece + epochs * validation
