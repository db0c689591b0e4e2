"""New trainings of a study's trials with other seeds: how they are kept, and what they say of a trial."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import optuna

from nas_recalib.study.significance import half_width

PREFIX = "confirmed "


@dataclass(frozen=True)
class Confirmation:
    """A trial trained again with seeds that had no part in making it a leader.

    The search's own value is not among them: a leader was picked by it, so luck is in it more than in others.

    Attributes:
        mean: Of the accuracies; None where there are none.
        half_width: Of the mean's 95% interval over seeds, on the same validation images; None for fewer than
            three accuracies.
        accuracies: By seed.
        diverged: Seeds with which it diverged.
    """

    mean: float | None
    half_width: float | None
    accuracies: dict[int, float]
    diverged: tuple[int, ...]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the mean's 95% interval, which an accuracy keeps within 0 and 1."""
        if self.mean is None or self.half_width is None:
            return None
        return max(0.0, self.mean - self.half_width), min(1.0, self.mean + self.half_width)

    @classmethod
    def of(cls, results: Mapping[int, Mapping[str, Any]], images: int) -> "Confirmation":
        """From what was kept of each seed.

        Args:
            results: `{"accuracy": ...}` or `{"failure": "diverged"}` by seed.
            images: How many validation images the accuracies are shares of.
        """
        accuracies = {seed: result["accuracy"] for seed, result in results.items() if "accuracy" in result}
        values = list(accuracies.values())
        return cls(
            mean=fmean(values) if values else None,
            half_width=half_width(values, 1 / images),
            accuracies=accuracies,
            diverged=tuple(seed for seed, result in results.items() if "failure" in result),
        )


def keep_confirmation(study: optuna.Study, number: int, seed: int, result: Mapping[str, Any]) -> None:
    """Keeps one training's result as an attribute of its own, which no other process writes over."""
    study.set_user_attr(f"{PREFIX}{number}/{seed}", dict(result))


def read_confirmations(study: optuna.Study, images: int) -> dict[int, Confirmation]:
    """Those of a study by their trials' numbers; `images` are those that validate."""
    results: dict[int, dict[int, Any]] = {}
    for key, result in study.user_attrs.items():
        if key.startswith(PREFIX):
            number, seed = map(int, key.removeprefix(PREFIX).split("/"))
            results.setdefault(number, {})[seed] = result
    return {
        number: Confirmation.of(dict(sorted(by_seed.items())), images) for number, by_seed in results.items()
    }
