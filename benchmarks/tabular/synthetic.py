"""Synthetic benchmark of 16 blocks: additive effects and interactions of neighbouring blocks."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from tabular.table import Indices, Run

from nas_recalib.space import SearchSpace

SPACE = "resnet50"
_MEAN, _DEVIATION = 0.6, 0.02  # mean and deviation of qualities over the space
_COMMON = 0.15  # deviation of a choice's effect that all blocks share; that of one block is 1
_NOISE = 0.25  # deviation of a training's noise, in deviations of quality
_SECONDS = 10.0  # mean seconds of an epoch
_SAMPLES = 20_000  # architectures to standardise qualities with, and to find the best hundredth

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Synthetic:
    """Random function of the choices at every block, with learning curves that approach it.

    A choice has an effect of its convolution, of its recalibration and of the two together, partly common to
    all blocks; neighbouring blocks interact. The best architecture of such a chain is found exactly.

    Attributes:
        space: Search space.
        seed: Seed of the function.
        epochs: Number of epochs of a complete training.
    """

    space: SearchSpace
    seed: int
    epochs: int = 6

    @property
    def seconds(self) -> float:
        """Mean seconds of a complete training."""
        return _SECONDS * self.epochs

    @cached_property
    def best(self) -> float:
        """Greatest quality of an architecture, by dynamic programming along the chain."""
        own, pairs = self._effects
        reached = own[0]
        for here, pair in zip(own[1:], pairs, strict=True):
            reached = (reached[:, None] + pair).max(axis=0) + here
        return self._scaled(float(reached.max()))

    @cached_property
    def top(self) -> float:
        """Least quality of the best hundredth of sampled architectures."""
        return self._scaled(float(np.quantile(self._sampled, 0.99)))

    def quality(self, indices: Indices) -> float:
        """Return the final accuracy of a training without noise."""
        return self._scaled(float(self._raw(np.array([indices]))[0]))

    def observe(self, indices: Indices, seed: int) -> Run:
        """Return a training that approaches the quality, with noise that depends on the seed."""
        random = np.random.default_rng((self.seed, seed, *indices))
        remaining = np.arange(self.epochs)[::-1] / self.epochs
        speed, luck = random.normal(0.3, 0.02), random.normal(scale=_NOISE * _DEVIATION)
        early = random.normal(scale=_DEVIATION * remaining)
        accuracies = self.quality(indices) + luck - speed * remaining**2 + early
        share = self.space.table.cost(indices)["macs"] / self._macs
        seconds = _SECONDS * share * random.uniform(0.95, 1.05, self.epochs)
        curves = (accuracies.clip(0, 1), 1 - accuracies, seconds)
        return Run(seed, *(tuple(curve.tolist()) for curve in curves))

    @cached_property
    def _effects(self) -> tuple[list[Numbers], list[Numbers]]:
        """Effects of the choices at each position, (choices,), and of two neighbours, (choices, choices)."""
        random = np.random.default_rng(self.seed)
        first = self.space.positions[0]
        shape = (len(first.convolutions), len(first.recalibrations))
        convolution, recalibration = random.normal(size=(shape[0], 1)), random.normal(size=(1, shape[1]))
        common = _COMMON * (convolution + recalibration + 0.5 * random.normal(size=shape))
        own = [(common + random.normal(size=shape)).ravel() for _ in self.space.positions]
        size = shape[0] * shape[1]
        return own, [0.5 * random.normal(size=(size, size)) for _ in own[1:]]

    def _raw(self, indices: NDArray[np.int64]) -> Numbers:
        own, pairs = self._effects
        alone = sum(effect[column] for effect, column in zip(own, indices.T, strict=True))
        joint = (pair[a, b] for pair, a, b in zip(pairs, indices.T[:-1], indices.T[1:], strict=True))
        return np.asarray(alone + sum(joint))

    @cached_property
    def _sample(self) -> NDArray[np.int64]:
        random = np.random.default_rng((self.seed, _SAMPLES))
        sizes = [len(position.choices) for position in self.space.positions]
        return random.integers(sizes, size=(_SAMPLES, len(sizes)))

    @cached_property
    def _sampled(self) -> Numbers:
        return self._raw(self._sample)

    @cached_property
    def _macs(self) -> float:
        return float(self.space.table.costs(self._sample)[:, 0].mean())

    def _scaled(self, raw: float) -> float:
        return _MEAN + _DEVIATION * (raw - float(self._sampled.mean())) / float(self._sampled.std())


@lru_cache(maxsize=1)
def _space() -> SearchSpace:
    return SearchSpace.load(SPACE)


def synthetic(seed: int) -> Synthetic:
    """Return the synthetic benchmark of a seed."""
    return Synthetic(_space(), seed)
