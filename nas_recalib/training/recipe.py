"""Recipes of full-size training: epochs, batch size, learning rate schedule and other hyperparameters."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nas_recalib.errors import InputError

_BASE_BATCH_SIZE = 256  # other batch sizes scale the learning rate linearly (Goyal et al., 2017)
_STEP_FACTOR = 0.1


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of full-size training by SGD.

    Attributes:
        name: Name of the recipe in `--recipe`.
        epochs: Number of epochs.
        schedule: Learning rate schedule: "step" divides the rate by ten at each milestone, "cosine" decays it
            to zero along half a cosine.
        milestones: Epochs after which the step schedule lowers the learning rate, ascending.
        batch_size: Batch size over all processes.
        base_rate: Learning rate for a batch size of 256; it is scaled linearly for others.
        warmup_epochs: Number of epochs over which the learning rate increases linearly from zero.
        momentum: Momentum of SGD.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: Weight decay of every parameter.
        label_smoothing: Label smoothing of the cross-entropy.

    Raises:
        InputError: If a value is out of range.
    """

    name: str
    epochs: int
    schedule: str
    milestones: tuple[float, ...] = ()
    batch_size: int = 256
    base_rate: float = 0.1
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        requirements = {
            "schedule": (self.schedule in _SCHEDULES, f"one of {', '.join(_SCHEDULES)}"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "milestones": (self.milestones == tuple(sorted(self.milestones)), "in ascending order"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "base_rate": (0 < self.base_rate < math.inf, "above 0"),
            "warmup_epochs": (
                0 <= self.warmup_epochs < self.epochs,
                f"from 0 to below {self.epochs} (epochs)",
            ),
            "momentum": (0 <= self.momentum < 1, "from 0 to below 1"),
            "nesterov": (self.momentum > 0 or not self.nesterov, "possible without momentum"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "from 0 to below 1"),
        }
        for name, (met, allowed) in requirements.items():
            if not met:
                raise InputError(f"{name}: {getattr(self, name)!r} is not {allowed}")

    @property
    def peak_rate(self) -> float:
        """Learning rate after warm-up, before the schedule lowers it."""
        return self.base_rate * self.batch_size / _BASE_BATCH_SIZE

    def rate_at(self, epoch: float) -> float:
        """Return the learning rate at a fractional epoch; the first epoch is from 0 to 1."""
        if epoch < self.warmup_epochs:
            return self.peak_rate * epoch / self.warmup_epochs
        return self.peak_rate * _SCHEDULES[self.schedule](self, epoch)

    def with_epochs(self, epochs: int) -> "Recipe":
        """Return the recipe with another number of epochs, and milestones and warm-up in proportion."""
        scale = epochs / self.epochs
        milestones = tuple(milestone * scale for milestone in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones, warmup_epochs=self.warmup_epochs * scale)


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        InputError: If no recipe has that name.
    """
    if name not in RECIPES:
        raise InputError(f"recipe: unknown {name!r}; allowed: {', '.join(RECIPES)}")
    return RECIPES[name]


def _step(recipe: Recipe, epoch: float) -> float:
    return _STEP_FACTOR ** sum(epoch >= milestone for milestone in recipe.milestones)


def _cosine(recipe: Recipe, epoch: float) -> float:
    progress = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


_SCHEDULES: Mapping[str, Callable[[Recipe, float], float]] = {"step": _step, "cosine": _cosine}

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("step100", epochs=100, schedule="step", milestones=(30, 60, 90)),  # SCNet, section 4.1
        Recipe("cosine120", epochs=120, schedule="cosine"),  # PSConv, section 4.1
    )
}
