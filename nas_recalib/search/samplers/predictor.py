"""Strategy guided by an accuracy predictor: Bayesian linear regression with Thompson sampling."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nas_recalib.costs.table import Integers
from nas_recalib.operators import BlockChoice
from nas_recalib.search.samplers.base import (
    Indices,
    Observation,
    SearchState,
    Strategy,
    ended,
    mutants,
    tuples,
)
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import Position

Floats = NDArray[np.float64]
_NETWORK, _STAGE, _BLOCK = 0.3, 0.2, 1.0
_NAMES, _PART, _PAIR = 0.5, 0.35, 0.15
_OFFSET = 1.0
_MORE = 0.25
_NOISES = (0.01, 0.1, 0.5)


@dataclass(frozen=True, eq=False)
class Prior:
    """What is thought of every choice at every position before anything is trained.

    Attributes:
        first: Each position's first coefficient, (positions,).
        precision: Of the coefficients, one for every choice at every position, (coefficients, coefficients).
    """

    first: Integers
    precision: Floats


@lru_cache(maxsize=4)
def prior(space: SearchSpace) -> Prior:
    """Expects a choice to do much the same in all blocks, more so in a stage, and more so its operators' kin.

    Two coefficients' covariance is a product. One factor is from where they are: anywhere, in one stage, in
    one block. The other is from what they choose: operators of one name, the same operators, the same pair.
    """
    choices = [choice for position in space.positions for choice in position.choices]
    counts = [len(position.choices) for position in space.positions]
    where = _shares(space.positions).repeat(counts, axis=0).repeat(counts, axis=1)
    covariance = where * _kinship(choices) + _OFFSET / len(counts) ** 2
    return Prior(np.cumsum([0, *counts[:-1]]), np.asarray(np.linalg.inv(covariance), dtype=np.float64))


def _shares(positions: Sequence[Position]) -> Floats:
    block = np.eye(len(positions))
    stage = _same([position.name.rpartition(".")[0] for position in positions])
    network = np.ones_like(block)
    shares = zip((_NETWORK, _STAGE, _BLOCK), (network, stage, block), strict=True)
    return np.asarray(sum(share * one / one.sum() for share, one in shares))


def _kinship(choices: Sequence[BlockChoice]) -> Floats:
    names = _same([one.convolution.name for one in choices]) + _same(
        [one.recalibration.name for one in choices]
    )
    part = _same([one.convolution for one in choices]) + _same([one.recalibration for one in choices])
    return _NAMES * names / 2 + _PART * part / 2 + _PAIR * _same(choices)


def _same(labels: Sequence[Hashable]) -> Floats:
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    column = np.array([numbers[label] for label in labels])
    return np.asarray(column[:, None] == column, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is thought of the coefficients after training some architectures: a normal distribution.

    Attributes:
        root: Lower triangular; times its transpose it is the precision.
        whitened: The mean, multiplied by the root's transpose.
    """

    root: Floats
    whitened: Floats

    def draw(self, random: np.random.Generator, boldness: float) -> Floats:
        """Coefficients: the mean and `boldness` times a deviation from it."""
        noise = boldness * random.standard_normal(len(self.whitened))
        return np.asarray(np.linalg.solve(self.root.T, self.whitened + noise))


def fit(prior: Prior, indices: Integers, more: Floats, targets: Floats) -> Posterior:
    """The posterior after observing targets, (n,), of architectures, (n, positions), with features, (n, m).

    The features' coefficients come after those of the choices. How noisy the targets are is what makes them
    most likely, of a few levels.
    """
    choices, count = len(prior.precision), len(prior.precision) + more.shape[1]
    before = np.zeros((count + 1, count + 1))
    before[:choices, :choices] = prior.precision
    before[choices:count, choices:count] = np.eye(count - choices) / _MORE
    gram = _gram(prior.first + indices, choices, np.concatenate([more, targets[:, None]], axis=1))
    likeliest, posterior = -np.inf, None
    for noise in _NOISES:
        # the last row solves the rest for the targets
        root = np.asarray(np.linalg.cholesky(before + gram / noise), dtype=np.float64)
        spread = np.log(np.diag(root)[:count]).sum() + len(targets) * np.log(noise) / 2
        likelihood = -(root[-1, -1] ** 2) / 2 - spread
        if likelihood > likeliest:
            likeliest, posterior = likelihood, Posterior(root[:count, :count], root[-1, :count])
    assert posterior is not None
    return posterior


