"""What a study found, computed from the study alone."""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.plugins import load_study_plugins
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.location import read_config
from nas_recalib.study.statistics import (
    Confirmation,
    Point,
    distinguishable,
    front,
    hypervolumes,
    read_confirmations,
)
from nas_recalib.study.trials import (
    ACCURACY,
    CACHED_FROM,
    MEASURED,
    WITHDRAWN,
    accuracy_of,
    curve_of,
    failure_of,
    finished,
    finished_of,
    trained_here_of,
    validate_study,
)

LEADERS = 4
ENOUGH_FOR_IMPORTANCE = 10  # trials trained to the end
_COSTS = {"macs": "macs", "params": "params", "latency": "latency_ms", "memory": "memory"}  # of a row
_BEYOND = 1.1  # of the greatest cost, so that the dearest trial covers something, too


@dataclass(frozen=True)
class TrialRow:
    """One trained trial.

    Attributes:
        number: Optuna's.
        accuracy: On the validation images at the last epoch trained, 0 to 1.
        error: Standard error of the accuracy that comes from the number of validation images alone.
        macs: Multiply-accumulates of the full-size network.
        params: Parameters of the full-size network.
        latency_ms: Of the full-size network as the study's table predicts it, if it has one.
        measured_ms: The same, measured.
        memory: Peak bytes of the full-size network's activations, where they are limited.
        over: Whether what was measured is over the limit.
        architecture: In its canonical form.
        baseline: Name of the single operator that it takes everywhere, if it does so by design.
        pruned: Whether it was ended early.
        epochs: Trained.
        seconds: Taken.
        confirmation: What new trainings of it with other seeds say, where there are any.
    """

    number: int
    accuracy: float
    error: float
    macs: int
    params: int
    latency_ms: float | None
    measured_ms: float | None
    memory: int | None
    over: bool
    architecture: str
    baseline: str | None
    pruned: bool
    epochs: int
    seconds: float
    confirmation: Confirmation | None

    @property
    def diverged(self) -> bool:
        """Whether it diverged with another seed."""
        return self.confirmation is not None and bool(self.confirmation.diverged)

    @property
    def confirmed(self) -> float | None:
        """Mean accuracy over new seeds, if it was trained with such and diverged with none."""
        return None if self.confirmation is None or self.diverged else self.confirmation.mean

    def operators(self) -> str:
        """How often each operator is taken, as in `9 scconv, 7 psconv; 10 none, 6 ab`, or `all scconv`."""
        if self.baseline:
            return f"all {self.baseline}"
        return Architecture.parse(self.architecture).operators()


@dataclass(frozen=True)
class Summary:
    """A study in short.

    Attributes:
        study: Its name.
        config: What it is about.
        rows: Trained trials, the best first: confirmed ones by their mean over new seeds, then by the
            search's own accuracy those that were not, those that diverged with a new seed, those that turned
            out to be over the limit when their latency was measured, and pruned ones.
        tied: Numbers of the confirmed trials that cannot be told apart from the best, in the order of `rows`.
        front: Numbers of the trials that no other beats in all that is conflicting, the cheapest first.
        hypervolumes: After each trial that was trained to the end the share that the front covers of
            everything between nothing at a tenth more than the greatest cost of any trial and perfection for
            free.
        failures: How many trials failed, by kind.
        replayed: How many proposals were answered from what was known.
        importance: Share of the spread in accuracy that each position's choice explains; empty where there
            are too few trials to say, or all have the same accuracy.
        transferred: Number of the rows whose training was begun in another study.
    """

    study: str
    config: SearchConfig
    rows: tuple[TrialRow, ...]
    tied: tuple[int, ...]
    front: tuple[int, ...]
    hypervolumes: tuple[tuple[int, float], ...]
    failures: dict[str, int]
    replayed: int
    importance: dict[str, float]
    transferred: int = 0

    @property
    def counts(self) -> str:
        """Number of trained trials, as `--trials` counts them, and of those that another study trained."""
        others = f" and {self.transferred} transferred" if self.transferred else ""
        return f"{len(self.rows) - self.transferred} trained trials{others}"

    @property
    def best(self) -> TrialRow:
        """The most accurate trial that ran to the end; where any were confirmed, one of them.

        Raises:
            InputError: If there is none.
        """
        if not self.rows or self.rows[0].pruned:
            raise InputError(f"study: {self.study!r} has no finished trial yet")
        return self.rows[0]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarise(study: optuna.Study, plugins: Sequence[str] = ()) -> Summary:
    """Reads a study.

    Args:
        study: Which.
        plugins: Modules of the operators that it was made with, which are not loaded on its word.

    Raises:
        InputError: If it was not made by this package, or its operators are not loaded or cannot be.
    """
    validate_study(study)
    config = read_config(study)
    if config is None:
        raise InputError(f"study: {study.study_name!r} was not made by nas-recalib")
    load_study_plugins(study.study_name, config.plugins, plugins)
    trained = finished(study)
    rows = trial_rows(study, config)
    others = study.get_trials(deepcopy=False)
    sound = sorted((row for row in rows if not row.pruned and not row.over), key=lambda row: row.number)
    points = _points(sound, conflicting(config))
    leading = [sound[index] for index in front(points)]
    return Summary(
        study=study.study_name,
        config=config,
        rows=tuple(rows),
        tied=tuple(_tied(rows, config)),
        front=tuple(row.number for row in sorted(leading, key=lambda row: row.macs)),
        hypervolumes=tuple(zip((row.number for row in sound), hypervolumes(points), strict=True)),
        failures=dict(Counter(kind for kind in map(failure_of, others) if kind not in (None, WITHDRAWN))),
        replayed=sum(CACHED_FROM in trial.user_attrs for trial in others),
        importance=_importance(trained),
        transferred=len(finished_of(others)) - len(trained_here_of(others)),
    )


