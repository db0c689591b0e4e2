"""Trainer of proxy networks, one after the other at any fidelity, with images read once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from nas_recalib.architecture import Architecture
from nas_recalib.costs.macs import fixed_cost, named_block_cost
from nas_recalib.data import Resident, load_resident, open_source
from nas_recalib.device import keep_freed_memory
from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.networks.backbone import GateFan
from nas_recalib.plugins import load_plugins
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Epoch, default_recipe
from nas_recalib.space import SearchSpace


def refuse_misfits(space: SearchSpace, fidelity: Fidelity) -> None:
    """Builds every choice once, at the proxy's width and resolution.

    Raises:
        InputError: If one that fits the full-size network does not fit its twin, which is narrower and sees
            smaller images; it is named.
    """
    scaled = get_backbone(space.backbone).scaled(fidelity.width)
    specs = scaled.blocks()
    _, shapes = fixed_cost(scaled, fidelity.resolution, space.num_classes, 3)
    try:
        for position in space.positions:
            for block in position.blocks:
                for choice in position.choices:
                    named_block_cost(block, specs[block], choice, shapes[block])
    except ValueError as error:
        told = f"the twin at {fidelity.width:g} of the channels, on images of {fidelity.resolution} pixels"
        raise InputError(f"fidelity: {told}: {error}") from error


@dataclass(frozen=True)
class Loader:
    """How images are decoded.

    Attributes:
        data: Name of a data set.
        cache: Folder that downloads and decoded images are kept in.
        corrupt: What to do about images that cannot be decoded: refuse or skip.
        seed: Of the split.
    """

    data: str
    cache: Path
    corrupt: str
    seed: int

    def load(self, fidelity: Fidelity) -> Resident:
        """What a fidelity needs, on the CPU; decoded once, from then on read from the cache.

        Raises:
            InputError: If an image cannot be decoded, and such are refused, or there are too few.
        """
        sizes = (fidelity.resolution, fidelity.images, fidelity.validation)
        source = open_source(self.data, self.cache)
        return load_resident(source, *sizes, self.seed, cache=self.cache, corrupt=self.corrupt)


class Trainer:
    """Makes its process one that trains; images stay on the device from one training to the next.

    Args:
        images: Where they come from.
        device: Of the trainings.
        dtype: Of convolutions and products, by name.
        threads: Of the CPU.
        plugins: Modules of the user's own operators.
        gate_fan: How the convolutions of recalibrations are drawn.

    Attributes:
        device: Of the trainings.
    """

    def __init__(
        self,
        images: Loader,
        device: str,
        *,
        dtype: str,
        threads: int,
        plugins: Sequence[str] = (),
        gate_fan: GateFan = "fan_in",
    ) -> None:
        load_plugins(plugins)
        torch.set_num_threads(threads)
        keep_freed_memory()
        self.device = torch.device(device)
        self._dtype = getattr(torch, dtype)
        self._gate_fan = gate_fan
        self._resident = cache(lambda fidelity: images.load(fidelity).to(self.device))

    def data(self, fidelity: Fidelity) -> Resident:
        """The images that a fidelity sees."""
        return self._resident(fidelity)

    def train(
        self,
        architecture: Architecture,
        fidelity: Fidelity,
        seed: int,
        report: Callable[[Epoch], bool] = lambda _: False,
    ) -> list[Epoch] | Failure:
        """The learning curve of an architecture's twin, or why there is none; see `Proxy.train`."""
        data = self.data(fidelity)
        proxy = Proxy(
            data=data,
            width=fidelity.width,
            epochs=fidelity.epochs,
            recipe=replace(default_recipe(len(data.train_labels)), gate_fan=self._gate_fan),
            dtype=self._dtype,
            seed=seed,
        )
        return proxy.train(architecture, report)
