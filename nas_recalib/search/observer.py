"""Who is told what happens in a search."""

from typing import Protocol

from optuna.trial import FrozenTrial

from nas_recalib.architecture import Architecture
from nas_recalib.proxy.train import Epoch


class Observer(Protocol):
    """Is told what happens."""

    def started(self, number: int, architecture: Architecture) -> None: ...

    def epoch(self, number: int, epoch: Epoch) -> None: ...

    def ended(self, trial: FrozenTrial) -> None: ...
