"""Runs cases, and says what came out."""

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nas_recalib import __version__
from nas_recalib.device import device_name, keep_freed_memory
from nas_recalib.timing.cases import Case, Settings, set_up, vanilla_and_choice
from nas_recalib.timing.paired import Times, fastest_convolutions, synchronizer, time_side_by_side


@dataclass(frozen=True)
class Result:
    """What a case took.

    Attributes:
        case: Which.
        times: Of vanilla and of the choice.
    """

    case: Case
    times: Times

    def as_dict(self) -> dict[str, Any]:
        vanilla, choice = self.times.medians
        ratio = self.times.ratio()
        return {
            "set": self.case.place.set,
            "sizes": self.case.place.sizes,
            "place": self.case.place.name,
            "input_shape": list(self.case.input_shape),
            "choice": str(self.case.choice),
            "vanilla_ms": vanilla * 1e3,
            "choice_ms": choice * 1e3,
            "ratio": ratio.median,
            "ratio_quartiles": [ratio.lower, ratio.upper],
            "samples": len(self.times.rounds),
            "calls_per_sample": self.times.repeats,
        }


@dataclass(frozen=True)
class Mean:
    """A choice's cost over the places of a set.

    Attributes:
        set: Which set.
        sizes: Whose images.
        batch: Inputs at once.
        choice: As it is written.
        places: How many.
        ratio: Geometric mean of their ratios.
        worst: The greatest of them.
    """

    set: str
    sizes: str
    batch: int
    choice: str
    places: int
    ratio: float
    worst: float


def run(cases: Iterable[Case], settings: Settings) -> Iterator[Result]:
    """Times each case; the number of torch's threads stays as the settings say.

    Raises:
        InputError: If a case does not fit into memory; it is named.
    """
    set_up(settings)
    synchronize = synchronizer(settings.device)
    for case in cases:
        with fastest_convolutions(case):
            calls = vanilla_and_choice(case, settings)
            times = time_side_by_side(calls, seconds=settings.seconds, synchronize=synchronize)
        yield Result(case, times)


def geometric_means(results: Iterable[Result]) -> list[Mean]:
    """One for each choice, set, sizes and batch, in the order they first come."""
    groups: dict[tuple[str, str, int, str], list[float]] = {}
    for result in results:
        case = result.case
        key = (case.place.set, case.place.sizes, case.batch, str(case.choice))
        groups.setdefault(key, []).append(result.times.ratio().median)
    return [
        Mean(*key, len(ratios), statistics.geometric_mean(ratios), max(ratios))
        for key, ratios in groups.items()
    ]


def report(results: Iterable[Result], settings: Settings) -> dict[str, Any]:
    """Everything that came out and what it came out on, for JSON."""
    results = list(results)
    return {
        "versions": {"nas-recalib": __version__, "torch": str(torch.__version__)},
        **asdict(settings),
        "device": device_name(settings.device),
        "keeps_freed_memory": keep_freed_memory(),
        "cases": [result.as_dict() for result in results],
        "geometric_means": [asdict(mean) for mean in geometric_means(results)],
    }
