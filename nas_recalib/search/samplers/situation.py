"""What a strategy is told, and what it answers."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from nas_recalib.costs import Feasible
from nas_recalib.space import SearchSpace

Picks = tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """An architecture that has been trained, to the end or until it was given up.

    Attributes:
        number: Of its trial.
        picks: Its choice at every position.
        values: One an objective, all to be maximised; of the last epoch trained.
        curve: Accuracies after each epoch.
    """

    number: int
    picks: Picks
    values: tuple[float, ...]
    curve: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Situation:
    """Where a search stands when it asks for an architecture.

    Attributes:
        space: What may be chosen.
        feasible: What is within the budget.
        known: What was trained to the end, in the order in which that was.
        pruned: What was given up, or is left at a rung, in the order in which that was.
        running: What other workers are training.
        tried: Everything that need not be proposed: known, pruned, failed or running.
        random: Follows from the seed and the trial's number.
        directions: Of the study's objectives.
        trials: All of the study, for what else a strategy may look at.
        kept: System attributes that the strategy wants kept with the trial that it proposes.
    """

    space: SearchSpace
    feasible: Feasible
    known: Sequence[Known]
    pruned: Sequence[Known]
    running: Sequence[Picks]
    tried: Set[Picks]
    random: np.random.Generator
    directions: Sequence[StudyDirection]
    trials: Sequence[FrozenTrial]
    kept: dict[str, Any] = field(default_factory=dict)


Strategy = Callable[[Situation], Picks | None]
"""Proposes an architecture, within the budget or not; None is drawn uniformly from within."""
