"""What another study has trained, taken over."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.search.samplers import Indices
from nas_recalib.search.samplers.base import distributions
from nas_recalib.search.search import Search
from nas_recalib.space import SearchSpace
from nas_recalib.study.config import SearchConfig, refuse_other_trainings
from nas_recalib.study.location import StudyLocation, open_study, read_config
from nas_recalib.study.trials import (
    COST_ATTRIBUTES,
    CURVE,
    WARM_STARTED_FROM,
    accuracy_of,
    cost_attributes,
    curve_of,
    finished,
    validate_study,
)

_KEPT = ("baseline", "seed", "seconds", "fidelity", "device", "versions", "strategy")


@dataclass(frozen=True)
class Taken:
    """What came of a warm start.

    Attributes:
        study: Whose trials.
        numbers: Of those that were taken over.
        left: Of those that were not, by the reason.
    """

    study: str
    numbers: tuple[int, ...]
    left: dict[str, list[int]]

    def __str__(self) -> str:
        told = [f"{len(self.numbers)} trials of {self.study} taken over"]
        for reason, numbers in self.left.items():
            told.append(f"not {len(numbers)} that {reason} ({', '.join(map(str, numbers))})")
        return "; ".join(told)


def find_source(name: str, location: StudyLocation, config: SearchConfig) -> optuna.Study:
    """A study whose accuracies can stand beside those of another.

    Args:
        name: Of the study, which lies where the other does.
        location: Of the other.
        config: Of the other.

    Raises:
        InputError: If there is none, or it trained in another way.
    """
    source = open_study(StudyLocation.of(name, location.folder.parent, location.storage))
    validate_study(source)
    stored = read_config(source)
    if stored is None or name == location.name:
        raise InputError(f"warm-start: {name!r} is not another study of nas-recalib")
    refuse_other_trainings(name, stored, config)
    return source


def warm_start(search: Search, source: optuna.Study) -> Taken:
    """Adds to a search's study what another has trained and this one may train, with this one's costs."""
    tried = search.scheduler.tried
    tried.look(search.study.get_trials(deepcopy=False))
    known = set(tried.evaluated)
    numbers: list[int] = []
    left: dict[str, list[int]] = {}
    for trial in source.get_trials(deepcopy=False):
        if trial.state == TrialState.FAIL:
            left.setdefault("failed", []).append(trial.number)
    for trial in finished(source):
        indices = _indices(search.space, trial)
        if indices is None:
            reason = "the space does not have"
        elif not search.feasible.allows(indices):
            reason = "are over the budget"
        elif indices in known:
            reason = "are known already"
        else:
            search.study.add_trial(_taken(search, source, trial, indices))
            numbers.append(trial.number)
            known.add(indices)
            continue
        left.setdefault(reason, []).append(trial.number)
    return Taken(source.study_name, tuple(numbers), left)


def _indices(space: SearchSpace, trial: FrozenTrial) -> Indices | None:
    try:
        return space.indices_of(Architecture.parse(trial.user_attrs["architecture"]))
    except (InputError, ValueError):
        return None


def _taken(search: Search, source: optuna.Study, trial: FrozenTrial, indices: Indices) -> FrozenTrial:
    costs = cost_attributes(search.feasible.table.cost(indices))
    kept = {key: trial.user_attrs[key] for key in _KEPT if key in trial.user_attrs}
    attributes: dict[str, Any] = {
        **kept,
        "architecture": str(search.space.from_indices(indices)),
        **costs,
        WARM_STARTED_FROM: f"{source.study_name}/{trial.number}",
    }
    curve = curve_of(trial)
    single = len(search.objectives) == 1
    return create_trial(
        state=trial.state,
        values=[accuracy_of(trial), *(costs[COST_ATTRIBUTES[name]] for name in search.objectives[1:])],
        params=search.space.indices_to_params(indices),
        distributions=distributions(search.space),
        user_attrs=attributes if single else {**attributes, CURVE: curve},
        intermediate_values=dict(enumerate(curve, start=1)) if single else {},
    )
