"""Set-up of a search: options resolved, validated and built into a search before anything is written."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch

from nas_recalib.costs import Budget, Feasible
from nas_recalib.data import Source, load_resident, open_source
from nas_recalib.device import Described, versions
from nas_recalib.errors import InputError
from nas_recalib.files import dump_yaml, read_yaml, write_atomically
from nas_recalib.plugins import load_study_plugins
from nas_recalib.pricing import Latencies, cost_table, feasible, find_latencies, resolve_batch
from nas_recalib.proxy.fidelity import Fidelity, find_fidelity
from nas_recalib.proxy.objective import Proxy
from nas_recalib.proxy.train import default_recipe
from nas_recalib.proxy.trainer import refuse_misfits
from nas_recalib.search.checkpoints import Checkpoints
from nas_recalib.search.heartbeat import Heartbeat, SingleProcess, StorageHeartbeat
from nas_recalib.search.oneshot import refuse_one_shot
from nas_recalib.search.options import SearchOptions
from nas_recalib.search.pruning import DEFAULT_PRUNER, PRUNERS
from nas_recalib.search.samplers import DEFAULT, DEFAULT_OF_SEVERAL, STRATEGIES, refuse_unsuitable
from nas_recalib.search.scheduler import BASELINES
from nas_recalib.search.search import Search
from nas_recalib.search.warm_start import find_source, warm_start
from nas_recalib.space import SearchSpace
from nas_recalib.space_file import SpaceFile, find_space
from nas_recalib.study.config import SearchConfig, refuse_difference, validate_objectives
from nas_recalib.study.location import (
    StudyLocation,
    create_study,
    find_study,
    locked_worker,
    read_config,
    storage_failures,
)
from nas_recalib.study.storage import hide_password, lacks_password
from nas_recalib.study.stored import from_options
from nas_recalib.study.trials import ACCURACY, trained_here, validate_study

_SEVERAL_PROCESSES = (
    "to run several processes keep the study in a database (--storage URL), to use several devices add "
    "--ray local"
)
_STORED_AS_GIVEN = (
    "batch",
    "trials",
    "confirm",
    "corrupt",
    "strategy",
    "pruner",
    "retries",
    "threads",
    "seed",
    "evaluator",
    "supernet_epochs",
    "supernet_seeds",
    "supernet_scores",
)
_FIDELITY = ("images", "validation", "resolution", "width", "epochs")  # options that change one value of it


@contextmanager
def prepared(
    options: SearchOptions,
    cache: Path,
    device: torch.device,
    trains: Described,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Search, SearchConfig]]:
    """Open a search that is ready to run and lock its study for this worker while the context lasts.

    Args:
        options: Options of the search.
        cache: Folder that downloads and decoded images are kept in.
        device: Device that images are put on.
        trains: Device that trains.
        say: Function that takes each line of progress.

    Yields:
        The search and its configuration, as the study keeps it.

    Raises:
        InputError: If an option cannot be used or differs from what the study was made with.
    """
    resolved = _resolve(options)
    _validate(options, resolved, trains)
    built = _build(options, resolved, cache, device, trains)
    location, config = resolved.location, built.config
    checkpoints = Checkpoints(_checkpoints_folder(options.checkpoints or config.checkpoints, location))
    with locked_worker(location.folder, exclusive=not location.shared, advice=_SEVERAL_PROCESSES) as worker:
        checkpoints.require_writable()
        study = create_study(location, config.objectives)
        with storage_failures(location, study), _heartbeat_of(location, study) as heartbeat:
            written = read_config(study)
            if written is not None:  # perhaps by another process since the options were resolved
                refuse_difference(location.name, written, config)
            if written != config:
                study.set_user_attr("config", config.as_dict())
            write_atomically(location.folder / "config.yaml", dump_yaml(config.as_dict()))
            if config.checkpoints and options.checkpoints is None:
                say(f"checkpoints: {checkpoints.folder}, as the study has it")
            search = Search(
                study=study,
                space=resolved.space,
                feasible=built.feasible,
                proxy=built.proxy,
                strategy=config.strategy,
                pruner=config.pruner,
                seed=config.seed,
                common_attrs={
                    "fidelity": config.fidelity.as_dict(),
                    "device": trains.with_threads(config.threads),
                    "versions": versions(),
                },
                checkpoints=checkpoints,
                worker=worker,
                shared=location.shared,
                heartbeat=heartbeat,
                retries=config.retries,
                objectives=config.objectives,
                first=BASELINES if config.baselines else (),
            )
            if built.warm_start_from is not None:
                say(f"warm start: {warm_start(search, built.warm_start_from)}")
            yield search, config


def say_baselines(search: Search, config: SearchConfig, say: Callable[[str], None]) -> None:
    """Say how many single-operator networks are trained first, and whether anything else is."""
    remaining, first = config.trials - len(trained_here(search.study)), search.baselines_left()
    if first and remaining > 0:
        none = f"; with --trials {config.trials} nothing else is trained" if remaining <= first else ""
        say(f"{first} baselines first (--baselines no to skip){none}")


@dataclass(frozen=True)
class _Resolved:
    """Options of a search after what was not given is filled in from the study or by defaults.

    Attributes:
        location: Location of the study.
        stored: Configuration that the study has; None for a new one.
        space: Search space.
        settings: Values by keys of `SearchConfig`. Missing are those that follow from the images, the latency
            table or the training device.
    """

    location: StudyLocation
    stored: SearchConfig | None
    space: SearchSpace
    settings: dict[str, Any]

    @property
    def budget(self) -> Budget:
        """Limits on cost."""
        budget: Budget = self.settings["budget"]
        return budget

    @property
    def objectives(self) -> list[str]:
        """Accuracy, then the costs that are minimised besides, if any."""
        objectives: list[str] = self.settings["objectives"]
        return objectives


def _resolve(options: SearchOptions) -> _Resolved:
    """Return every option as given, else as the study has it, else its default."""
    limits = Budget.parse(options.macs, options.params, options.latency, options.memory)
    location = StudyLocation.of(
        options.study or default_name(options.space, limits), options.runs, options.storage
    )
    stored = _stored_config(location)
    load_study_plugins(location.name, stored.plugins if stored else (), options.plugins or ())
    space = _space(options.space, stored, location.name)
    given = {name: value for name in _STORED_AS_GIVEN if (value := getattr(options, name)) is not None}
    given["space"] = space.describe()
    given["budget"] = replace(stored.budget if stored else Budget(), **limits.limits())
    if options.objectives is not None:
        given["objectives"] = validate_objectives([name.strip() for name in options.objectives.split(",")])
    if options.baselines is not None:
        given["baselines"] = options.baselines == "yes"
    if options.plugins:
        given["plugins"] = list(options.plugins)
    if options.data not in (None, "auto"):
        given["data"] = options.data
    if options.checkpoints is not None:
        given["checkpoints"] = _without_password(options.checkpoints)
    if stored:
        settings = {**vars(stored), **given}
    else:
        several = len(given.get("objectives", ())) > 1
        settings = {
            "objectives": [ACCURACY],
            "strategy": DEFAULT_OF_SEVERAL if several else DEFAULT,
            "pruner": "none" if several else DEFAULT_PRUNER,
            "data": "auto",
            "data_note": "",
            "split_hash": "",
            "latencies": None,
            "seed": 0,
            **given,
        }
    one_shot = settings.get("evaluator") == "oneshot"
    if options.strategy is None and one_shot != (settings["strategy"] == "oneshot"):
        settings["strategy"] = "oneshot" if one_shot else DEFAULT
    return _Resolved(location, stored, space, settings)


def _validate(options: SearchOptions, resolved: _Resolved, trains: Described) -> None:
    """Raise InputError for options that are out of range, differ from the study's, or have no effect."""
    settings, objectives = resolved.settings, resolved.objectives
    if options.threads and options.threads > trains.cores:
        raise InputError(f"threads: {options.threads} is more than the {trains.cores} cores of the machine")
    if stored := resolved.stored:  # before anything is read that the study has no use for
        compared = {key: settings[key] for key in ("space", "budget", "objectives", "threads", "seed")}
        refuse_difference(
            resolved.location.name, stored, from_options(SearchConfig, {**vars(stored), **compared})
        )
        if options.checkpoints is None and lacks_password(stored.checkpoints):
            raise InputError(
                f"checkpoints: the study keeps them at {stored.checkpoints}, and passwords are not stored; "
                "give the whole URL again with --checkpoints"
            )
    refuse_unused(options, resolved.budget, objectives)
    refuse_one_shot(options, settings)
    for key, allowed in (("strategy", STRATEGIES), ("pruner", PRUNERS)):
        if settings[key] not in allowed:
            raise InputError(f"{key}: unknown {settings[key]!r}; allowed: {', '.join(allowed)}")
    if len(objectives) > 1 and settings["pruner"] != "none":
        raise InputError(
            f"pruner: {settings['pruner']} needs a single objective; for {', '.join(objectives)} use none"
        )


