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
from nas_recalib.correlation.plan import KEPT_OPTIONS, REFERENCE, Plan
from nas_recalib.correlation.study import read_plan, validate_study, write_plan
from nas_recalib.costs import Budget, Feasible
from nas_recalib.data import open_source
from nas_recalib.device import default_threads, fast_dtype
from nas_recalib.errors import InputError
from nas_recalib.plugins import load_study_plugins
from nas_recalib.proxy.fidelity import Fidelity, find_fidelity
from nas_recalib.proxy.scores import score_names
from nas_recalib.proxy.trainer import Loader, refuse_misfits
from nas_recalib.space import SearchSpace
from nas_recalib.study.location import StudyLocation, create_study, find_study, storage_failures
from nas_recalib.study.trials import read_all
from nas_recalib.study.worker_lock import locked_worker

_AT_ONCE = 10_000
_ROUNDS = 50


def slice_of(space: SearchSpace, budget: Budget, within: float, seed: int) -> Budget:
    """The upper ends of a slice: of MACs and parameters, and of what else is limited.

    Args:
        space: Which.
        budget: Upper ends where given; the others put the median architecture in the middle.
        within: Width of the slice, as a share of its upper ends.
        seed: Of the draws that the median is taken of.

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
    """Different architectures, each drawn uniformly from those in a slice of costs.

    Args:
        space: Which.
        upper: Greatest costs; every one of them bounds the slice from above.
        within: How far below, as a share, a cost may be.
        count: How many.
        seed: Of the draws; more are drawn after the same first ones.

    Raises:
        InputError: If so many cannot be found.
    """
    feasible = Feasible(space.table, upper)
    random = np.random.default_rng(seed)
    limits = upper.limits()
    least = np.array([(1 - within) * limits[name] for name in space.table.names])
    found: dict[tuple[int, ...], None] = {}
    for _ in range(_ROUNDS):
        indices = feasible.sample_many(_AT_ONCE, random)
        for one in indices[(space.table.costs(indices) >= least).all(axis=1)].tolist():
            found.setdefault(tuple(one))
            if len(found) == count:
                return [space.from_indices(indices) for indices in found]
    raise InputError(
        f"within: of {_AT_ONCE * _ROUNDS:,} architectures within {upper}, {len(found)} different ones are "
        f"less than {within:.0%} below it; {count} were asked for"
    )


WITHIN = 0.05


@dataclass(frozen=True)
class Request:
    """What a user asked for; None is "as the study has it", or the default for a new one.

    Attributes:
        space: Name or path of a space.
        budget: Upper ends of the slice of costs.
        within: Width of the slice, as a share of them.
        architectures: Number of architectures to draw.
        seeds: Number of reference trainings of each.
        reference: Name or file of the longer training's fidelity.
        fidelities: Names or files of those that are held against it; empty as None is elsewhere.
        scores: Names of scores; "all" is all there are, "none" none; empty as None is elsewhere.
        data: Name of a data set.
        corrupt: Treatment of images that cannot be decoded: refuse or skip.
        study: Name of the study (default: the space and "correlation").
        runs: Folder that studies are kept in.
        storage: URL of another storage than the study's own file.
        threads: Of the CPU, for one training.
        seed: That every draw follows from.
        cache: Folder that downloads are kept in.
        plugins: Modules of the user's own operators.
    """

    space: str
    budget: Budget
    within: float | None
    architectures: int | None
    seeds: int | None
    reference: str | None
    fidelities: Sequence[str]
    scores: Sequence[str]
    data: str | None
    corrupt: str | None
    study: str | None
    runs: Path
    storage: str | None
    threads: int | None
    seed: int | None
    cache: Path
    plugins: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Ready:
    """A correlation study that is open and locked.

    Attributes:
        study: Where everything is kept.
        plan: What it is about.
        space: What is drawn from.
        drawn: The architectures.
        scores: Names of the scores.
        images: Where the images come from, and how they are decoded.
        remarks: Lines for the user on how they were chosen and what was left out.
        skipped: Those that were left out, with what is wrong.
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
def prepared(request: Request, device: torch.device) -> Iterator[Ready]:
    """A study ready to run, locked for as long as the context lasts.

    Raises:
        InputError: If anything asked for cannot be had, or differs from what the study was made with.
    """
    if request.within is not None and not 0 < request.within < 1:
        raise InputError(f"within: {request.within:%} is not above 0% and below 100%")
    _scores(request.scores)
    location = StudyLocation.of(
        request.study or f"{Path(request.space).stem}-correlation", request.runs, request.storage
    )
    known = find_study(location)
    stored = None
    if known:
        read_all(known)
        stored = read_plan(known)
    if known and stored is None and known.user_attrs:
        raise InputError(f"study: {location.name!r} is a search; name another with --study")
    if known:
        validate_study(known)
    load_study_plugins(location.name, stored.plugins if stored else (), request.plugins)
    space = SearchSpace.load(request.space)
    plan, remarks = _plan(request, stored, space, device)
    if stored:
        plan = stored.extended(location.name, plan)
    for fidelity in (plan.reference, *plan.fidelities.values()):
        refuse_misfits(space, fidelity)
    scores = _scores(plan.scores)
    drawn = draw(space, plan.upper, plan.within, plan.architectures, plan.seed)
    images = Loader(plan.data, request.cache, plan.corrupt, plan.seed)
    fidelities = (plan.reference, *plan.fidelities.values())
    skipped = dict.fromkeys(fault for fidelity in fidelities for fault in images.load(fidelity).skipped)
    with locked_worker(location.folder, exclusive=True, advice="for several trainings at once take --jobs"):
        study = create_study(location)
        with storage_failures(location, study):
            written = read_plan(study)
            if written:  # perhaps by another process since it was looked for
                plan = written.extended(location.name, plan)
            if plan != written:
                write_plan(study, plan)
            yield Ready(study, plan, space, drawn, scores, images, remarks, tuple(skipped))


