"""Strategy guided by an accuracy predictor: Bayesian linear regression with Thompson sampling."""

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.table import Integers
from nas_recalib.operators import BlockChoice
from nas_recalib.search.samplers.base import (
    TINY,
    Indices,
    SearchState,
    Strategy,
    extrapolated_observations,
)
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import Position

Floats = NDArray[np.float64]

_NETWORK, _STAGE, _BLOCK = 0.3, 0.2, 1.0  # shares of variance common to a network, a stage, a block
_NAMES, _OPERATOR, _PAIR = 0.5, 0.35, 0.15  # shares common to operators of one name, equal operators, pairs
_OFFSET = 1.0  # variance of the mean of all architectures
_NOISES = (0.01, 0.1, 0.5)  # noise variances to choose from by maximum likelihood
_OUTLIER = 3 * 1.4826  # in median absolute deviations: 3 standard deviations of a normal distribution


@lru_cache(maxsize=4)
def prior_precision(space: SearchSpace) -> Floats:
    """Return the prior precision matrix of the coefficients of all choices, (coefficients, coefficients).

    Similar choices in related blocks are expected to have similar effects: the covariance of two coefficients
    is the product of a factor for their positions (same block, same stage, same network) and one for their
    choices (same pair, same operators, operators of the same name).
    """
    choices = [choice for position in space.positions for choice in position.choices]
    counts = [len(position.choices) for position in space.positions]
    of_positions = _position_covariance(space.positions).repeat(counts, axis=0).repeat(counts, axis=1)
    covariance = of_positions * _choice_covariance(choices) + _OFFSET / len(counts) ** 2
    return np.asarray(np.linalg.inv(covariance), dtype=np.float64)


def _position_covariance(positions: Sequence[Position]) -> Floats:
    block = np.eye(len(positions))
    stage = _equal([position.name.rpartition(".")[0] for position in positions])
    network = np.ones_like(block)
    shares = zip((_NETWORK, _STAGE, _BLOCK), (network, stage, block), strict=True)
    return np.asarray(sum(share * same / same.sum() for share, same in shares))


def _choice_covariance(choices: Sequence[BlockChoice]) -> Floats:
    names = _equal([c.convolution.name for c in choices]) + _equal([c.recalibration.name for c in choices])
    operators = _equal([c.convolution for c in choices]) + _equal([c.recalibration for c in choices])
    return _NAMES * names / 2 + _OPERATOR * operators / 2 + _PAIR * _equal(choices)


def _equal(labels: Sequence[Hashable]) -> Floats:
    """Return a matrix with 1 where two labels are equal and 0 elsewhere, (labels, labels)."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    column = np.array([numbers[label] for label in labels])
    return np.asarray(column[:, None] == column, dtype=np.float64)


def sample_posterior(
    prior: Floats, columns: Integers, targets: Floats, random: np.random.Generator, boldness: float
) -> Floats:
    """Draw the coefficients of all choices from their posterior (Thompson sampling).

    Args:
        prior: Prior precision matrix of the coefficients.
        columns: Indices of the coefficients of each observed architecture, (n, positions).
        targets: Observed values, (n,).
        random: Generator of the draw.
        boldness: Factor on the deviation from the posterior mean; 0 returns the mean.
    """
    count = len(prior)
    precision = np.zeros((count + 1, count + 1))
    precision[:count, :count] = prior
    gram = _gram(columns, count, targets[:, None])
    best, likeliest = np.empty(0), -np.inf
    for noise in _NOISES:
        # the last row of the Cholesky factor solves the others for the targets
        root = np.asarray(np.linalg.cholesky(precision + gram / noise), dtype=np.float64)
        log_determinant = np.log(np.diag(root)[:count]).sum() + len(targets) * np.log(noise) / 2
        likelihood = -(root[-1, -1] ** 2) / 2 - log_determinant
        if likelihood > likeliest:
            best, likeliest = root, likelihood
    deviation = boldness * random.standard_normal(count)
    return np.asarray(np.linalg.solve(best[:count, :count].T, best[-1, :count] + deviation))


def _gram(columns: Integers, choices: int, others: Floats) -> Floats:
    """Return the Gram matrix of a design matrix, (choices + m, choices + m).

    Counting takes a fraction of the time of multiplying, since most columns hold a one in few rows.

    Args:
        columns: Columns that hold a one, those of an architecture's choices in each row, (n, positions).
        choices: Number of columns for choices.
        others: Further columns of the design matrix, (n, m).
    """
    pairs = columns[:, :, None] * choices + columns[:, None, :]
    ones = np.bincount(pairs.ravel(), minlength=choices**2).reshape(choices, choices)
    flat = columns.ravel()
    mixed = [np.bincount(flat, other.repeat(columns.shape[1]), minlength=choices) for other in others.T]
    gram = np.block([[ones, np.stack(mixed, axis=1)], [np.stack(mixed), others.T @ others]])
    return np.asarray(gram, dtype=np.float64)


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
    targets = _targets(np.array(values))
    if not targets.any():
        return None
    first = np.cumsum([0, *(len(position.choices) for position in state.space.positions[:-1])])
    prior = prior_precision(state.space)
    coefficients = sample_posterior(prior, first + np.array(indices), targets, state.random, boldness)
    return state.feasible.best(np.split(coefficients, first[1:]), state.excluded)


def _targets(values: Floats) -> Floats:
    """Return the values to predict, clipped from below and scaled to mean 0 and standard deviation 1.

    Clipping keeps a training that collapsed from dominating the regression.
    """
    median = np.median(values)
    values = np.maximum(values, median - _OUTLIER * np.median(np.abs(values - median)))
    return np.asarray((values - values.mean()) / max(float(values.std()), TINY))
