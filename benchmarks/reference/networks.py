"""Networks of the reference set: single operators, mixtures by stage, two operators, uniform draws."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas_recalib.architecture import Architecture
from nas_recalib.space import SearchSpace

SINGLE = {
    "vanilla": "vanilla",
    "scconv": "scconv",
    "psconv": "psconv",
    "msar": "msar(reduction=3)",  # the width that its paper's tables count
    "ab": "ab",
    "ab-plus": "ab-plus",
    "se": "se",
    "psconv+ab": "psconv+ab",
    "scconv+msar": "scconv+msar(reduction=3)",
}
SINGLE_SEEDS, MIXTURE_SEEDS = 4, 2
UNIFORM, BY_STAGE, OF_TWO = 30, 6, 6


@dataclass(frozen=True)
class Network:
    """A network of the reference set.

    Attributes:
        name: Name of the network.
        group: "single", "stage", "two" or "uniform".
        architecture: Architecture at full size.
        seeds: Number of trainings that it is to have.
    """

    name: str
    group: str
    architecture: Architecture
    seeds: int


def reference_networks(space: SearchSpace, seed: int = 0) -> list[Network]:
    """Return the networks of the set, all different.

    Args:
        space: Space by blocks from which all but the single-operator networks are drawn.
        seed: Seed of the draws.
    """
    backbone = space.backbone
    single = [
        Network(name, "single", Architecture.of(backbone, choice), SINGLE_SEEDS)
        for name, choice in SINGLE.items()
    ]
    networks = {network.architecture: network for network in single}
    generator = np.random.default_rng(seed)
    groups = {"stage": (BY_STAGE, _by_stage), "two": (OF_TWO, _of_two), "uniform": (UNIFORM, _uniform)}
    for group, (count, draw) in groups.items():
        number = 0
        while number < count:
            architecture = draw(space, generator)
            if architecture not in networks:
                number += 1
                networks[architecture] = Network(f"{group}-{number}", group, architecture, MIXTURE_SEEDS)
    return list(networks.values())


def trainings(networks: list[Network]) -> Iterator[tuple[Network, int]]:
    """Yield every network with every seed, one seed after the other, so that a part of them is of use."""
    for seed in range(max(network.seeds for network in networks)):
        yield from ((network, seed) for network in networks if seed < network.seeds)


def _uniform(space: SearchSpace, generator: np.random.Generator) -> Architecture:
    return space.from_indices(
        tuple(int(generator.integers(len(position.choices))) for position in space.positions)
    )


def _by_stage(space: SearchSpace, generator: np.random.Generator) -> Architecture:
    """Draw one choice for each stage, given that all blocks of a stage have the same choices."""
    stages: dict[str, int] = {}
    for position in space.positions:
        stages.setdefault(
            position.blocks[0].partition(".")[0], int(generator.integers(len(position.choices)))
        )
    return space.from_indices(
        tuple(stages[position.blocks[0].partition(".")[0]] for position in space.positions)
    )


def _of_two(space: SearchSpace, generator: np.random.Generator) -> Architecture:
    """Draw two choices, and for each block one of the two."""
    two = generator.choice(len(space.positions[0].choices), size=2, replace=False)
    return space.from_indices(tuple(int(two[generator.integers(2)]) for _ in space.positions))