def _plan(
    request: Request, stored: Plan | None, space: SearchSpace, device: torch.device
) -> tuple[Plan, tuple[str, ...]]:
    asked_data = request.data if request.data not in (None, "auto") else None
    source = open_source(asked_data or (stored.data if stored else "auto"), request.cache)
    within = request.within if request.within is not None else (stored.within if stored else WITHIN)
    seed = request.seed if request.seed is not None else (stored.seed if stored else 0)
    threads = request.threads or (stored.threads if stored else default_threads())
    if request.threads and threads > (os.cpu_count() or 1):
        raise InputError(f"threads: {threads} is more than the {os.cpu_count()} cores of this machine")

    def find(name: str) -> Fidelity:
        return find_fidelity(name, space, source, device)

    names: dict[str, str] = {}
    for name in request.fidelities or (() if stored else ("quick", "standard")):
        other = names.setdefault(Path(name).stem, name)
        if other != name:
            raise InputError(f"fidelity: {other} and {name} have one name; give one of the files another")
    if REFERENCE in names:
        raise InputError(
            f"fidelity: {REFERENCE!r} is what the others are held against; give the file another name"
        )
    if stored:
        upper = replace(stored.upper, **request.budget.limits())
        reference = find(request.reference) if request.reference else stored.reference
    else:
        upper = slice_of(space, request.budget, within, seed)
        reference = find(request.reference or "thorough")
    kept = {name: getattr(stored, name) for name in KEPT_OPTIONS} if stored else {}
    asked = {**{name: getattr(request, name) for name in KEPT_OPTIONS}, "scores": list(request.scores)}
    plan = Plan(
        space=space.describe(),
        within=within,
        upper=upper,
        data=source.spec,
        data_hash=source.fingerprint(),
        reference=reference,
        fidelities={stem: find(name) for stem, name in names.items()},
        dtype=str(fast_dtype(device)).removeprefix("torch."),
        threads=threads,
        seed=seed,
        plugins=list(request.plugins),
        gate_fan=stored.gate_fan if stored else "fan_in",
        **{**kept, **{name: value for name, value in asked.items() if value}},
    )
    return plan, (source.note, *source.remarks)


def _scores(asked: Sequence[str]) -> tuple[str, ...]:
    if list(asked) == ["none"]:
        return ()
    names = score_names()
    if list(asked) == ["all"]:
        return names
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise InputError(f"score: unknown {unknown[0]!r}; allowed: all, none, {', '.join(names)}")
    return tuple(dict.fromkeys(asked))
