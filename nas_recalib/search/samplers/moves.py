"""Steps through a space: one convolution or one recalibration at a time."""

import numpy as np

from nas_recalib.costs.table import Integers
from nas_recalib.search.samplers.situation import Picks
from nas_recalib.space import SearchSpace


def neighbours(space: SearchSpace, picks: Picks) -> Integers:
    """Every architecture that differs in one convolution or one recalibration, (n, positions)."""
    moved = []
    for index, (position, pick) in enumerate(zip(space.positions, picks, strict=True)):
        convolutions, recalibrations = len(position.convolutions), len(position.recalibrations)
        convolution, recalibration = divmod(pick, recalibrations)
        others = [
            *(c * recalibrations + recalibration for c in range(convolutions) if c != convolution),
            *(convolution * recalibrations + r for r in range(recalibrations) if r != recalibration),
        ]
        rows = np.tile(np.array(picks, dtype=np.int64), (len(others), 1))
        rows[:, index] = others
        moved.append(rows)
    return np.concatenate(moved)


def mutants(space: SearchSpace, parents: Integers, random: np.random.Generator) -> Integers:
    """Every parent with another convolution, recalibration or both at one position, (n, positions)."""
    sizes = np.array([(len(one.convolutions), len(one.recalibrations)) for one in space.positions])
    children = parents.copy()
    rows = np.arange(len(parents))
    position = random.integers(len(sizes), size=len(parents))
    options = sizes[position]  # (n, 2)
    parts = np.stack(np.divmod(children[rows, position], options[:, 1]), axis=1)
    changed = np.array([(1, 0), (0, 1), (1, 1)])[random.integers(3, size=len(parents))]
    shifts = 1 + (random.random(parts.shape) * (options - 1)).astype(np.int64)
    parts = np.where(changed, parts + shifts, parts) % options
    children[rows, position] = parts[:, 0] * options[:, 1] + parts[:, 1]
    return children


def parts(space: SearchSpace, picks: Integers) -> Integers:
    """Convolutions, then recalibrations, by number, (n, 2 positions)."""
    options = np.array([len(position.recalibrations) for position in space.positions])
    return np.concatenate(np.divmod(picks, options), axis=1)


def tuples(picks: Integers) -> list[Picks]:
    """Architectures one by one."""
    return [tuple(one) for one in picks.tolist()]
