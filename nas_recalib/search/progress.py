"""What a search shows while it runs, on standard error."""

import sys
import time
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.text import Text

from nas_recalib.architecture import Architecture
from nas_recalib.costs import format_quantity
from nas_recalib.proxy.train import Epoch
from nas_recalib.report.terminal import duration
from nas_recalib.study.trials import CONTINUES, accuracy_of, curve_of, finished, trained_here

_SHOWN = 3  # of the trials that run


@dataclass
class Progress:
    """A line for every trial, and below them on a terminal one that is kept up to date.

    Attributes:
        goal: Trained trials that the study is to end with.
        done: Those it has.
        counted: Numbers of the trials that trained one of those, or were taken over.
        epochs: Of a trial.
        best: Best accuracy so far, and the trial it belongs to.
    """

    goal: int
    done: int
    counted: set[int]
    epochs: int
    best: tuple[float, int] | None = None
    console: Console = field(default_factory=lambda: Console(file=sys.stderr, highlight=False))
    _live: Live | None = None
    _begun: float = field(default_factory=time.monotonic)
    _ended: int = 0
    _running: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, study: optuna.Study, goal: int, epochs: int) -> "Progress":
        """From where a study stands."""
        complete = [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]
        best = max(((accuracy_of(trial), trial.number) for trial in complete), default=None)
        counted = {trial.number for trial in finished(study)}
        return cls(goal, len(trained_here(study)), counted, epochs, best)

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
        told = f"trial {number}: epoch {epoch.number}/{self.epochs}, accuracy {epoch.accuracy:.4f}"
        self._running[number] = told
        self._refresh()

    def ended(self, trial: FrozenTrial) -> None:
        self._running.pop(trial.number, None)
        if trial.state == TrialState.FAIL:
            failure, message = trial.user_attrs.get("failure", "failed"), trial.user_attrs.get("message", "")
            self.console.print(f"trial {trial.number}: {failure}: {message}", markup=False)
            return
        self.done += trial.user_attrs.get(CONTINUES) not in self.counted
        self.counted.add(trial.number)
        self._ended += 1
        value = accuracy_of(trial)
        pruned = trial.state == TrialState.PRUNED
        if not pruned and (self.best is None or value > self.best[0]):
            self.best = (value, trial.number)
        told = f"left at epoch {len(curve_of(trial))}, " if pruned else ""
        name = f"all {trial.user_attrs['baseline']}, " if "baseline" in trial.user_attrs else ""
        before = f"on from trial {trial.user_attrs[CONTINUES]}, " if CONTINUES in trial.user_attrs else ""
        line = (
            f"trial {trial.number}: {name}{before}{told}accuracy {value:.4f}, "
            f"{format_quantity(trial.user_attrs['macs'])} MACs, {trial.user_attrs['seconds']:.0f} s"
        )
        tail = "" if self._live else f" | {self._status().plain}"
        self.console.print(line + tail, markup=False, soft_wrap=True)
        self._refresh()

    def _refresh(self) -> None:
        if self._live:
            self._live.update(self._status())

    def _status(self) -> Text:
        parts = [f"{self.done} of {self.goal} trials"]
        if self.best:
            parts.append(f"best {self.best[0]:.4f} (trial {self.best[1]})")
        if self._ended:
            each = (time.monotonic() - self._begun) / self._ended
            parts.append(f"{3600 / each:.0f} trials/h")
            parts.append(f"{duration(each * max(0, self.goal - self.done))} left")
        if len(self._running) > 1:
            parts.append(f"{len(self._running)} run")
        parts += list(self._running.values())[:_SHOWN]
        return Text(", ".join(parts))
