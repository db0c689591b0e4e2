"""Bayesian linear regression of a value on the choices of an architecture, which add up."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.linalg import solve_triangular

from nas_recalib.costs.table import Integers
from nas_recalib.operators import BlockChoice
from nas_recalib.space import SearchSpace
from nas_recalib.study.trials import accuracy_of

Floats = NDArray[np.float64]
Indices = tuple[int, ...]
Options = tuple[tuple[str, tuple[BlockChoice, ...]], ...]  # name and choices of every position

_CONVOLUTION, _RECALIBRATION = ".convolution", ".recalibration"  # ends of a trial's parameters
TINY = 1e-12  # variances and deviations below this are treated as zero
_NETWORK, _STAGE, _BLOCK = 0.3, 0.2, 1.0  # shares of variance common to a network, a stage, a block
_NAMES, _OPERATOR, _PAIR = 0.5, 0.35, 0.15  # shares common to operators of one name, equal operators, pairs
_OFFSET = 1.0  # variance of the mean of all architectures
_NOISES = (0.01, 0.1, 0.5)  # noise variances to choose from by maximum likelihood
_OUTLIER = 3 * 1.4826  # in median absolute deviations: 3 standard deviations of a normal distribution


@lru_cache(maxsize=4)
def _prior_precision(options: Options) -> Floats:
    """Return the prior precision matrix of the coefficients of all choices, (coefficients, coefficients).

    Similar choices in related blocks are expected to have similar effects: the covariance of two coefficients
    is the product of a factor for their positions (same block, same stage, same network) and one for their
    choices (same pair, same operators, operators of the same name).
    """
    choices = [choice for _, allowed in options for choice in allowed]
    counts = [len(allowed) for _, allowed in options]
    of_positions = (
        _position_covariance([name for name, _ in options]).repeat(counts, axis=0).repeat(counts, axis=1)
    )
    covariance = of_positions * _choice_covariance(choices) + _OFFSET / len(counts) ** 2
    return np.asarray(np.linalg.inv(covariance), dtype=np.float64)


def _position_covariance(names: Sequence[str]) -> Floats:
    block = np.eye(len(names))
    stage = _equal([name.rpartition(".")[0] for name in names])
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


def options_of(space: SearchSpace) -> Options:
    """Return the name and the choices of every position of a space."""
    return tuple((position.name, tuple(position.choices)) for position in space.positions)


@dataclass(frozen=True, eq=False)
class AdditiveModel:
    """Posterior of a value that is a sum over the choices of an architecture.

    Attributes:
        options: Name and choices of every position.
        root: Lower Cholesky factor of the coefficients' posterior precision matrix.
        projected: The factor's product with the posterior mean, transposed.
        center: Mean of the observed values.
        scale: Standard deviation of the observed values.
    """

    options: Options
    root: Floats
    projected: Floats
    center: float
    scale: float

    @classmethod
    def fit(
        cls, options: Options, indices: Sequence[Indices], values: Sequence[float]
    ) -> "AdditiveModel | None":
        """Fit the model to observed architectures; the noise is chosen by maximum likelihood.

        Args:
            options: Name and choices of every position.
            indices: Observed architectures.
            values: Their values. Those far below the median are clipped, so that a training that collapsed
                does not dominate the regression.

        Returns:
            The model, or None if all values are equal.
        """
        clipped = _clip(np.array(values))
        targets = (clipped - clipped.mean()) / max(float(clipped.std()), TINY)
        if not targets.any():
            return None
        prior = _prior_precision(options)
        count = len(prior)
        precision = np.zeros((count + 1, count + 1))
        precision[:count, :count] = prior
        gram = _gram(_offsets(options) + np.array(indices), count, targets[:, None])
        best, likeliest = np.empty(0), -np.inf
        for noise in _NOISES:
            # the last row of the Cholesky factor solves the others for the targets
            root = np.asarray(np.linalg.cholesky(precision + gram / noise), dtype=np.float64)
            log_determinant = np.log(np.diag(root)[:count]).sum() + len(targets) * np.log(noise) / 2
            likelihood = -(root[-1, -1] ** 2) / 2 - log_determinant
            if likelihood > likeliest:
                best, likeliest = root, likelihood
        return cls(
            options, best[:count, :count], best[-1, :count], float(clipped.mean()), float(clipped.std())
        )

    def draw(self, random: np.random.Generator, boldness: float) -> list[Floats]:
        """Draw the coefficients from their posterior (Thompson sampling), for each position (choices,).

        Args:
            random: Generator of the draw.
            boldness: Factor on the deviation from the posterior mean.
        """
        return self._coefficients(boldness * random.standard_normal(len(self.root)))

    def mean(self) -> list[Floats]:
        """Return the posterior means of the coefficients, for each position (choices,)."""
        return self._coefficients(np.zeros(len(self.root)))

    def predict(self, indices: Sequence[Indices]) -> tuple[Floats, Floats]:
        """Return the posterior mean and standard deviation of each architecture's value, without noise."""
        columns = _offsets(self.options) + np.array(indices)
        design = np.zeros((len(columns), len(self.root)))
        np.put_along_axis(design, columns, 1.0, axis=1)
        mean = design @ np.concatenate(self.mean())
        deviation = np.linalg.norm(solve_triangular(self.root, design.T, lower=True), axis=0)
        return self.center + self.scale * mean, self.scale * deviation

    def _coefficients(self, deviation: Floats) -> list[Floats]:
        solved = np.linalg.solve(self.root.T, self.projected + deviation)
        return np.split(solved, _offsets(self.options)[1:])


def fit_trials(trials: Sequence[FrozenTrial]) -> tuple[AdditiveModel | None, list[Indices]]:
    """Fit the model to the accuracies of a search's complete trials, whose own parameters say the choices.

    The search space, whose costs take seconds to count, is not needed.

    Returns:
        The model, or None if all accuracies are equal or the trials are not of one space, and the trials'
        architectures as indices.
    """
    distributions = trials[0].distributions
    names = [name.removesuffix(_CONVOLUTION) for name in distributions if name.endswith(_CONVOLUTION)]
    encoded = [name + kind for name in names for kind in (_CONVOLUTION, _RECALIBRATION)]
    if not encoded or any(trial.params.keys() != {*encoded} for trial in trials):
        return None, []
    parts = [distributions[name].choices for name in encoded]  # type: ignore[attr-defined]
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    options = tuple(
        (name, tuple(BlockChoice.parse(f"{c}+{r}") for c in convolutions for r in recalibrations))
        for name, (convolutions, recalibrations) in zip(names, pairs, strict=True)
    )
    indices = [
        tuple(
            convolutions.index(trial.params[name + _CONVOLUTION]) * len(recalibrations)
            + recalibrations.index(trial.params[name + _RECALIBRATION])
            for name, (convolutions, recalibrations) in zip(names, pairs, strict=True)
        )
        for trial in trials
    ]
    return AdditiveModel.fit(options, indices, [accuracy_of(trial) for trial in trials]), indices


def _offsets(options: Options) -> Integers:
    """Return the index of each position's first coefficient."""
    return np.cumsum([0, *(len(allowed) for _, allowed in options[:-1])])


def _clip(values: Floats) -> Floats:
    median = np.median(values)
    return np.asarray(np.maximum(values, median - _OUTLIER * np.median(np.abs(values - median))))


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
