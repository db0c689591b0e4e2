"""Fake timer with known times of every block, known drift and known noise."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nas_recalib.architecture import Architecture
from nas_recalib.latency.measure import Sample
from nas_recalib.space import SearchSpace

SPACE = """
name: tiny
backbone: resnet20
input_size: 16
granularity: block
convolution: [vanilla, scconv, psconv]
recalibration: [none, ab]
"""
CONVOLUTIONS = {"vanilla": 1.0, "scconv": 2.0, "psconv": 3.5}
RECALIBRATIONS = {"none": 0.0, "ab": 0.75}


def space(granularity: str = "block", **replaced: str) -> SearchSpace:
    """The tiny space; `replaced` are lines of its file, such as recalibration="[none]"."""
    text = SPACE.replace("granularity: block", f"granularity: {granularity}")
    for key, value in replaced.items():
        text = "\n".join(
            f"{key}: {value}" if line.startswith(f"{key}:") else line for line in text.split("\n")
        )
    return SearchSpace.parse(text, "tiny")


@dataclass
class FakeMachine:
    """Timer that adds up known times.

    Attributes:
        between: Seconds of everything outside the blocks.
        slope: Seconds of a whole network per second of its blocks.
        drift: Factors of all times, one for each call in turn.
        noise: Relative standard deviation of every time.
        outliers: Numbers of the calls that return three times the network's seconds.
        asked: Architectures that have been timed.
    """

    between: float = 0.002
    slope: float = 1.0
    drift: Sequence[float] = (1.0,)
    noise: float = 0.0
    outliers: Sequence[int] = ()
    asked: list[Architecture] = field(default_factory=list)

    def blocks(self, architecture: Architecture) -> list[float]:
        """Return the seconds of each block."""
        stages = [int(name[5]) + 0.5 * (name in ("layer2.0", "layer3.0")) for name in architecture.blocks]
        return [
            1e-3 * stage * (CONVOLUTIONS[choice.convolution.name] + RECALIBRATIONS[choice.recalibration.name])
            for stage, choice in zip(stages, architecture.choices, strict=True)
        ]

    def seconds(self, architecture: Architecture) -> float:
        """Return the seconds of the whole network without drift and noise."""
        return self.between + self.slope * sum(self.blocks(architecture))

    def __call__(self, architecture: Architecture) -> Sample:
        number = len(self.asked)
        self.asked.append(architecture)
        random = np.random.default_rng(number)

        def disturbed(seconds: float) -> float:
            return (
                seconds * self.drift[number % len(self.drift)] * (1 + self.noise * random.standard_normal())
            )

        reference = Architecture.of(
            architecture.backbone,
            "vanilla",
            input_size=architecture.input_size,
            num_classes=architecture.num_classes,
        )
        factor = 3 if number in self.outliers else 1
        return Sample(
            reference=tuple(disturbed(self.seconds(reference)) for _ in range(5)),
            network=tuple(disturbed(factor * self.seconds(architecture)) for _ in range(5)),
            blocks=tuple(disturbed(seconds) for seconds in self.blocks(architecture)),
        )
