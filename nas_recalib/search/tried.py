"""What a study says of architectures that need not be trained again."""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas_recalib.search.samplers import Picks
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import FINISHED, REPLAYED

_OF_ITS_OWN = ("out-of-memory", "diverged")  # failures that come from the architecture


@dataclass
class Tried:
    """Follows a study.

    Attributes:
        study: Which.
        space: Its space.
        known: Architectures that have been trained, or have failed for a reason of their own.
        claimed: Those that are being trained by another process.
    """

    study: optuna.Study
    space: SearchSpace
    known: dict[Picks, FrozenTrial] = field(default_factory=dict)
    claimed: dict[Picks, FrozenTrial] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    @property
    def all(self) -> Mapping[Picks, FrozenTrial]:
        return ChainMap(self.known, self.claimed)

    def look(self) -> None:
        """Learns what has ended since, and what other processes on the same storage are at."""
        self.claimed.clear()
        for trial in self.study.get_trials(deepcopy=False):
            if trial.number not in self._seen and trial.state.is_finished():
                self._seen.add(trial.number)
                self._remember(trial)
            elif trial.state == TrialState.RUNNING and trial.params.keys() == self.space.options().keys():
                self.claimed[self.picks(trial)] = trial

    def add(self, trial: FrozenTrial) -> None:
        """Counts a trial's architecture as known to this process, whatever came of it."""
        self.known[self.picks(trial)] = trial

    def picks(self, trial: FrozenTrial) -> Picks:
        return self.space.picks(self.space.decode(trial.params))

    def _remember(self, trial: FrozenTrial) -> None:
        """Keeps what a trial says of its architecture; an interruption or a bug says nothing."""
        telling = trial.state in FINISHED or trial.user_attrs.get("failure") in _OF_ITS_OWN
        if telling and "architecture" in trial.user_attrs and REPLAYED not in trial.user_attrs:
            self.add(trial)