def refuse_unused(options: SearchOptions, budget: Budget, objectives: Collection[str]) -> None:
    """Raise InputError for an option that has no effect under a budget and objectives."""
    if options.latency_table is not None and budget.latency is None and "latency" not in objectives:
        raise InputError("latency-table: has no effect without a limit; add one with --latency")
    limited = budget.latency is not None or budget.memory is not None
    if options.batch is not None and not limited and {"latency", "memory"}.isdisjoint(objectives):
        raise InputError("batch: has no effect without a limit; add one with --memory")


@dataclass(frozen=True)
class _Built:
    """Parts of a search that are built from its resolved options.

    Attributes:
        config: Configuration, as the study keeps it.
        feasible: Architectures within the budget.
        proxy: Proxy training, with its images on the device.
        warm_start_from: Study whose trials are copied, if one is named.
    """

    config: SearchConfig
    feasible: Feasible
    proxy: Proxy
    warm_start_from: optuna.Study | None


def _build(
    options: SearchOptions, resolved: _Resolved, cache: Path, device: torch.device, trains: Described
) -> _Built:
    """Read the latency table and the images, and build what a search needs from them.

    Raises:
        InputError: If one cannot be read or differs from the study's, nothing is within the budget, or the
            strategy or an operator does not fit.
    """
    settings, space, stored = resolved.settings, resolved.space, resolved.stored
    latencies = _latencies(options.latency_table, resolved)
    batch = resolve_batch(settings.get("batch"), latencies)
    table = cost_table(space, resolved.budget, latencies, batch, settings.get("threads"), resolved.objectives)
    within = feasible(space, table, resolved.budget)
    refuse_unsuitable(settings["strategy"], resolved.objectives, within)
    source = open_source(settings["data"], cache)
    fidelity = _fidelity(options, resolved, source, trains)
    images = fidelity.images or len(source.train.labels) - fidelity.validation
    defaults = {"threads": trains.threads, "dtype": trains.dtype, "recipe": default_recipe(images)}
    read = {
        "batch": batch,
        "latencies": asdict(latencies) if latencies else None,
        "fidelity": fidelity,
        "data": source.spec,
        "data_note": source.note or settings["data_note"],
        "data_hash": source.fingerprint(),
    }
    config = from_options(SearchConfig, {**defaults, **settings, **read})
    if stored:
        refuse_difference(resolved.location.name, stored, config)
    refuse_misfits(space, fidelity)
    torch.set_num_threads(config.threads)
    sizes = (fidelity.resolution, fidelity.images, fidelity.validation)
    data = load_resident(source, *sizes, config.seed, cache=cache, corrupt=config.corrupt)
    proxy = Proxy(
        data=data.to(device),
        width=fidelity.width,
        epochs=fidelity.epochs,
        recipe=config.recipe,
        dtype=getattr(torch, config.dtype),
        seed=config.seed,
    )
    config = replace(config, split_hash=data.split)
    named = options.warm_start
    return _Built(config, within, proxy, find_source(named, resolved.location, config) if named else None)


