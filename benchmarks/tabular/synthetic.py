"""A made-up benchmark of 16 blocks, of which the truth is known: additive but for pairs of neighbours."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from tabular.table import Indices, Run

from nas_recalib.space import SearchSpace

SPACE = "resnet50"
_MEAN, _DEVIATION = 0.6, 0.02  # of qualities over the space
_EVERYWHERE = 0.15  # of a choice's effect, to what it is in one block: networks of one operator are ordinary
_NOISE = 0.25  # of a training, in deviations of quality
_SECONDS = 10.0  # of an epoch, in the mean
_DRAWN = 20_000  # to standardise qualities, and to say which are the best hundredth

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Synthetic:
    """A function of the picks at every block, with learning curves that approach it.

    A choice's effect is that of its convolution, of its recalibration and of the two together, which differ
    from block to block about what they are everywhere; neighbouring blocks interact. The best architecture
    of such a chain is found exactly.

    Attributes:
        space: Whose architectures.
        seed: That the function follows from.
        epochs: Of a whole training.
    """

    space: SearchSpace
    seed: int
    epochs: int = 6

    @property
    def seconds(self) -> float:
        """Of a whole training, in the mean."""
        return _SECONDS * self.epochs

    @cached_property
    def best(self) -> float:
        """The greatest quality, by dynamic programming along the chain."""
        own, pairs = self._effects
        reached = own[0]
        for here, pair in zip(own[1:], pairs, strict=True):
            reached = (reached[:, None] + pair).max(axis=0) + here
        return self._scaled(float(reached.max()))

    @cached_property
    def top(self) -> float:
        """The least quality of the best hundredth, of many drawn."""
        return self._scaled(float(np.quantile(self._drawn, 0.99)))

    def quality(self, indices: Indices) -> float:
        """What trainings without noise end at."""
        return self._scaled(float(self._raw(np.array([indices]))[0]))

    def observe(self, indices: Indices, seed: int) -> Run:
        """A training that approaches the quality; what is left of noise in the end is a seed's."""
        random = np.random.default_rng((self.seed, seed, *indices))
        left = np.arange(self.epochs)[::-1] / self.epochs
        speed, luck = random.normal(0.3, 0.02), random.normal(scale=_NOISE * _DEVIATION)
        early = random.normal(scale=_DEVIATION * left)
        accuracies = self.quality(indices) + luck - speed * left**2 + early
        share = self.space.table.cost(indices)["macs"] / self._macs
        seconds = _SECONDS * share * random.uniform(0.95, 1.05, self.epochs)
        told = (accuracies.clip(0, 1), 1 - accuracies, seconds)
        return Run(seed, *(tuple(some.tolist()) for some in told))

    @cached_property
    def _effects(self) -> tuple[list[Numbers], list[Numbers]]:
        """Of every position's choices, (choices,), and of every two neighbours', (choices, choices)."""
        random = np.random.default_rng(self.seed)
        first = self.space.positions[0]
        shape = (len(first.convolutions), len(first.recalibrations))
        convolution, recalibration = random.normal(size=(shape[0], 1)), random.normal(size=(1, shape[1]))
        everywhere = _EVERYWHERE * (convolution + recalibration + 0.5 * random.normal(size=shape))
        own = [(everywhere + random.normal(size=shape)).ravel() for _ in self.space.positions]
        size = shape[0] * shape[1]
        return own, [0.5 * random.normal(size=(size, size)) for _ in own[1:]]

    def _raw(self, indices: NDArray[np.int64]) -> Numbers:
        own, pairs = self._effects
        alone = sum(effect[column] for effect, column in zip(own, indices.T, strict=True))
        joint = (pair[a, b] for pair, a, b in zip(pairs, indices.T[:-1], indices.T[1:], strict=True))
        return np.asarray(alone + sum(joint))

    @cached_property
    def _sample(self) -> NDArray[np.int64]:
        random = np.random.default_rng((self.seed, _DRAWN))
        sizes = [len(position.choices) for position in self.space.positions]
        return random.integers(sizes, size=(_DRAWN, len(sizes)))

    @cached_property
    def _drawn(self) -> Numbers:
        return self._raw(self._sample)

    @cached_property
    def _macs(self) -> float:
        return float(self.space.table.costs(self._sample)[:, 0].mean())

    def _scaled(self, raw: float) -> float:
        return _MEAN + _DEVIATION * (raw - float(self._drawn.mean())) / float(self._drawn.std())


@lru_cache(maxsize=1)
def _space() -> SearchSpace:
    return SearchSpace.load(SPACE)


def synthetic(seed: int) -> Synthetic:
    """The function of a seed."""
    return Synthetic(_space(), seed)
