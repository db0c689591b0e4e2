"""Options of a correlation study: names, types, help texts, limits and defaults; imports no torch."""

from dataclasses import dataclass
from typing import Annotated

from nas_recalib.options import (
    RUNS,
    CacheDir,
    Device,
    MaxParams,
    Plugins,
    RunsDir,
    Seed,
    Storage,
    StoredCorruptImages,
    Threads,
    count_option,
    option,
)

ARCHITECTURES = 40
SEEDS = 2


@dataclass(frozen=True)
class CorrelationOptions:
    """Options of a correlation study, as `nas-recalib correlate --help` describes them.

    None stands for the value that the study has, or for the default of a new study.
    """

    space: Annotated[str, option("SPACE", "A space by name (resnet20) or the path of a .yaml file.")]
    macs: Annotated[
        str | None,
        option(
            "MACS",
            "Limit on multiply-accumulates of the slice (default: around the median architecture).",
            "--budget",
        ),
    ] = None
    params: MaxParams = None
    within: Annotated[
        float | None,
        option(
            "PERCENT",
            "Width of the slice: how far MACs and parameters may be below their limits, in per cent "
            "(default: 5).",
        ),
    ] = None
    architectures: Annotated[
        int | None,
        count_option(
            help=f"Number of architectures to draw; a later run can ask for more (default: {ARCHITECTURES}).",
            min=3,
        ),
    ] = None
    seeds: Annotated[
        int | None,
        count_option(
            help=f"Longer trainings of each architecture, one a seed (default: {SEEDS}); a later run can ask "
            "for more.",
            min=1,
        ),
    ] = None
    reference: Annotated[
        str | None,
        option("FIDELITY", "The longer training: quick, standard, thorough (default) or a .yaml file."),
    ] = None
    fidelities: Annotated[
        list[str] | None,
        option(
            "FIDELITY",
            "Fidelity to compare with it; may be repeated (default: quick and standard).",
            "--fidelity",
        ),
    ] = None
    scores: Annotated[
        list[str] | None,
        option(
            "NAME", "Zero-cost proxy to compare with it; may be repeated; or none (default: all).", "--score"
        ),
    ] = None
    data: Annotated[str | None, option("DATA", "Images, as for search (default: auto).")] = None
    corrupt: StoredCorruptImages = None
    study: Annotated[str | None, option("NAME", "Name of the study (default: SPACE-correlation).")] = None
    jobs: Annotated[
        int | None,
        count_option(
            help="Trainings at once (default: as many as the CPU has threads for; one on a GPU).",
            min=1,
            max=1024,
        ),
    ] = None
    runs: RunsDir = RUNS
    storage: Storage = None
    threads: Threads = None
    seed: Seed = None
    device: Device = None
    cache: CacheDir = None
    plugins: Plugins = None