def _stored_config(location: StudyLocation) -> SearchConfig | None:
    study = find_study(location)
    if study is None:
        return None
    validate_study(study)
    return read_config(study)


def _space(name: str | None, stored: SearchConfig | None, study: str) -> SearchSpace:
    if name:
        return SearchSpace.load(name)
    if stored:
        return SearchSpace.parse(stored.space, study)
    raise InputError("space: name one with --space, such as --space resnet50")


def _latencies(path: Path | None, resolved: _Resolved) -> Latencies | None:
    """Return the latency table that is named, or that the study has; None if latency does not matter."""
    kept = resolved.settings["latencies"]
    if path is None and kept is not None:
        return Latencies.from_dict(kept, resolved.space)
    needed = resolved.budget.latency is not None or "latency" in resolved.objectives
    return find_latencies(resolved.space, path) if path is not None or needed else None


def _fidelity(options: SearchOptions, resolved: _Resolved, source: Source, trains: Described) -> Fidelity:
    if resolved.stored and options.fidelity is None:
        fidelity = resolved.stored.fidelity
    else:
        device = torch.device(trains.type)
        fidelity = find_fidelity(options.fidelity or "quick", resolved.space, source, device)
    given = {name: value for name in _FIDELITY if (value := getattr(options, name)) is not None}
    return fidelity.changed(len(source.train.labels), **given)


