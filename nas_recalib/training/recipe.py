"""Recipes: how long to train, and with what learning rate at every moment."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nas_recalib.errors import InputError

_RATE_IS_FOR = 256  # images a step; other batches scale the rate linearly (Goyal et al., 2017)
_STEP_FACTOR = 0.1


@dataclass(frozen=True)
class Recipe:
    """Settings of a training at full size by SGD.

    Attributes:
        name: As the user writes it.
        epochs: Passes over the training images.
        schedule: "step" divides the rate by ten at each milestone; "cosine" lets it down to zero along half
            a cosine.
        milestones: Epochs after which the step schedule lowers the rate, ascending.
        batch_size: Images a step, over all processes.
        base_rate: Learning rate for 256 images a step; in proportion for more or fewer.
        warmup_epochs: Epochs over which the rate climbs linearly from zero.
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
        _require(self.schedule in _SCHEDULES, "schedule", self.schedule, "one of " + ", ".join(_SCHEDULES))
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        ascending = self.milestones == tuple(sorted(self.milestones))
        _require(ascending, "milestones", self.milestones, "in ascending order")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(0 < self.base_rate < math.inf, "base_rate", self.base_rate, "above 0")
        within = 0 <= self.warmup_epochs < self.epochs
        _require(within, "warmup_epochs", self.warmup_epochs, f"from 0 to below {self.epochs}, the epochs")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "from 0 to below 1")
        _require(
            self.momentum > 0 or not self.nesterov, "nesterov", self.nesterov, "possible without momentum"
        )
        _require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "at least 0")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "from 0 to below 1")

    @property
    def peak_rate(self) -> float:
        """Return the learning rate where nothing lowers it."""
        return self.base_rate * self.batch_size / _RATE_IS_FOR

    def rate_at(self, epoch: float) -> float:
        """Return the learning rate after so many epochs, a fraction included; the first runs from 0 to 1."""
        if epoch < self.warmup_epochs:
            return self.peak_rate * epoch / self.warmup_epochs
        return self.peak_rate * _SCHEDULES[self.schedule](self, epoch)

    def with_epochs(self, epochs: int) -> "Recipe":
        """Return the same recipe, longer or shorter: milestones and warm-up keep their share of it."""
        scale = epochs / self.epochs
        milestones = tuple(milestone * scale for milestone in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones, warmup_epochs=self.warmup_epochs * scale)


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        InputError: If there is none; the names are listed.
    """
    if name not in RECIPES:
        raise InputError(f"recipe: unknown {name!r}; allowed: {', '.join(RECIPES)}")
    return RECIPES[name]


def _step(recipe: Recipe, epoch: float) -> float:
    return _STEP_FACTOR ** sum(epoch >= milestone for milestone in recipe.milestones)


def _cosine(recipe: Recipe, epoch: float) -> float:
    progress = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise InputError(f"{name}: {value!r} is not {allowed}")


_SCHEDULES: Mapping[str, Callable[[Recipe, float], float]] = {"step": _step, "cosine": _cosine}

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("step100", epochs=100, schedule="step", milestones=(30, 60, 90)),  # SCNet, section 4.1
        Recipe("cosine120", epochs=120, schedule="cosine"),  # PSConv, section 4.1
    )
}
