"""Which trainings are given up early, and which of those that were left go on."""

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.pruners import MedianPruner
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.study.trials import MICRO_BATCHES, RESUMED_FROM, finished_or_running, lineage

_BRACKET = "bracket"  # a trial's attribute
_Told = Callable[[FrozenTrial], Mapping[int, float]]


class Pruner(Protocol):
    """Decides about a study's trials, whose intermediate values are accuracies after each epoch."""

    @property
    def resumes(self) -> bool:
        """Whether what it stops may go on."""

    def attributes(self, random: np.random.Generator) -> dict[str, int]:
        """What a new trial is to remember."""

    def stops(self, trial: optuna.Trial) -> bool:
        """Whether a running trial ends at the epoch that it has just reported."""

    def promotes(self, study: optuna.Study, last: bool) -> FrozenTrial | None:
        """A trial that ended early and is to go on, if there is one.

        Args:
            study: Of the trials.
            last: Whether no new architectures are to come, so that the best of a few goes on, too.
        """


@dataclass(frozen=True)
class Never:
    """Trains all to the end."""

    resumes = False

    def attributes(self, random: np.random.Generator) -> dict[str, int]:
        return {}

    def stops(self, trial: optuna.Trial) -> bool:
        return False

    def promotes(self, study: optuna.Study, last: bool) -> FrozenTrial | None:
        return None


@dataclass(frozen=True)
class Median(Never):
    """Gives up what is below the median of those that were trained to the end, at the same epoch.

    Attributes:
        epochs: Of a whole training; nothing is given up in their first quarter.
    """

    epochs: int

    def stops(self, trial: optuna.Trial) -> bool:
        pruner = MedianPruner(n_startup_trials=5, n_warmup_steps=self.epochs // 4)
        return pruner.prune(trial.study, trial.storage.get_trial(trial._trial_id))


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving, whose trials are left at a rung until they are among its best.

    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, algorithm 2. Whenever a
    worker is free, the best trial at the highest rung that is among the best 1/factor there goes on; if there
    is none, a new one starts. With several brackets, of which each begins a rung later than the one before,
    it is asynchronous Hyperband.

    Attributes:
        epochs: Of a whole training.
        factor: Of which one in so many goes on from a rung.
        hyperband: Whether there is a bracket for every rung and one that is never left, or the first alone.
    """

    epochs: int
    factor: int = 3
    hyperband: bool = False
    resumes = True

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are left: a whole training's divided by the factor, again and again."""
        rungs, epoch = [], self.epochs
        while epoch > 1:
            epoch = max(1, round(epoch / self.factor))
            rungs.append(epoch)
        return tuple(reversed(rungs))

    def attributes(self, random: np.random.Generator) -> dict[str, int]:
        """A bracket, drawn so that all are given about as many epochs."""
        if not self.hyperband:
            return {}
        brackets = len(self.rungs) + 1
        weights = np.array([brackets / (s + 1) * self.factor**s for s in reversed(range(brackets))])
        return {_BRACKET: int(random.choice(brackets, p=weights / weights.sum()))}

    def stops(self, trial: optuna.Trial) -> bool:
        trials, told = finished_or_running(trial.study), _told(trial.study)
        this = next((one for one in trials if one.number == trial.number), None)
        if this is None:  # buried meanwhile
            return True
        epoch, bracket = this.last_step, _bracket(this)
        if epoch not in self.rungs[bracket:]:
            return False
        return this.number not in self._best(trials, told, epoch, bracket, last=False)

    def promotes(self, study: optuna.Study, last: bool) -> FrozenTrial | None:
        trials, told = finished_or_running(study), _told(study)
        for epoch in reversed(self.rungs):
            for bracket in range(self.rungs.index(epoch) + 1):
                for number in self._best(trials, told, epoch, bracket, last):
                    trial = next(one for one in trials if one.number == number)
                    if trial.state == TrialState.PRUNED and trial.last_step == epoch:
                        return trial
        return None

    def _best(
        self, trials: Sequence[FrozenTrial], told: _Told, epoch: int, bracket: int, last: bool
    ) -> list[int]:
        """Numbers of those that go on from a rung, the best first; the older of equals."""
        there = [one for one in trials if _bracket(one) == bracket and epoch in told(one)]
        ranked = sorted(there, key=lambda one: (-told(one)[epoch], one.number))
        count = len(there) // self.factor
        return [one.number for one in ranked[: max(1, count) if last else count]]


DEFAULT_PRUNER = "none"
PRUNERS: dict[str, Callable[[int], Pruner]] = {
    "none": lambda _: Never(),
    "median": Median,
    "halving": Halving,
    "hyperband": lambda epochs: Halving(epochs, hyperband=True),
}


def resumed_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """Attributes of a trial that goes on from another."""
    kept = [key for key in (_BRACKET, MICRO_BATCHES, "strategy", "proposed") if key in trial.user_attrs]
    return {RESUMED_FROM: trial.number, **{key: trial.user_attrs[key] for key in kept}}


def _told(study: optuna.Study) -> _Told:
    """Accuracies by epochs; what goes on has those of its forerunners before it has told them again."""
    trials = study.get_trials(deepcopy=False)
    older, numbered = lineage(trials), {trial.number: trial for trial in trials}

    def told(trial: FrozenTrial) -> Mapping[int, float]:
        before = (numbered[number].intermediate_values for number in older(trial) if number in numbered)
        own = trial.intermediate_values
        return ChainMap(own, *before) if RESUMED_FROM in trial.user_attrs else own

    return told


def _bracket(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(_BRACKET, 0))