def conflicting(config: SearchConfig) -> list[str]:
    """A study's objectives; accuracy and MACs where it has one."""
    return config.objectives if len(config.objectives) > 1 else [ACCURACY, "macs"]


def trial_rows(study: optuna.Study, config: SearchConfig) -> list[TrialRow]:
    """A study's trained trials in the order of `Summary.rows`."""
    measured = study.user_attrs.get(MEASURED, {})
    confirmations = read_confirmations(study, config.fidelity.validation)
    rows = [
        _row(trial, config, measured.get(str(trial.number)), confirmations.get(trial.number))
        for trial in finished(study)
    ]
    for row in rows:
        _require_architecture(row)
    return sorted(rows, key=_rank)


def _require_architecture(row: TrialRow) -> None:
    try:
        Architecture.parse(row.architecture)
    except ValueError as error:
        raise InputError(f"study: trial {row.number}: {error}") from error


def leaders(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """The few that lead by the search's own accuracy; none that was pruned, is over the limit or diverged."""
    fit = [row for row in rows if not (row.pruned or row.over or row.diverged)]
    return sorted(fit, key=lambda row: (-row.accuracy, row.number))[:LEADERS]


def _rank(row: TrialRow) -> tuple[bool, bool, bool, bool, float]:
    unconfirmed = row.confirmed is None
    value = row.accuracy if row.confirmed is None else row.confirmed
    return row.pruned, row.over, row.diverged, unconfirmed, -value


def _tied(rows: Sequence[TrialRow], config: SearchConfig) -> list[int]:
    """Numbers of those that cannot be told apart from the first."""
    competing = {
        row.number: row.confirmation.accuracies
        for row in rows
        if row.confirmation and row.confirmed is not None and not row.over
    }
    if not competing:
        return []
    best, *others = competing
    apart = distinguishable(competing, 1 / config.fidelity.validation)
    return [number for number in others if frozenset({best, number}) not in apart]


def _row(
    trial: FrozenTrial, config: SearchConfig, measured_ms: float | None, confirmation: Confirmation | None
) -> TrialRow:
    accuracy = accuracy_of(trial)
    attributes = trial.user_attrs
    images = config.fidelity.validation
    limit_ms = math.inf if config.budget.latency is None else config.budget.latency / 1e6
    return TrialRow(
        number=trial.number,
        accuracy=accuracy,
        error=math.sqrt(accuracy * (1 - accuracy) / images),
        macs=attributes["macs"],
        params=attributes["params"],
        latency_ms=attributes.get("predicted_latency_ms"),
        measured_ms=measured_ms,
        memory=attributes.get("memory"),
        over=measured_ms is not None and measured_ms > limit_ms,
        architecture=attributes["architecture"],
        baseline=attributes.get("baseline"),
        pruned=trial.state == TrialState.PRUNED,
        epochs=len(curve_of(trial)),
        seconds=attributes["seconds"],
        confirmation=confirmation,
    )


def _points(rows: Sequence[TrialRow], objectives: Sequence[str]) -> list[Point]:
    """Accuracies, and what costs leave of a tenth more than the greatest of any row, as a share of that."""
    costs = [[float(getattr(row, _COSTS[name])) for name in objectives[1:]] for row in rows]
    greatest = [_BEYOND * max(column) for column in zip(*costs, strict=True)]
    return [
        (row.accuracy, *(1 - cost / most for cost, most in zip(own, greatest, strict=True)))
        for row, own in zip(rows, costs, strict=True)
    ]


def _importance(trained: list[FrozenTrial]) -> dict[str, float]:
    """PED-ANOVA over the trials that ran to the end, a position's parameters added up."""
    complete = [trial for trial in trained if trial.state == TrialState.COMPLETE]
    if len(complete) < ENOUGH_FOR_IMPORTANCE or len(set(map(accuracy_of, complete))) == 1:
        return {}
    study = optuna.create_study(direction="maximize")
    for trial in complete:
        study.add_trial(
            create_trial(value=accuracy_of(trial), params=trial.params, distributions=trial.distributions)
        )
    shares: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of ties, and of choices that few trials have
        importances = optuna.importance.get_param_importances(study)
    for name, share in importances.items():
        position = name.rsplit(".", 1)[0]
        shares[position] = shares.get(position, 0.0) + share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
