"""Summary of a search: its trials ranked, Pareto front, hypervolume, failures and parameter importance."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.plugins import load_study_plugins
from nas_recalib.study.config import SearchConfig
from nas_recalib.study.location import read_config
from nas_recalib.study.regression import fit_trials
from nas_recalib.study.statistics import (
    Confirmation,
    Point,
    distinguishable_pairs,
    hypervolumes,
    pareto_front,
    read_confirmations,
)
from nas_recalib.study.status import count_failures
from nas_recalib.study.trials import (
    ACCURACY,
    CACHED_FROM,
    MEASURED,
    accuracy_of,
    curve_of,
    finished,
    finished_of,
    trained_here_of,
    validate_study,
)

LEADERS = 4
ENOUGH_FOR_IMPORTANCE = 10  # complete trials
ENOUGH_FOR_REGRESSION = 10  # complete trials
_COST_FIELDS = {"macs": "macs", "params": "params", "latency": "latency_ms", "memory": "memory"}
_REFERENCE_COST = 1.1  # times the greatest cost, so that the most expensive trial has a hypervolume too
_JSON_KEYS = {"standard_error": "error", "over_limit": "over", "cached": "replayed"}  # in as_dict


@dataclass(frozen=True)
class TrialRow:
    """One trained trial.

    Attributes:
        number: Number of the trial.
        accuracy: Accuracy on the validation images at the last epoch trained, 0 to 1.
        standard_error: Standard error of the accuracy due to the number of validation images alone.
        macs: Multiply-accumulates of the full-size network.
        params: Parameters of the full-size network.
        latency_ms: Latency of the full-size network as predicted by the study's table, if it has one.
        measured_ms: Measured latency of the full-size network, if it was measured.
        memory: Peak bytes of the full-size network's activations, if the budget limits them.
        over_limit: Whether the measured latency exceeds the budget.
        architecture: Architecture as text.
        baseline: Name of the single operator that a baseline takes in every block; None for others.
        pruned: Whether the training was pruned.
        epochs: Number of epochs trained.
        seconds: Duration of the training.
        confirmation: Results of training it again with new seeds, if it was.
        expected: Accuracy that a regression on all complete trials expects of it, which evens out luck; None
            for pruned trials, or where there are too few.
    """

    number: int
    accuracy: float
    standard_error: float
    macs: int
    params: int
    latency_ms: float | None
    measured_ms: float | None
    memory: int | None
    over_limit: bool
    architecture: str
    baseline: str | None
    pruned: bool
    epochs: int
    seconds: float
    confirmation: Confirmation | None
    expected: float | None = None

    @property
    def diverged(self) -> bool:
        """Whether it diverged with a new seed."""
        return self.confirmation is not None and bool(self.confirmation.diverged)

    @property
    def confirmed(self) -> float | None:
        """Mean accuracy over new seeds; None if it was not trained with any, or diverged with one."""
        return None if self.confirmation is None or self.diverged else self.confirmation.mean

    def operators(self) -> str:
        """Return how many blocks take each operator: `9 scconv, 7 psconv; 10 none, 6 ab` or `all scconv`."""
        if self.baseline:
            return f"all {self.baseline}"
        return Architecture.parse(self.architecture).operators()


@dataclass(frozen=True)
class Summary:
    """Results of a search.

    Attributes:
        study: Name of the study.
        config: Configuration of the search.
        rows: Trained trials from best to worst: confirmed ones by their mean over new seeds, then by their
            accuracy in the search those without confirmation, those that diverged with a new seed, those
            whose measured latency exceeds the budget, and pruned ones.
        tied: Numbers of the confirmed trials that are statistically indistinguishable from the best, in the
            order of `rows`.
        front: Numbers of the trials on the Pareto front, from the lowest MACs to the highest.
        hypervolumes: Pairs of the number of a complete trial and the hypervolume of all up to it, as a
            fraction of the reference box, which ends at 1.1 times the greatest cost of any trial.
        failures: Number of failed trials by kind of failure.
        cached: Number of proposals that were answered from cache.
        importance: Share of the variance of accuracy that each position's choice explains (PED-ANOVA); empty
            if there are too few trials, or all have the same accuracy.
        transferred: Number of the rows whose training was started in another study.
    """

    study: str
    config: SearchConfig
    rows: tuple[TrialRow, ...]
    tied: tuple[int, ...]
    front: tuple[int, ...]
    hypervolumes: tuple[tuple[int, float], ...]
    failures: dict[str, int]
    cached: int
    importance: dict[str, float]
    transferred: int = 0

    @property
    def counts(self) -> str:
        """Number of trained trials, as `--trials` counts them, and of transferred ones, in words."""
        others = f" and {self.transferred} transferred" if self.transferred else ""
        return f"{len(self.rows) - self.transferred} trained trials{others}"

    @property
    def best(self) -> TrialRow:
        """Best complete trial; a confirmed one if there is any.

        Raises:
            InputError: If there is no complete trial.
        """
        if not self.rows or self.rows[0].pruned:
            raise InputError(f"study: {self.study!r} has no finished trial yet")
        return self.rows[0]

    def as_dict(self) -> dict[str, Any]:
        return asdict(
            self, dict_factory=lambda items: {_JSON_KEYS.get(key, key): value for key, value in items}
        )


def summarise(study: optuna.Study, plugins: Sequence[str] = ()) -> Summary:
    """Compute the summary of a search from its study.

    Args:
        study: Study of the search.
        plugins: Modules of user operators that may be loaded; those that the study names are not by itself.

    Raises:
        InputError: If the study was not made by this package, or its operators are not or cannot be loaded.
    """
    validate_study(study)
    config = read_config(study)
    if config is None:
        raise InputError(f"study: {study.study_name!r} was not made by nas-recalib")
    load_study_plugins(study.study_name, config.plugins, plugins)
    trials = study.get_trials(deepcopy=False)
    trained = finished_of(trials)
    rows = trial_rows(study, config)
    candidates = sorted(
        (row for row in rows if not row.pruned and not row.over_limit), key=lambda r: r.number
    )
    points = _points(candidates, pareto_objectives(config))
    front = sorted((candidates[index] for index in pareto_front(points)), key=lambda row: row.macs)
    return Summary(
        study=study.study_name,
        config=config,
        rows=tuple(rows),
        tied=tuple(_tied(rows, config)),
        front=tuple(row.number for row in front),
        hypervolumes=tuple(zip((row.number for row in candidates), hypervolumes(points), strict=True)),
        failures=count_failures(trials),
        cached=sum(CACHED_FROM in trial.user_attrs for trial in trials),
        importance=_importance(trained),
        transferred=len(trained) - len(trained_here_of(trials)),
    )


def pareto_objectives(config: SearchConfig) -> list[str]:
    """Return the objectives of a search; accuracy and MACs if it has accuracy alone."""
    return config.objectives if len(config.objectives) > 1 else [ACCURACY, "macs"]


def trial_rows(study: optuna.Study, config: SearchConfig) -> list[TrialRow]:
    """Return the trained trials of a study in the order of `Summary.rows`.

    Raises:
        InputError: If a trial's architecture cannot be built.
    """
    measured = study.user_attrs.get(MEASURED, {})
    confirmations = read_confirmations(study, config.fidelity.validation)
    trials = finished(study)
    expected = _expected_accuracies(trials)
    rows = [
        _row(trial, config, measured.get(str(trial.number)), confirmations.get(trial.number), expected)
        for trial in trials
    ]
    for row in rows:
        try:
            Architecture.parse(row.architecture)
        except ValueError as error:
            raise InputError(f"study: trial {row.number}: {error}") from error
    return sorted(rows, key=_sort_key)


def leaders(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """Return the best trials of the search that were not pruned, over the limit or diverged.

    They are those with the highest expected accuracy, or, without one, the highest accuracy.
    """
    eligible = [row for row in rows if not (row.pruned or row.over_limit or row.diverged)]

    def key(row: TrialRow) -> tuple[float, float, int]:
        return -(row.accuracy if row.expected is None else row.expected), -row.accuracy, row.number

    return sorted(eligible, key=key)[:LEADERS]


def _sort_key(row: TrialRow) -> tuple[bool, bool, bool, bool, float]:
    value = row.accuracy if row.confirmed is None else row.confirmed
    return row.pruned, row.over_limit, row.diverged, row.confirmed is None, -value


def _tied(rows: Sequence[TrialRow], config: SearchConfig) -> list[int]:
    """Return the numbers of the confirmed trials that are indistinguishable from the best one."""
    competing = {
        row.number: row.confirmation.accuracies
        for row in rows
        if row.confirmation and row.confirmed is not None and not row.over_limit
    }
    if not competing:
        return []
    best, *others = competing
    distinguishable = distinguishable_pairs(competing, 1 / config.fidelity.validation)
    return [number for number in others if frozenset({best, number}) not in distinguishable]


def _expected_accuracies(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Return the expected accuracies of the complete trials by number; empty where there are too few."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < ENOUGH_FOR_REGRESSION:
        return {}
    model, indices = fit_trials(complete)
    if model is None:
        return {}
    means, _ = model.predict(indices)
    return {trial.number: float(mean) for trial, mean in zip(complete, means, strict=True)}


def _row(
    trial: FrozenTrial,
    config: SearchConfig,
    measured_ms: float | None,
    confirmation: Confirmation | None,
    expected: Mapping[int, float],
) -> TrialRow:
    accuracy = accuracy_of(trial)
    attributes = trial.user_attrs
    images = config.fidelity.validation
    limit_ms = math.inf if config.budget.latency is None else config.budget.latency / 1e6
    return TrialRow(
        number=trial.number,
        accuracy=accuracy,
        standard_error=math.sqrt(accuracy * (1 - accuracy) / images),
        macs=attributes["macs"],
        params=attributes["params"],
        latency_ms=attributes.get("predicted_latency_ms"),
        measured_ms=measured_ms,
        memory=attributes.get("memory"),
        over_limit=measured_ms is not None and measured_ms > limit_ms,
        architecture=attributes["architecture"],
        baseline=attributes.get("baseline"),
        pruned=trial.state == TrialState.PRUNED,
        epochs=len(curve_of(trial)),
        seconds=attributes["seconds"],
        confirmation=confirmation,
        expected=expected.get(trial.number),
    )


def _points(rows: Sequence[TrialRow], objectives: Sequence[str]) -> list[Point]:
    """Return accuracies and, for each cost, how far it is below the reference cost, as a fraction of that."""
    costs = [[float(getattr(row, _COST_FIELDS[name])) for name in objectives[1:]] for row in rows]
    references = [_REFERENCE_COST * max(column) for column in zip(*costs, strict=True)]
    return [
        (row.accuracy, *(1 - cost / reference for cost, reference in zip(own, references, strict=True)))
        for row, own in zip(rows, costs, strict=True)
    ]


def _importance(trained: list[FrozenTrial]) -> dict[str, float]:
    """Return the importance of each position by PED-ANOVA over the complete trials, parameters added up."""
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
        warnings.simplefilter("ignore", UserWarning)  # about ties, and choices that few trials have
        importances = optuna.importance.get_param_importances(study)
    for name, share in importances.items():
        position = name.rsplit(".", 1)[0]
        shares[position] = shares.get(position, 0.0) + share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