def default_name(space: str | None, budget: Budget) -> str:
    """Return the name of a study that is not named: its space and budget, such as resnet50-4g-20ms."""
    if space is None:
        raise InputError("study: name a space with --space or a study with --study")
    name = read_yaml(find_space(space), SpaceFile).name  # its operators may not be loaded yet
    counts = {"": budget.macs, "-params": budget.params}
    others = {"ms": budget.latency, "mb": budget.memory}
    return (
        name
        + "".join(f"-{_short(limit)}{unit}" for unit, limit in counts.items() if limit)
        + "".join(f"-{_millions(limit)}{unit}" for unit, limit in others.items() if limit)
    )


def _short(value: int) -> str:
    """Return 4000000000 as 4g, 4100000000 as 4.1g, 4089184256 as 4089184256."""
    for unit, power in (("g", 9), ("m", 6), ("k", 3)):
        if value >= 10**power and value * 1000 % 10**power == 0:
            return f"{value / 10**power:g}{unit}"
    return str(value)


def _millions(value: int) -> str:
    """Return 20000000 as 20, 1610612736 as 1610.612736."""
    return f"{value // 10**6}.{value % 10**6:06}".rstrip("0").rstrip(".")


def _without_password(checkpoints: str) -> str:
    """Return a folder or URL of checkpoints as the study keeps it."""
    return hide_password(checkpoints) if "://" in checkpoints else str(Path(checkpoints).resolve())


def _checkpoints_folder(base: str, location: StudyLocation) -> Path | str:
    """Return the folder or URL of a study's checkpoints, under a base or else in the study's own folder."""
    if not base:
        return (location.folder / "checkpoints").resolve()
    return f"{base.rstrip('/')}/{location.name}" if "://" in base else Path(base).resolve() / location.name


def _heartbeat_of(location: StudyLocation, study: optuna.Study) -> AbstractContextManager[Heartbeat]:
    return (
        StorageHeartbeat(study._storage, location.folder) if location.shared else nullcontext(SingleProcess())
    )
