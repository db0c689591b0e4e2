"""Pruners: which trainings stop early, and which paused ones are promoted to train further."""

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.pruners import MedianPruner
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.study.trials import MICRO_BATCHES, RESUMED_FROM, finished_or_running, lineage

_BRACKET = "bracket"  # user attribute of a trial
_Curves = Mapping[int, Mapping[int, float]]  # accuracies by trial number and epoch


class Pruner:
    """Pruner that trains every trial to the last epoch; base class of all others.

    The intermediate values of a study are accuracies after each epoch.

    Attributes:
        promotes: Whether trials that it stops may be promoted later, so that their checkpoints are needed.
    """

    promotes = False

    def new_trial_attrs(self, random: np.random.Generator) -> dict[str, int]:
        """Return the user attributes to store with a new trial."""
        return {}

    def should_stop(self, trial: optuna.Trial) -> bool:
        """Whether a running trial stops after the epoch that it has just reported."""
        return False

    def trial_to_promote(self, study: optuna.Study, last: bool) -> FrozenTrial | None:
        """Return a paused trial to promote, if there is one.

        Args:
            study: Study of the trials.
            last: Whether no new architectures will be trained, so that the best trial of a rung is promoted
                however few there are.
        """
        return None


@dataclass(frozen=True)
class MedianPruning(Pruner):
    """Pruner that stops trials below the median of the completed trials at the same epoch.

    Attributes:
        epochs: Number of epochs of a complete training; nothing is pruned in the first quarter.
    """

    epochs: int

    def should_stop(self, trial: optuna.Trial) -> bool:
        pruner = MedianPruner(n_startup_trials=5, n_warmup_steps=self.epochs // 4)
        return pruner.prune(trial.study, trial.storage.get_trial(trial._trial_id))


@dataclass(frozen=True)
class SuccessiveHalving(Pruner):
    """Asynchronous successive halving (ASHA): trials pause at rungs, and the best of a rung are promoted.

    Algorithm 2 of Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020. Whenever a
    worker is free, the best trial of the highest rung that is among the best 1 / `reduction_factor` there is
    promoted; if there is none, a new trial starts. With several brackets, each of which starts one rung
    higher than the one before, this is asynchronous Hyperband.

    Attributes:
        epochs: Number of epochs of a complete training.
        reduction_factor: Number of trials in a rung for each one that is promoted.
        hyperband: Whether there is one bracket for each rung and one without rungs, or the first only.
    """

    epochs: int
    reduction_factor: int = 3
    hyperband: bool = False
    promotes = True

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials pause, in ascending order."""
        rungs, epoch = [], self.epochs
        while epoch > 1:
            epoch = max(1, round(epoch / self.reduction_factor))
            rungs.append(epoch)
        return tuple(reversed(rungs))

    def new_trial_attrs(self, random: np.random.Generator) -> dict[str, int]:
        """Draw a bracket so that all brackets train about the same number of epochs."""
        if not self.hyperband:
            return {}
        count = len(self.rungs) + 1
        weights = np.array([count / (s + 1) * self.reduction_factor**s for s in reversed(range(count))])
        return {_BRACKET: int(random.choice(count, p=weights / weights.sum()))}

    def should_stop(self, trial: optuna.Trial) -> bool:
        trials, curves = finished_or_running(trial.study), _learning_curves(trial.study)
        frozen = next((other for other in trials if other.number == trial.number), None)
        if frozen is None:  # another worker has marked it as lost
            return True
        epoch, bracket = frozen.last_step, _bracket(frozen)
        if epoch not in self.rungs[bracket:]:
            return False
        return frozen not in self._promotable(trials, curves, epoch, bracket, last=False)

    def trial_to_promote(self, study: optuna.Study, last: bool) -> FrozenTrial | None:
        trials, curves = finished_or_running(study), _learning_curves(study)
        for rung, epoch in reversed(list(enumerate(self.rungs))):
            for bracket in range(rung + 1):
                for trial in self._promotable(trials, curves, epoch, bracket, last):
                    if trial.state == TrialState.PRUNED and trial.last_step == epoch:
                        return trial
        return None

    def _promotable(
        self, trials: Sequence[FrozenTrial], curves: _Curves, epoch: int, bracket: int, last: bool
    ) -> list[FrozenTrial]:
        """Return the best trials of a rung, best first; of equals the older first."""
        in_rung = [trial for trial in trials if _bracket(trial) == bracket and epoch in curves[trial.number]]
        ranked = sorted(in_rung, key=lambda trial: (-curves[trial.number][epoch], trial.number))
        count = len(in_rung) // self.reduction_factor
        return ranked[: max(1, count) if last else count]


DEFAULT_PRUNER = "none"
PRUNERS: dict[str, Callable[[int], Pruner]] = {
    "none": lambda _: Pruner(),
    "median": MedianPruning,
    "halving": SuccessiveHalving,
    "hyperband": lambda epochs: SuccessiveHalving(epochs, hyperband=True),
}


def resumed_attributes(trial: FrozenTrial) -> dict[str, Any]:
    """Return the user attributes of a trial that resumes another one."""
    inherited = [key for key in (_BRACKET, MICRO_BATCHES, "strategy", "proposed") if key in trial.user_attrs]
    return {RESUMED_FROM: trial.number, **{key: trial.user_attrs[key] for key in inherited}}


def _learning_curves(study: optuna.Study) -> _Curves:
    """Return accuracy by epoch for each trial number, with epochs of the trials that it was resumed from."""
    trials = study.get_trials(deepcopy=False)
    earlier, own = lineage(trials), {trial.number: trial.intermediate_values for trial in trials}
    return {
        trial.number: ChainMap(*(own[number] for number in (trial.number, *earlier(trial)) if number in own))
        for trial in trials
    }


def _bracket(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(_BRACKET, 0))
