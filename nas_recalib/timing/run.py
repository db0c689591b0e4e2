"""Runs of the operator benchmark: time every case, average over places, report as JSON."""

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nas_recalib import __version__
from nas_recalib.device import device_name, keep_freed_memory
from nas_recalib.timing.cases import Case, Settings, configure_torch, make_calls
from nas_recalib.timing.paired import Times, cudnn_benchmark, synchronizer, time_alternately


@dataclass(frozen=True)
class Result:
    """Result of one case.

    Attributes:
        case: Case that was timed.
        times: Times of vanilla and of the choice.
    """

    case: Case
    times: Times

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
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
            "calls_per_sample": self.times.iterations,
        }


@dataclass(frozen=True)
class Mean:
    """Time of a choice relative to vanilla, averaged over the places of a set.

    Attributes:
        set: Name of the set: layers, blocks or networks.
        sizes: Data set whose image sizes the places have.
        batch: Batch size.
        choice: Text of the choice.
        places: Number of places.
        ratio: Geometric mean of the places' ratios.
        worst: Greatest ratio.
    """

    set: str
    sizes: str
    batch: int
    choice: str
    places: int
    ratio: float
    worst: float


def run(cases: Iterable[Case], settings: Settings) -> Iterator[Result]:
    """Time each case; the number of torch's threads stays changed.

    Raises:
        InputError: If a case does not fit into memory.
    """
    configure_torch(settings)
    synchronize = synchronizer(settings.device)
    for case in cases:
        with cudnn_benchmark(case):
            calls = make_calls(case, settings)
            times = time_alternately(calls, seconds=settings.seconds, synchronize=synchronize)
        yield Result(case, times)


def geometric_means(results: Iterable[Result]) -> list[Mean]:
    """Return the mean of each choice, set, sizes and batch size, in the order of their first results."""
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
    """Return all results with the settings, versions and device, for JSON."""
    results = list(results)
    return {
        "versions": {"nas-recalib": __version__, "torch": str(torch.__version__)},
        **asdict(settings),
        "device": device_name(settings.device),
        "keeps_freed_memory": keep_freed_memory(),
        "cases": [result.as_dict() for result in results],
        "geometric_means": [asdict(mean) for mean in geometric_means(results)],
    }
