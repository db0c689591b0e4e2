"""Best architecture of a study by its regression on all trials, even if it was never trained."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.pricing import Latencies, cost_table, feasible
from nas_recalib.space import SearchSpace
from nas_recalib.study.regression import fit_trials
from nas_recalib.study.summary import ENOUGH_FOR_REGRESSION, Summary
from nas_recalib.study.trials import finished

_NORMAL = 1.96  # standard deviations of a 95% interval


@dataclass(frozen=True)
class PredictedBest:
    """Architecture within the budget with the highest expected accuracy.

    Attributes:
        architecture: Architecture at full size.
        accuracy: Expected accuracy of one training, 0 to 1.
        interval: Ends of the 95% interval of the expected accuracy, if effects of choices add up.
        trial: Number of the trial that trained it; None if none did.
        costs: Costs by name.
    """

    architecture: Architecture
    accuracy: float
    interval: tuple[float, float]
    trial: int | None
    costs: dict[str, int]

    def expectation(self) -> dict[str, Any]:
        """Return the expected accuracy with its interval, and the trial, as files and JSON have them."""
        return {
            "accuracy": round(self.accuracy, 6),
            "interval": [round(end, 6) for end in self.interval],
            "trial": self.trial,
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "architecture": str(self.architecture),
            "blocks": {name: str(choice) for name, choice in self.architecture.blocks.items()},
            **self.expectation(),
            **self.costs,
        }


def predict_best(study: optuna.Study, summary: Summary) -> PredictedBest:
    """Return the exact optimum within the budget of an additive regression on a study's complete trials.

    Args:
        study: Study of a search.
        summary: Summary of the study.

    Raises:
        InputError: If the study has too few complete trials, or all have the same accuracy.
    """
    config = summary.config
    complete = [trial for trial in finished(study) if trial.state == TrialState.COMPLETE]
    if len(complete) < ENOUGH_FOR_REGRESSION:
        raise InputError(
            f"predicted: needs {ENOUGH_FOR_REGRESSION} trials trained to the end, and study "
            f"{summary.study!r} has {len(complete)}"
        )
    model, indices = fit_trials(complete)
    if model is None:
        raise InputError(f"predicted: all trials of study {summary.study!r} have the same accuracy")
    space = SearchSpace.parse(config.space, summary.study)
    latencies = Latencies.from_dict(config.latencies, space) if config.latencies else None
    table = cost_table(space, config.budget, latencies, config.batch, config.threads, config.objectives)
    best = feasible(space, table, config.budget).best(model.mean())
    assert best is not None  # the study has trials within the budget
    (mean,), (deviation,) = model.predict([best])
    trained = dict(zip(indices, (trial.number for trial in complete), strict=True))
    ends = (max(0.0, mean - _NORMAL * deviation), min(1.0, mean + _NORMAL * deviation))
    return PredictedBest(
        space.from_indices(best),
        float(mean),
        (float(ends[0]), float(ends[1])),
        trained.get(best),
        {name: int(cost) for name, cost in table.cost(best).items()},
    )
