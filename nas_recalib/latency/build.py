"""Calibration of a latency table: measure and save one round after another, resume an unfinished file."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from nas_recalib.errors import InputError
from nas_recalib.files import require_writable
from nas_recalib.latency.conditions import Conditions
from nas_recalib.latency.fit import max_choices, run_rounds
from nas_recalib.latency.measure import PairedTimer, Timer
from nas_recalib.latency.table import MAX_ROUNDS, LatencyTable
from nas_recalib.space import SearchSpace
from nas_recalib.timing.cases import Settings

_ROUNDS_PER_CHOICE = 3


def resolve_rounds(space: SearchSpace, rounds: int | None = None) -> int:
    """Return the number of rounds of a table.

    Args:
        space: Search space of the table.
        rounds: Number that the user wants (default: three for every choice of the position with most).

    Raises:
        InputError: If there are too few for every choice to be timed at every position, or too many.
    """
    least = max_choices(space)
    rounds = _ROUNDS_PER_CHOICE * least if rounds is None else rounds
    if not least <= rounds <= MAX_ROUNDS:
        raise InputError(
            f"rounds: {rounds} is not from {least} (so that every choice is timed) to {MAX_ROUNDS:,}"
        )
    return rounds


def default_path(folder: Path, space: SearchSpace, settings: Settings, batch: int) -> Path:
    """Return the default file of a table, and make its folder.

    Raises:
        InputError: If the folder cannot be made.
    """
    compiled = "-compile" if settings.compile else ""
    device = str(settings.device).replace(":", "")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    return folder / f"{space.name}-{device}-b{batch}-{settings.dtype}{compiled}.json"


def build_table(
    path: Path,
    space: SearchSpace,
    settings: Settings,
    batch: int,
    *,
    rounds: int | None = None,
    progress: Callable[[LatencyTable], None] = lambda _: None,
    timer: Timer | None = None,
) -> LatencyTable:
    """Measure a latency table, or resume the one in the file; the file is written after every round.

    Args:
        path: File of the table.
        space: Search space whose choices are timed.
        settings: Device, dtype and so on; `seconds` is the time of one round without warm-up.
        batch: Batch size.
        rounds: Number of rounds of the table (default: that of the file, or three for each choice); a file
            that has more keeps them.
        progress: Function that is called with the table after each round.
        timer: Replacement of a `PairedTimer`.

    Raises:
        InputError: If the file cannot be written or is of other conditions, or there are too few rounds.
    """
    wanted = resolve_rounds(space, rounds)
    require_writable(path)
    table = _resume(path, LatencyTable(space, Conditions.of(settings, batch), wanted, ()), rounds is None)
    missing = range(len(table.rounds), table.wanted)
    if missing and timer is None:
        timer = partial(PairedTimer(table.reference, settings, batch).time, blocks=True)
    for measured in run_rounds(space, settings.seed, missing, timer) if timer else ():
        table = replace(table, rounds=(*table.rounds, measured))
        table.save(path)
        progress(table)
    return table


def _resume(path: Path, new: LatencyTable, keep_wanted: bool) -> LatencyTable:
    """Return the table in the file, if it has the conditions of the new one, else the new one.

    Args:
        path: File of the table.
        new: Table without rounds.
        keep_wanted: Whether the number of rounds is that of the file instead of the new table's.
    """
    if not path.exists():
        return new
    found = LatencyTable.load_unfinished(path)
    if found.space.describe() != new.space.describe():
        raise InputError(f"{path}: made for another space, {found.space.name}; name another file with -o")
    difference = found.conditions.difference(new.conditions)
    if difference:
        raise InputError(f"{path}: made with {difference}; name another file with -o")
    wanted = found.wanted if keep_wanted else new.wanted
    table = replace(found, wanted=max(wanted, len(found.rounds)))
    if table.finished and not found.finished:
        table.save(path)
    return table
