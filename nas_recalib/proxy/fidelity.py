"""Fidelities: images, resolution, width and epochs of a proxy training, by name or from a file."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nas_recalib.data import Source
from nas_recalib.errors import InputError
from nas_recalib.files import StrictModel, read_yaml
from nas_recalib.networks import get_backbone
from nas_recalib.space import SearchSpace

_IMAGES_AND_EPOCHS_ON_CPU = {"quick": (5000, 2), "standard": (5000, 4), "thorough": (10_000, 6)}
_QUICK_BLOCKS = 9  # blocks, as in ResNet-20, beyond which a quick trial on a CPU sees fewer images
_LEAST_QUICK = 1000
_MOST = 2**31  # images and epochs, as in a study's config
_EPOCHS_ON_GPU = {"quick": 4, "standard": 12, "thorough": 36}
FIDELITIES = tuple(_EPOCHS_ON_GPU)  # by ascending cost


@dataclass(frozen=True)
class Fidelity:
    """Amount of training in a proxy trial.

    Attributes:
        images: Number of training images; None is all that are not used for validation.
        validation: Number of validation images.
        resolution: Side of the images, in pixels.
        width: Factor on the network's channels.
        epochs: Number of passes over the training images.
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
            if value is not None and value > _MOST:
                raise InputError(f"{name}: {value} is not at most {_MOST}")
        if self.resolution > 512:
            raise InputError(f"resolution: {self.resolution} is not at most 512")
        if not 0 < self.width <= 4:
            raise InputError(f"width: {self.width} is not above 0 and at most 4")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def changed(self, total: int, **given: Any) -> "Fidelity":
        """Return the fidelity with some values replaced.

        A number of training images that is not replaced is reduced to those that validation leaves.

        Args:
            total: Number of images in the data set's training part.
            **given: New values.

        Raises:
            InputError: If a value is out of range.
        """
        changed = replace(self, **given)
        left = total - changed.validation
        if "images" in given or changed.images is None or left < 1:
            return changed
        return replace(changed, images=min(changed.images, left))


class _FidelityFile(StrictModel):
    images: int | None = None
    validation: int | None = None
    resolution: int | None = None
    width: float | None = None
    epochs: int | None = None


def find_fidelity(name_or_path: str, space: SearchSpace, source: Source, device: torch.device) -> Fidelity:
    """Return a fidelity by name, fitted to the kind of device, or from a file.

    Images have at least 16 pixels a side, for the sake of the maps of the last stage. Values that a file
    leaves out are those of `quick`.

    Args:
        name_or_path: One of `FIDELITIES`, or the path of a .yaml file with some of a fidelity's attributes.
        space: Search space with the proxy's width and resolution.
        source: Data set.
        device: Device that trains.

    Raises:
        InputError: If the fidelity does not exist, its file is wrong or the images are too few.
    """
    total = len(source.train.labels)
    if total < 5:
        raise InputError(f"data: {total} images are too few to split some off for validation")
    if name_or_path.endswith((".yaml", ".yml")):
        base = find_fidelity("quick", space, source, device)
        given = read_yaml(Path(name_or_path), _FidelityFile).model_dump(exclude_none=True)
        try:
            return base.changed(total, **given)
        except InputError as error:
            raise InputError(f"{name_or_path}: {error}") from error
    if name_or_path not in FIDELITIES:
        raise InputError(
            f"fidelity: unknown {name_or_path!r}; allowed: {', '.join(FIDELITIES)}, or a .yaml file"
        )
    validation = min(5000, total // 5)
    if device.type != "cpu":
        side = min(space.proxy_resolution, source.native_size or space.proxy_resolution)
        return Fidelity(None, validation, max(16, side), space.proxy_width, _EPOCHS_ON_GPU[name_or_path])
    images, epochs = _IMAGES_AND_EPOCHS_ON_CPU[name_or_path]
    if name_or_path == "quick":  # time depends on the number of blocks more than on their width
        images = max(
            _LEAST_QUICK, min(images, _QUICK_BLOCKS * images // len(get_backbone(space.backbone).blocks()))
        )
    return Fidelity(min(images, total - validation), validation, 16, space.proxy_width, epochs)
