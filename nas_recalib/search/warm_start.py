"""Warm start: transfer of another study's trained trials into a new search."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.search.samplers.base import Indices, distributions
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

_TRANSFERRED_ATTRS = ("baseline", "seed", "seconds", "fidelity", "device", "versions", "strategy")


def find_source(name: str, location: StudyLocation, config: SearchConfig) -> optuna.Study:
    """Open the study to transfer trials from, and check that its accuracies are comparable.

    Args:
        name: Name of that study, in the folder or storage of the new search.
        location: Location of the new search's study.
        config: Configuration of the new search.

    Raises:
        InputError: If there is no such study, or it trained its trials in another way.
    """
    source = open_study(StudyLocation.of(name, location.folder.parent, location.storage))
    validate_study(source)
    stored = read_config(source)
    if stored is None or name == location.name:
        raise InputError(f"warm-start: {name!r} is not another study of nas-recalib")
    refuse_other_trainings(name, stored, config)
    return source


def warm_start(search: Search, source: optuna.Study) -> str:
    """Copy the trials of another study that this search may train, with the costs of this search.

    Returns:
        Summary in one line: the number of transferred trials, and the others by reason.
    """
    architectures = search.scheduler.architectures
    architectures.update(search.study.get_trials(deepcopy=False))
    evaluated = set(architectures.evaluated)
    count = 0
    failed = [trial.number for trial in source.get_trials(deepcopy=False) if trial.state == TrialState.FAIL]
    skipped = {"failed": failed} if failed else {}
    for trial in finished(source):
        indices = _indices(search.space, trial)
        if indices is None:
            reason = "are not in the space"
        elif not search.feasible.allows(indices):
            reason = "are over the budget"
        elif indices in evaluated:
            reason = "have been evaluated already"
        else:
            search.study.add_trial(_transferred(search, source, trial, indices))
            count += 1
            evaluated.add(indices)
            continue
        skipped.setdefault(reason, []).append(trial.number)
    summary = [f"{count} trials transferred from {source.study_name}"]
    for reason, numbers in skipped.items():
        summary.append(f"skipped {len(numbers)} that {reason} ({', '.join(map(str, numbers))})")
    return "; ".join(summary)


def _indices(space: SearchSpace, trial: FrozenTrial) -> Indices | None:
    try:
        return space.indices_of(Architecture.parse(trial.user_attrs["architecture"]))
    except (InputError, ValueError):
        return None


def _transferred(search: Search, source: optuna.Study, trial: FrozenTrial, indices: Indices) -> FrozenTrial:
    costs = cost_attributes(search.feasible.table.cost(indices))
    attrs: dict[str, Any] = {
        **{key: trial.user_attrs[key] for key in _TRANSFERRED_ATTRS if key in trial.user_attrs},
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
        user_attrs=attrs if single else {**attrs, CURVE: curve},
        intermediate_values=dict(enumerate(curve, start=1)) if single else {},
    )
