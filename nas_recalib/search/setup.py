"""From what a user asked for to a search ready to run; all is checked before anything is written."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import optuna
import torch

from nas_recalib.costs import Budget, Feasible
from nas_recalib.data import Source, load_resident, open_source
from nas_recalib.device import Described, versions
from nas_recalib.errors import InputError
from nas_recalib.files import dump_yaml, write_atomically
from nas_recalib.plugins import load_study_plugins
from nas_recalib.pricing import Latencies, feasible, find_latencies, meant_batch, price
from nas_recalib.proxy.fidelity import Fidelity, find_fidelity
from nas_recalib.proxy.objective import Proxy
from nas_recalib.proxy.train import Recipe, default_recipe
from nas_recalib.proxy.trainer import refuse_misfits
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.heartbeat import Heartbeat, SingleProcess, StorageHeartbeat
from nas_recalib.search.options import (
    KEPT_OPTIONS,
    Request,
    default_name,
    find_method,
    find_objectives,
    refuse_idle,
)
from nas_recalib.search.scheduler import BASELINES
from nas_recalib.search.search import Search
from nas_recalib.search.warm_start import find_source, warm_start
from nas_recalib.space import SearchSpace
from nas_recalib.study.config import SearchConfig, refuse_difference
from nas_recalib.study.location import StudyLocation, create_study, find_study, read_config, storage_failures
from nas_recalib.study.storage import hide_password, lacks_password
from nas_recalib.study.trials import trained_here, validate_study
from nas_recalib.study.worker_lock import locked_worker

_SEVERAL = (
    "for several processes keep the study in a database (--storage URL), for several devices take --ray local"
)


@contextmanager
def prepared(
    request: Request,
    device: torch.device,
    trains: Described,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Search, SearchConfig]]:
    """A search ready to run, its worker enrolled for as long as the context lasts.

    Args:
        request: For what.
        device: Where images are put.
        trains: Where they are trained on.
        say: Is told what was taken over from another study.

    Raises:
        InputError: If anything asked for cannot be had, or differs from what the study was made with.
    """
    resolved = _resolve(request, device, trains)
    location, config = resolved.location, resolved.config
    checkpoints = Checkpoints(_checkpoints_place(request.checkpoints or config.checkpoints, location))
    with locked_worker(location.folder, alone=not location.shared, advice=_SEVERAL) as worker:
        checkpoints.require_writable()
        study = create_study(location, config.objectives)
        device_name = trains.with_threads(config.threads)
        with storage_failures(location, study), _heartbeat_of(location, study) as heartbeat:
            written = read_config(study)
            if written is not None:
                refuse_difference(location.name, written, config)
            if written != config:  # new, or its images or plugins lie elsewhere now
                study.set_user_attr("config", config.as_dict())
            write_atomically(location.folder / "config.yaml", dump_yaml(config.as_dict()))
            if config.checkpoints and request.checkpoints is None:
                say(f"checkpoints: {checkpoints.folder}, as the study has it")
            search = Search(
                study=study,
                space=resolved.space,
                feasible=resolved.within,
                proxy=resolved.proxy,
                strategy=config.strategy,
                pruner=config.pruner,
                seed=config.seed,
                common_attrs={"fidelity": config.fidelity, "device": device_name, "versions": versions()},
                checkpoints=checkpoints,
                worker=worker,
                shared=location.shared,
                heartbeat=heartbeat,
                retries=config.retries,
                objectives=config.objectives,
                first=BASELINES if config.baselines else (),
            )
            if resolved.other is not None:
                say(f"warm start: {warm_start(search, resolved.other)}")
            yield search, config


def say_baselines(search: Search, config: SearchConfig, say: Callable[[str], None]) -> None:
    """Say how many single-operator networks come first, and whether they leave room for proposals."""
    room, first = config.trials - len(trained_here(search.study)), search.baselines_left()
    if first and room > 0:
        none = f"; with --trials {config.trials} nothing else is trained" if room <= first else ""
        say(f"{first} baselines first (--baselines no to skip){none}")


@dataclass(frozen=True)
class _Resolved:
    """What a request and the study that it names come to.

    Attributes:
        location: Of the study.
        space: What may be chosen.
        within: What is within the budget.
        config: What the study is about.
        proxy: How an architecture is trained.
        other: A study whose trials are to be taken over.
    """

    location: StudyLocation
    space: SearchSpace
    within: Feasible
    config: SearchConfig
    proxy: Proxy
    other: optuna.Study | None


def _resolve(request: Request, device: torch.device, trains: Described) -> _Resolved:
    budget = Budget.parse(request.macs, request.params, request.latency, request.memory)
    location = StudyLocation.of(
        request.study or default_name(request.space, budget), request.runs, request.storage
    )
    stored = _stored_config(location)
    load_study_plugins(location.name, stored.plugins if stored else (), request.plugins)
    asked_space = SearchSpace.load(request.space) if request.space else None
    space = asked_space or (SearchSpace.parse(stored.space, location.name) if stored else None)
    if space is None:
        raise InputError("space: name one with --space, such as --space resnet50")
    if stored:
        budget = replace(stored.budget, **budget.limits())
    objectives = find_objectives(request.objectives, stored)
    if stored:
        asked = replace(stored, space=space.describe(), budget=budget, objectives=objectives)
        refuse_difference(location.name, stored, asked)
    refuse_idle(request, budget, objectives)
    latencies = _latencies(request, stored, space, budget, objectives)
    batch = meant_batch(request.batch or (stored.batch if stored else None), latencies)
    threads = request.threads or (stored.threads if stored else None)
    table = price(space, budget, latencies, batch, threads, objectives)
    within = feasible(space, table, budget)
    asked_data = request.data if request.data not in (None, "auto") else None
    source = open_source(asked_data or (stored.data if stored else "auto"), request.cache)
    method = find_method(request.strategy, request.pruner, stored, objectives, within)
    config = _config(request, stored, space, budget, source, trains, method)
    priced = asdict(latencies) if latencies else None
    config = replace(config, latencies=priced, batch=batch, objectives=objectives)
    if stored:
        refuse_difference(location.name, stored, config)
    refuse_misfits(space, Fidelity(**config.fidelity))
    torch.set_num_threads(config.threads)
    proxy = _proxy(config, request, source, device)
    config = replace(config, split_hash=proxy.data.split)
    other = find_source(request.warm_start, location, config) if request.warm_start else None
    return _Resolved(location, space, within, config, proxy, other)


def _latencies(
    request: Request,
    stored: SearchConfig | None,
    space: SearchSpace,
    budget: Budget,
    objectives: Sequence[str],
) -> Latencies | None:
    """The table that was asked for, or that the study has; none where latency is of no account."""
    if request.latency_table is not None:
        return find_latencies(space, request.latency_table)
    if stored is not None and stored.latencies is not None:
        return Latencies.from_dict(stored.latencies, space)
    asked = budget.latency is not None or "latency" in objectives
    return find_latencies(space, None) if asked else None


def _stored_config(location: StudyLocation) -> SearchConfig | None:
    study = find_study(location)
    if study is None:
        return None
    validate_study(study)
    return read_config(study)


def _config(
    request: Request,
    stored: SearchConfig | None,
    space: SearchSpace,
    budget: Budget,
    source: Source,
    trains: Described,
    method: tuple[str, str],
) -> SearchConfig:
    """What was asked for; where nothing was, what the study has; where there is none, the default."""
    base = (
        Fidelity(**stored.fidelity)
        if stored and request.fidelity is None
        else find_fidelity(request.fidelity or "quick", space, source, torch.device(trains.type))
    )
    names = ("images", "validation", "resolution", "width", "epochs")
    given = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    fidelity = base.changed(len(source.train.labels), **given)
    images = fidelity.images or len(source.train.labels) - fidelity.validation
    recipe = stored.recipe if stored else asdict(default_recipe(images))
    seed = request.seed if request.seed is not None else (stored.seed if stored else 0)
    threads = request.threads or (stored.threads if stored else trains.threads)
    if request.threads and request.threads > trains.cores:
        raise InputError(f"threads: {threads} is more than the {trains.cores} cores of the machine")
    kept = {name: getattr(stored, name) for name in KEPT_OPTIONS} if stored else {}
    return SearchConfig(
        space=space.describe(),
        budget=budget,
        data=source.spec,
        data_note=source.note or (stored.data_note if stored else ""),
        data_hash=source.fingerprint(),
        split_hash=stored.split_hash if stored else "",
        fidelity=fidelity.as_dict(),
        recipe=recipe,
        dtype=stored.dtype if stored else trains.dtype,
        threads=threads,
        strategy=method[0],
        pruner=method[1],
        seed=seed,
        plugins=list(request.plugins or (stored.plugins if stored else ())),
        checkpoints=_kept_checkpoints(request, stored),
        **{**kept, **request.kept_options()},
    )


def _proxy(config: SearchConfig, request: Request, source: Source, device: torch.device) -> Proxy:
    fidelity = Fidelity(**config.fidelity)
    data = load_resident(
        source,
        fidelity.resolution,
        fidelity.images,
        fidelity.validation,
        config.seed,
        cache=request.cache,
        corrupt=config.corrupt,
    )
    return Proxy(
        data=data.to(device),
        width=fidelity.width,
        epochs=fidelity.epochs,
        recipe=Recipe(**config.recipe),
        dtype=getattr(torch, config.dtype),
        seed=config.seed,
    )


def _kept_checkpoints(request: Request, stored: SearchConfig | None) -> str:
    """Return what the study keeps of where its checkpoints are.

    Raises:
        InputError: If it is not asked for again, though a password belongs to it.
    """
    if request.checkpoints is not None:
        is_url = "://" in request.checkpoints
        return hide_password(request.checkpoints) if is_url else str(Path(request.checkpoints).resolve())
    kept = stored.checkpoints if stored else ""
    if lacks_password(kept):
        raise InputError(
            f"checkpoints: the study has them at {kept}; give the whole URL again with --checkpoints, as no "
            "password is kept"
        )
    return kept


def _checkpoints_place(under: str, location: StudyLocation) -> Path | str:
    """Return where the checkpoints of a study are: under a folder or a URL, or else in its own folder."""
    if not under:
        return (location.folder / "checkpoints").resolve()
    return f"{under.rstrip('/')}/{location.name}" if "://" in under else Path(under).resolve() / location.name


def _heartbeat_of(location: StudyLocation, study: optuna.Study) -> AbstractContextManager[Heartbeat]:
    return (
        StorageHeartbeat(study._storage, location.folder) if location.shared else nullcontext(SingleProcess())
    )
