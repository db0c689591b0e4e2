"""How cheap the proxy is."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from nas_recalib.data import Source
from nas_recalib.errors import InputError
from nas_recalib.space import SearchSpace


@dataclass(frozen=True)
class Fidelity:
    """What a proxy training sees, and for how long.

    Attributes:
        images: Training images; None is all that are not kept for validation.
        validation: Validation images.
        resolution: Side of the images, in pixels.
        width: Factor on the network's channels.
        epochs: Passes over the training images.
    """

    images: int | None
    validation: int
    resolution: int
    width: float
    epochs: int

    def __post_init__(self) -> None:
        least = {"images": 1, "validation": 1, "resolution": 8, "epochs": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise InputError(f"{name}: {value} is not at least {bound}")
        if self.resolution > 512:
            raise InputError(f"resolution: {self.resolution} is not at most 512")
        if not 0 < self.width <= 4:
            raise InputError(f"width: {self.width} is not above 0 and at most 4")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def default_fidelity(space: SearchSpace, source: Source, device: torch.device) -> Fidelity:
    """A fidelity under which a trial takes seconds to a minute on the given kind of device.

    Images have 16 pixels a side at least, so that the last stage still has a map to look at.
    """
    total = len(source.train.labels)
    if total < 5:
        raise InputError(f"data: {total} images are too few to split some off for validation")
    validation = min(5000, total // 5)
    if device.type != "cpu":
        return Fidelity(None, validation, max(16, _side(space, source)), space.proxy_width, epochs=12)
    images = min(5000, total - validation)
    return Fidelity(images, validation, 16, space.proxy_width, epochs=4 if images == 5000 else 5)


def _side(space: SearchSpace, source: Source) -> int:
    return min(space.proxy_resolution, source.native_size or space.proxy_resolution)
