"""Progress of a search: the observer that engines report to, and the lines it shows on standard error."""

import sys
import time
from dataclasses import dataclass, field
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.costs import format_quantity
from nas_recalib.errors import printable
from nas_recalib.proxy.train import Epoch
from nas_recalib.report.terminal import duration
from nas_recalib.study.trials import (
    RESUMED_FROM,
    WARM_STARTED_FROM,
    accuracy_of,
    curve_of,
    finished,
    trained_here,
)

_SHOWN = 3  # running trials to show


class Observer(Protocol):
    """Observer that an engine notifies of the progress of a search."""

    def started(self, number: int, architecture: Architecture) -> None:
        """Take a trial that this process has started to train."""

    def epoch(self, number: int, epoch: Epoch) -> None:
        """Take an epoch that was trained by this process; not called for those of a checkpoint."""

    def ended(self, trial: FrozenTrial) -> None:
        """Take a trial that has finished or failed, in any process."""


@dataclass
class Progress:
    """Observer that prints a line for every trial and, on a terminal, a live status line.

    Attributes:
        target: Number of trained trials that the study is to end with.
        done: Number of trained trials so far.
        counted: Numbers of the trials that belong to those, or were transferred from another study.
        epochs: Number of epochs of a complete training.
        lengths: Number of epochs of each trial, by its number, with those that it was resumed from.
        epochs_done: Number of epochs of all trained trials.
        best: Best accuracy so far, and the number of its trial.
        console: Console to print to.
    """

    target: int
    done: int
    counted: set[int]
    epochs: int
    lengths: dict[int, int]
    epochs_done: int
    best: tuple[float, int] | None = None
    console: Console = field(default_factory=lambda: Console(file=sys.stderr, highlight=False))
    _live: Live | None = None
    _start: float = field(default_factory=lambda: time.monotonic())
    _ended: int = 0
    _trained: int = 0  # epochs trained by all processes since this one started
    _reached: dict[int, int] = field(default_factory=dict)  # epochs of this process's running trials
    _running: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, study: optuna.Study, target: int, epochs: int) -> "Progress":
        """Return the progress of a study so far.

        Args:
            study: Study to read.
            target: Number of trained trials that the study is to end with.
            epochs: Number of epochs of a complete training.
        """
        complete = [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]
        best = max(((accuracy_of(trial), trial.number) for trial in complete), default=None)
        counted = {trial.number for trial in finished(study)}
        lengths = {trial.number: len(curve_of(trial)) for trial in study.get_trials(deepcopy=False)}
        trained = trained_here(study)
        epochs_done = sum(len(curve_of(trial)) for trial in trained)
        return cls(target, len(trained), counted, epochs, lengths, epochs_done, best)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live = Live(self._status(), console=self.console, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(Text())
            self._live.__exit__(None, None, None)

    def started(self, number: int, architecture: Architecture) -> None:
        self._running[number] = f"trial {number}"
        self._refresh()

    def epoch(self, number: int, epoch: Epoch) -> None:
        accuracy = f"accuracy {epoch.accuracy:.4f}"
        self._running[number] = f"trial {number}: epoch {epoch.number}/{self.epochs}, {accuracy}"
        self._reached[number] = epoch.number
        self._trained += 1
        self._refresh()

    def ended(self, trial: FrozenTrial) -> None:
        self._running.pop(trial.number, None)
        resumed_from, transferred = trial.user_attrs.get(RESUMED_FROM), WARM_STARTED_FROM in trial.user_attrs
        length, earlier = len(curve_of(trial)), self.lengths.get(trial.user_attrs.get(RESUMED_FROM, -1), 0)
        if self._reached.pop(trial.number, None) is None and not transferred:  # another process trained it
            self._trained += max(0, length - max(earlier, self.lengths.get(trial.number, 0)))
        self.lengths[trial.number] = length
        if trial.state == TrialState.FAIL:
            failure, message = trial.user_attrs.get("failure", "failed"), trial.user_attrs.get("message", "")
            reason = failure if message == failure else f"{failure}: {message}"
            self.console.print(printable(f"trial {trial.number}: {reason}"), markup=False)
            return
        if not transferred:
            self.done += resumed_from not in self.counted
            self.epochs_done += length - (earlier if resumed_from in self.counted else 0)
            self._ended += 1
        self.counted.add(trial.number)
        value = accuracy_of(trial)
        pruned = trial.state == TrialState.PRUNED
        if not pruned and (self.best is None or value > self.best[0]):
            self.best = (value, trial.number)
        name = f"all {trial.user_attrs['baseline']}, " if "baseline" in trial.user_attrs else ""
        resumed = f"resumed from trial {resumed_from}, " if resumed_from is not None else ""
        stopped = f"stopped at epoch {length}, " if pruned else ""
        line = (
            f"trial {trial.number}: {name}{resumed}{stopped}accuracy {value:.4f}, "
            f"{format_quantity(trial.user_attrs['macs'])} MACs, {trial.user_attrs['seconds']:.0f} s"
        )
        status = "" if self._live else f" | {self._status().plain}"
        self.console.print(line + status, markup=False, soft_wrap=True)
        self._refresh()

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self._status())

    def _status(self) -> Text:
        parts = [f"{self.done} of {self.target} trials"]
        if self.best:
            parts.append(f"best {self.best[0]:.4f} (trial {self.best[1]})")
        if self._ended and self._trained:
            seconds = (time.monotonic() - self._start) / self._trained
            epochs = max(1, self.epochs_done / self.done) if self.done else self.epochs  # fewer if pruned
            remaining = (self.target - self.done) * epochs - sum(self._reached.values())
            parts.append(f"{3600 / (seconds * epochs):.0f} trials/h")
            parts.append(f"{duration(seconds * max(0, remaining))} left")
        if len(self._running) > 1:
            parts.append(f"{len(self._running)} running")
        parts += list(self._running.values())[:_SHOWN]
        return Text(", ".join(parts))