def _gram(columns: Integers, choices: int, others: Floats) -> Floats:
    """Products of all columns of a design, (choices + m, choices + m).

    Counting is a fraction of the work of multiplying, since in most columns there is a one in few rows.

    Args:
        columns: For each architecture those of its choices, which hold ones, (n, positions).
        choices: How many such there are.
        others: The rest, (n, m).
    """
    pairs = columns[:, :, None] * choices + columns[:, None, :]
    ones = np.bincount(pairs.ravel(), minlength=choices**2).reshape(choices, choices)
    every = columns.ravel()
    mixed = [np.bincount(every, one.repeat(columns.shape[1]), minlength=choices) for one in others.T]
    gram = np.block([[ones, np.stack(mixed, axis=1)], [np.stack(mixed), others.T @ others]])
    return np.asarray(gram, dtype=np.float64)


Features = Callable[[Indices], Sequence[float]]
_OUTLIER = 3 * 1.4826  # in median absolute deviations: 3 standard deviations of a normal distribution
_SHORTLIST = 8
_TINY = 1e-12


def predictor(
    start: int = 10,
    boldness: float = 0.5,
    leaders: int = 16,
    rounds: int = 6,
    children: int = 128,
    features: Features | None = None,
) -> Strategy:
    """Screens hundreds of candidates with a model of what has been trained, for each one that it proposes.

    The model is linear in the choices (`regression`) and of the first objective. For each proposal its
    coefficients are drawn from their posterior (Thompson), so that workers who ask at once get different
    answers. Candidates are uniform draws, and mutations of what the draw thinks best in a few rounds, which
    begin with everything known.

    Args:
        start: Uniform draws before the first prediction.
        boldness: Factor on the posterior's deviation from its mean; 0 trusts the mean.
        leaders: Architectures that are mutated in every round.
        rounds: Of mutations.
        children: Candidates in a round.
        features: More of an architecture than its choices, such as scores without training. Asked once for
            everything known, and for the few best candidates. None by default: costs are sums over the
            choices and so in the model already, and of the scores none was found to be worth its time.
    """
    told: dict[Indices, Sequence[float]] = {}

    def more(architectures: Sequence[Indices]) -> Floats:
        if features is None:
            return np.empty((len(architectures), 0))
        told.update((one, features(one)) for one in architectures if one not in told)
        return np.array([told[one] for one in architectures], dtype=np.float64)

    def propose(state: SearchState) -> Indices | None:
        observations = ended(state)
        if len(observations) < start:
            return None
        targets = _targets(observations)
        if not targets.any():  # all came to the same
            return None
        beliefs = prior(state.space)
        trained = [one.indices for one in observations]
        columns = more(trained)
        middle, spread = columns.mean(axis=0), np.maximum(columns.std(axis=0), _TINY)
        posterior = fit(beliefs, np.array(trained), (columns - middle) / spread, targets)
        drawn = posterior.draw(state.random, boldness)
        choices, weights = np.split(drawn, [len(beliefs.precision)])

        def score(indices: Integers) -> Floats:
            return np.asarray(choices[beliefs.first + indices].sum(axis=1))

        best = _highest(np.array(trained), score, leaders)
        fresh = _untried(state, state.feasible.sample_many(children, state.random), ())
        born = fresh
        for _ in range(rounds):
            best = _highest(np.concatenate([best, born]), score, leaders)
            parents = best[state.random.integers(len(best), size=children)]
            born = _untried(state, mutants(state.space, parents, state.random), tuples(fresh))
            fresh = np.concatenate([fresh, born])
        few = _highest(fresh, score, _SHORTLIST)
        if len(few) == 0:
            return None
        final = score(few) + (more(tuples(few)) - middle) / spread @ weights
        return tuples(few)[int(final.argmax())]

    return propose


def _targets(observations: Sequence[Observation]) -> Floats:
    """What is to be predicted, with mean 0 and deviation 1.

    A collapsed training is an outlier and not taken at its word.
    """
    values = np.array([one.values[0] for one in observations])
    middle = np.median(values)
    values = np.maximum(values, middle - _OUTLIER * np.median(np.abs(values - middle)))
    return np.asarray((values - values.mean()) / max(float(values.std()), _TINY))


def _highest(indices: Integers, score: Callable[[Integers], Floats], count: int) -> Integers:
    return indices[np.argsort(-score(indices), kind="stable")[:count]]


def _untried(state: SearchState, indices: Integers, others: Iterable[Indices]) -> Integers:
    """Those within the budget, once each, that have not been tried and are none of the others."""
    within = set(tuples(indices[state.feasible.allows_many(indices)]))
    return np.array(sorted(within.difference(state.tried, others)), dtype=np.int64).reshape(
        -1, indices.shape[1]
    )
