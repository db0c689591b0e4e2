"""Trainer of proxy networks at any fidelity, which reads images once; checks that choices fit the proxy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from nas_recalib.architecture import Architecture
from nas_recalib.costs.macs import fixed_cost, named_block_cost
from nas_recalib.data import Resident, load_resident, open_source
from nas_recalib.device import keep_freed_memory
from nas_recalib.errors import InputError
from nas_recalib.networks import get_backbone
from nas_recalib.plugins import load_plugins
from nas_recalib.proxy.fidelity import Fidelity
from nas_recalib.proxy.objective import Failure, Proxy
from nas_recalib.proxy.train import Epoch, default_recipe
from nas_recalib.space import SearchSpace


def refuse_misfits(space: SearchSpace, fidelity: Fidelity) -> None:
    """Build every choice once, at the proxy's width and resolution.

    Raises:
        InputError: If a choice that fits the full-size network does not fit the proxy network, which is
            narrower and sees smaller images; block and choice are named.
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
        raise InputError(
            f"fidelity: proxy network with {fidelity.width:g} of the channels, on images of "
            f"{fidelity.resolution} pixels: {error}"
        ) from error


@dataclass(frozen=True)
class Loader:
    """Data set, and how its images are loaded.

    Attributes:
        data: Name of the data set.
        cache: Folder of downloads and decoded images.
        corrupt: Whether to "refuse" or "skip" images that cannot be decoded.
        seed: Seed of the split into training and validation images.
    """

    data: str
    cache: Path
    corrupt: str
    seed: int

    def load(self, fidelity: Fidelity) -> Resident:
        """Return the images that a fidelity needs, on the CPU, decoded once and then read from the cache.

        Raises:
            InputError: If an image cannot be decoded and is to be refused, or there are too few.
        """
        sizes = (fidelity.resolution, fidelity.images, fidelity.validation)
        source = open_source(self.data, self.cache)
        return load_resident(source, *sizes, self.seed, cache=self.cache, corrupt=self.corrupt)


class Trainer:
    """Trainer of one network after another in this process; images stay on the device between trainings.

    Args:
        images: Loader of the images.
        device: Device that trains.
        dtype: Name of the data type of convolutions and products.
        threads: Number of CPU threads.
        plugins: Modules of the user's own operators.
        recipe: Values that replace those of the default recipe.
        with_raw: Whether to evaluate raw weights besides averaged ones.

    Attributes:
        device: Device that trains.
        data: Cached function from a fidelity to its images on the device.
    """

    def __init__(
        self,
        images: Loader,
        device: str,
        *,
        dtype: str,
        threads: int,
        plugins: Sequence[str] = (),
        recipe: Mapping[str, Any] | None = None,
        with_raw: bool = False,
    ) -> None:
        load_plugins(plugins)
        torch.set_num_threads(threads)
        keep_freed_memory()
        self.device = torch.device(device)
        self._dtype = getattr(torch, dtype)
        self._recipe = dict(recipe or {})
        self._with_raw = with_raw
        self.data: Callable[[Fidelity], Resident] = cache(lambda f: images.load(f).to(self.device))

    def train(
        self,
        architecture: Architecture,
        fidelity: Fidelity,
        seed: int,
        report: Callable[[Epoch], bool] = lambda _: False,
    ) -> list[Epoch] | Failure:
        """Train the scaled network of an architecture at a fidelity; see `Proxy.train`."""
        data = self.data(fidelity)
        proxy = Proxy(
            data=data,
            width=fidelity.width,
            epochs=fidelity.epochs,
            recipe=replace(default_recipe(len(data.train_labels)), **self._recipe),
            dtype=self._dtype,
            seed=seed,
            with_raw=self._with_raw,
        )
        return proxy.train(architecture, report)
