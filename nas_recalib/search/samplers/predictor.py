"""Strategy guided by an accuracy predictor: Bayesian linear regression with Thompson sampling."""

from collections.abc import Sequence

from nas_recalib.search.samplers.base import Indices, SearchState, Strategy, extrapolated_observations
from nas_recalib.study.regression import AdditiveModel, options_of


def predictor(start: int = 10, boldness: float = 0.5) -> Strategy:
    """Return a strategy that proposes the exact optimum of a regression on the observations.

    The model is linear in the choices and predicts the first objective. Its coefficients are drawn from the
    posterior for each proposal, so that workers that ask at the same time get different answers; since costs
    are sums over the choices, too, the best architecture within the budget is then found exactly. Costs and
    zero-cost proxies are no features: costs are in the model already, and no zero-cost proxy was found to be
    worth its time.

    Args:
        start: Number of uniform draws before the first prediction.
        boldness: Factor on the deviation from the posterior mean; 0 uses the mean.
    """

    def propose(state: SearchState) -> Indices | None:
        observations = extrapolated_observations(state)
        if len(observations) < start:
            return None
        indices = [observation.indices for observation in observations]
        return draw_best(state, indices, [observation.values[0] for observation in observations], boldness)

    return propose


def draw_best(
    state: SearchState, indices: Sequence[Indices], values: Sequence[float], boldness: float
) -> Indices | None:
    """Return the best architecture that is not excluded by coefficients drawn from their posterior.

    Args:
        state: Search state, for the space, the budget, what is excluded, and the generator of the draw.
        indices: Observed architectures.
        values: Their values, greater is better.
        boldness: Factor on the deviation from the posterior mean; 0 uses the mean.

    Returns:
        Its indices; None if all values are equal, or every architecture within the budget is excluded.
    """
    model = AdditiveModel.fit(options_of(state.space), indices, values)
    if model is None:
        return None
    return state.feasible.best(model.draw(state.random, boldness), state.excluded)
