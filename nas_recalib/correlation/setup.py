"""Set-up of a correlation study: options resolved and validated before anything is written."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import torch

from nas_recalib.architecture import Architecture
from nas_recalib.correlation.options import CorrelationOptions
from nas_recalib.correlation.study import REFERENCE, Plan, read_plan, validate_study, write_plan
from nas_recalib.costs import Budget, Feasible
from nas_recalib.data import Source, open_source
from nas_recalib.device import default_threads, fast_dtype
from nas_recalib.errors import InputError
from nas_recalib.plugins import load_study_plugins
from nas_recalib.proxy.fidelity import Fidelity, find_fidelity
from nas_recalib.proxy.scores import score_names
from nas_recalib.proxy.trainer import Loader, refuse_misfits
from nas_recalib.space import SearchSpace
from nas_recalib.study.location import (
    StudyLocation,
    create_study,
    find_study,
    locked_worker,
    storage_failures,
)
from nas_recalib.study.stored import from_options
from nas_recalib.study.trials import read_all

WITHIN = 0.05
DEFAULT_FIDELITIES = ("quick", "standard")
_STORED_AS_GIVEN = ("architectures", "seeds", "corrupt", "threads", "seed")
_AT_ONCE = 10_000
_ROUNDS = 50


def slice_of(space: SearchSpace, budget: Budget, within: float, seed: int) -> Budget:
    """Return the upper ends of a slice of costs: of MACs and parameters, and of whatever else is limited.

    Args:
        space: Search space.
        budget: Upper ends that are given; the others put the median architecture in the middle of the slice.
        within: Width of the slice, as a fraction of its upper ends.
        seed: Seed of the random architectures that the median is taken of.

    Raises:
        InputError: If nothing is within the budget.
    """
    indices = Feasible(space.table, budget).sample_many(_AT_ONCE, np.random.default_rng(seed))
    medians = np.median(space.table.costs(indices), axis=0)
    upper = {
        name: round(value * (1 + within / 2)) for name, value in zip(space.table.names, medians, strict=True)
    }
    return Budget(**{**upper, **budget.limits()})


def draw(space: SearchSpace, upper: Budget, within: float, count: int, seed: int) -> list[Architecture]:
    """Draw different architectures uniformly from those in a slice of costs.

    Args:
        space: Search space.
        upper: Upper ends of the slice.
        within: Width of the slice, as a fraction of its upper ends.
        count: Number of architectures.
        seed: Seed of the draws; a greater count draws the same architectures first.

    Raises:
        InputError: If too few are found.
    """
    feasible = Feasible(space.table, upper)
    random = np.random.default_rng(seed)
    limits = upper.limits()
    least = np.array([(1 - within) * limits[name] for name in space.table.names])
    found: dict[tuple[int, ...], None] = {}
    for _ in range(_ROUNDS):
        indices = feasible.sample_many(_AT_ONCE, random)
        for row in indices[(space.table.costs(indices) >= least).all(axis=1)].tolist():
            found.setdefault(tuple(row))
            if len(found) == count:
                return [space.from_indices(indices) for indices in found]
    raise InputError(
        f"within: of {_AT_ONCE * _ROUNDS:,} architectures within {upper}, {len(found)} different ones are "
        f"less than {within:.0%} below it; {count} were asked for"
    )


@dataclass(frozen=True, eq=False)
class Ready:
    """Correlation study that is open and locked for this process.

    Attributes:
        study: Study that stores the results.
        plan: Configuration of the study.
        space: Search space.
        drawn: Architectures, in the order of the draw.
        scores: Names of the zero-cost proxies.
        images: Loader of the images.
        remarks: Lines for the user on how the data set was chosen and what it lacks.
        skipped: Images that cannot be decoded, with the reason.
    """

    study: optuna.Study
    plan: Plan
    space: SearchSpace
    drawn: list[Architecture]
    scores: tuple[str, ...]
    images: Loader
    remarks: tuple[str, ...]
    skipped: tuple[str, ...]


@contextmanager
def prepared(options: CorrelationOptions, cache: Path, device: torch.device) -> Iterator[Ready]:
    """Open a correlation study that is ready to run and lock it for this process while the context lasts.

    Args:
        options: Options of the study.
        cache: Folder that downloads and decoded images are kept in.
        device: Device of the trainings.

    Raises:
        InputError: If an option cannot be used or differs from what the study was made with.
    """
    name = options.study or f"{Path(options.space).stem}-correlation"
    location = StudyLocation.of(name, options.runs, options.storage)
    _validate(options)
    stored = _stored_plan(location)
    load_study_plugins(location.name, stored.plugins if stored else (), options.plugins or ())
    space = SearchSpace.load(options.space)
    plan, source = _resolve(options, stored, space, cache, device)
    if stored:
        plan = stored.extended(location.name, plan)
    fidelities = (plan.reference, *plan.fidelities.values())
    for fidelity in fidelities:
        refuse_misfits(space, fidelity)
    scores = _score_names(plan.scores)
    drawn = draw(space, plan.upper, plan.within, plan.architectures, plan.seed)
    images = Loader(plan.data, cache, plan.corrupt, plan.seed)
    skipped = dict.fromkeys(fault for fidelity in fidelities for fault in images.load(fidelity).skipped)
    with locked_worker(
        location.folder, exclusive=True, advice="to train several networks at once use --jobs"
    ):
        study = create_study(location)
        with storage_failures(location, study):
            written = read_plan(study)
            if written:  # perhaps by another process since the options were resolved
                plan = written.extended(location.name, plan)
            if plan != written:
                write_plan(study, plan)
            remarks = (source.note, *source.remarks)
            yield Ready(study, plan, space, drawn, scores, images, remarks, tuple(skipped))


def _validate(options: CorrelationOptions) -> None:
    """Raise InputError for options that are out of range or unknown."""
    if options.within is not None and not 0 < options.within < 100:
        raise InputError(f"within: {options.within:g}% is not above 0% and below 100%")
    if options.threads and options.threads > (os.cpu_count() or 1):
        raise InputError(
            f"threads: {options.threads} is more than the {os.cpu_count()} cores of this machine"
        )
    _score_names(options.scores or ["all"])


def _stored_plan(location: StudyLocation) -> Plan | None:
    study = find_study(location)
    if study is None:
        return None
    attributes, _ = read_all(study)
    plan = read_plan(study)
    if plan is None and attributes:
        raise InputError(f"study: {location.name!r} is a search; name another with --study")
    validate_study(study)
    return plan


def _resolve(
    options: CorrelationOptions, stored: Plan | None, space: SearchSpace, cache: Path, device: torch.device
) -> tuple[Plan, Source]:
    """Return every option as given, else as the study has it, else its default, and the data set."""
    limits = Budget.parse(options.macs, options.params)
    names = _fidelity_names(options.fidelities or (() if stored else DEFAULT_FIDELITIES))
    data = (stored.data if stored else "auto") if options.data in (None, "auto") else options.data
    source = open_source(data, cache)

    def find(name: str) -> Fidelity:
        return find_fidelity(name, space, source, device)

    given = {name: value for name in _STORED_AS_GIVEN if (value := getattr(options, name)) is not None}
    if options.within is not None:
        given["within"] = options.within / 100
    if options.scores:
        given["scores"] = list(options.scores)
    if options.reference or not stored:
        given["reference"] = find(options.reference or "thorough")
    if stored:
        settings = {**vars(stored), **given, "upper": replace(stored.upper, **limits.limits())}
    else:
        settings = {"within": WITHIN, "seed": 0, "threads": default_threads(), **given}
        settings["upper"] = slice_of(space, limits, settings["within"], settings["seed"])
    settings |= {
        "space": space.describe(),
        "data": source.spec,
        "data_hash": source.fingerprint(),
        "fidelities": {stem: find(name) for stem, name in names.items()},
        "dtype": str(fast_dtype(device)).removeprefix("torch."),
        "plugins": list(options.plugins or ()),
    }
    return from_options(Plan, settings), source


def _fidelity_names(given: Sequence[str]) -> dict[str, str]:
    """Return the names or files of fidelities by the names that the study gives them."""
    names: dict[str, str] = {}
    for name in given:
        other = names.setdefault(Path(name).stem, name)
        if other != name:
            raise InputError(f"fidelity: {other} and {name} have the same name; rename one of the files")
    if REFERENCE in names:
        raise InputError(f"fidelity: {REFERENCE!r} is the name of the longer training; rename the file")
    return names


def _score_names(given: Sequence[str]) -> tuple[str, ...]:
    """Return the names of zero-cost proxies; `all` and `none` stand alone."""
    if list(given) == ["none"]:
        return ()
    names = score_names()
    if list(given) == ["all"]:
        return names
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(f"score: unknown {unknown[0]!r}; allowed: all, none, {', '.join(names)}")
    return tuple(dict.fromkeys(given))
