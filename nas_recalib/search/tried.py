"""What a study says of architectures that need not be trained again."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial, TrialState

from nas_recalib.search.samplers import Picks
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import (
    ENQUEUED,
    FINISHED,
    OF_ITS_OWN,
    REPLAYED,
    WITHDRAWN,
    comes_back,
    failure_of,
    owed,
)


@dataclass
class Tried:
    """Follows a study.

    Attributes:
        space: Its space.
        known: Architectures that have been trained, or have failed for a reason of their own.
        claimed: Those that are being trained, or are to be gone on with.
        wished: Those of enqueued trials that have been withdrawn, the oldest first.
    """

    space: SearchSpace
    known: dict[Picks, FrozenTrial] = field(default_factory=dict)
    claimed: dict[Picks, FrozenTrial] = field(default_factory=dict)
    wished: list[Picks] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    @property
    def all(self) -> Mapping[Picks, FrozenTrial]:
        return ChainMap(self.known, self.claimed)

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """Learns from all trials of a study what has ended since, and what is being trained."""
        self.claimed.clear()
        for trial in owed(trials):
            self.claimed[self.picks(trial)] = trial
        for trial in trials:
            if trial.number not in self._seen and trial.state.is_finished():
                self._seen.add(trial.number)
                self._remember(trial)
            elif trial.state == TrialState.RUNNING and trial.params.keys() == self.space.options().keys():
                self.claimed[self.picks(trial)] = trial

    def add(self, trial: FrozenTrial) -> None:
        """Counts a trial's architecture as known to this process, whatever came of it."""
        self.known[self.picks(trial)] = trial

    def picks(self, trial: FrozenTrial) -> Picks:
        return self.space.picks_of(trial.params)

    def _remember(self, trial: FrozenTrial) -> None:
        """Keeps what a trial says of its architecture; an interruption or a bug says nothing."""
        of_its_own = failure_of(trial) in OF_ITS_OWN and not comes_back(trial)
        telling = trial.state in FINISHED or of_its_own
        if telling and "architecture" in trial.user_attrs and REPLAYED not in trial.user_attrs:
            self.add(trial)
        if failure_of(trial) == WITHDRAWN and ENQUEUED in trial.system_attrs:
            self.wished.append(self.picks(trial))
