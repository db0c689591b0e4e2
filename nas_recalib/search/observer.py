"""Who is told what happens in a search."""

from typing import Protocol

from optuna.trial import FrozenTrial

from nas_recalib.architecture import Architecture
from nas_recalib.proxy.train import Epoch


class Observer(Protocol):
    """Is told what happens."""

    def started(self, number: int, architecture: Architecture) -> None: ...

    def epoch(self, number: int, epoch: Epoch) -> None:
        """Take an epoch that was trained by this process; not called for those of a checkpoint."""

    def ended(self, trial: FrozenTrial) -> None: ...
