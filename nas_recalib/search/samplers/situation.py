"""What a strategy is told, and what it answers."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from nas_recalib.costs import Feasible
from nas_recalib.space import SearchSpace

Picks = tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """An architecture that has been trained to the end.

    Attributes:
        number: Of its trial.
        picks: Its choice at every position.
        values: One an objective, all to be maximised.
    """

    number: int
    picks: Picks
    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Situation:
    """Where a search stands when it asks for an architecture.

    Attributes:
        space: What may be chosen.
        feasible: What is within the budget.
        known: In the order in which they ended.
        pruned: What was given up while it was trained, in the order in which that was.
        running: What other workers are training.
        tried: Everything that need not be proposed: known, pruned, failed or running.
        random: Follows from the seed and the trial's number.
        study: Of the search.
        trial: The one that is asked for.
    """

    space: SearchSpace
    feasible: Feasible
    known: Sequence[Known]
    pruned: Sequence[Picks]
    running: Sequence[Picks]
    tried: Set[Picks]
    random: np.random.Generator
    study: optuna.Study
    trial: FrozenTrial


Strategy = Callable[[Situation], Picks | None]
"""Proposes an architecture, within the budget or not; None is drawn uniformly from within."""
