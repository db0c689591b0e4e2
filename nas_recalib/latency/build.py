"""Calibration of a latency table: round after round is measured, and the file always holds what is done."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.files import require_writable
from nas_recalib.latency.conditions import Conditions
from nas_recalib.latency.fit import most_choices, run_rounds
from nas_recalib.latency.measure import PairedTimer, Sample, Timer
from nas_recalib.latency.table import MOST_ROUNDS, LatencyTable
from nas_recalib.space import SearchSpace
from nas_recalib.timing import Settings

Progress = Callable[[LatencyTable], None]

_EACH = 3


def rounds_for(space: SearchSpace, asked: int | None = None) -> int:
    """Rounds of a table: as asked, or three for every choice of the position that has most.

    Raises:
        InputError: If they are too few for every choice to stand everywhere, or beyond all patience.
    """
    least = most_choices(space)
    rounds = _EACH * least if asked is None else asked
    if not least <= rounds <= MOST_ROUNDS:
        told = f"from {least}, the choices of a position, to {MOST_ROUNDS:,}"
        raise InputError(f"rounds: {rounds} is not {told}")
    return rounds


def default_path(folder: Path, space: SearchSpace, settings: Settings, batch: int) -> Path:
    """Where a table is kept if not told otherwise; the folder is made.

    Raises:
        InputError: If it cannot be.
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
    progress: Progress = lambda _: None,
    timer: Timer | None = None,
) -> LatencyTable:
    """Makes a table, or goes on with the one in the file; it is written after every round.

    Args:
        path: The file.
        space: Whose choices are timed.
        settings: Where and how; `seconds` are those of one round, beside warming up.
        batch: Images at once.
        rounds: Number of rounds that the table is to have (default: as it was begun with, or three for each
            choice); one that has more keeps them.
        progress: Is told of the table as it is after each round.
        timer: In the place of a `PairedTimer`.

    Raises:
        InputError: If the file cannot be written or holds something else, or there are too few rounds.
    """
    wanted = rounds_for(space, rounds)
    require_writable(path)
    table = _start(path, LatencyTable(space, Conditions.of(settings, batch), wanted, ()), rounds is None)
    numbers = range(len(table.rounds), table.wanted)
    if numbers and timer is None:
        timer = _timer(PairedTimer(table.reference, settings, batch))
    for done in run_rounds(space, settings.seed, numbers, timer) if timer else ():
        table = replace(table, rounds=(*table.rounds, done))
        table.save(path)
        progress(table)
    return table


def _start(path: Path, fresh: LatencyTable, keep_wanted: bool) -> LatencyTable:
    """What the file holds, if that was made as the fresh table is to be, with as many rounds or its own."""
    if not path.exists():
        return fresh
    found = LatencyTable.load_unfinished(path)
    if found.space.describe() != fresh.space.describe():
        raise InputError(f"{path}: made for another space, {found.space.name}; name another file with -o")
    difference = found.conditions.difference(fresh.conditions)
    if difference:
        raise InputError(f"{path}: made with another {difference}; name another file with -o")
    wanted = found.wanted if keep_wanted else fresh.wanted
    table = replace(found, wanted=max(wanted, len(found.rounds)))
    if table.finished and not found.finished:
        table.save(path)
    return table


def _timer(paired_timer: PairedTimer) -> Timer:
    def time(architecture: Architecture) -> Sample:
        return paired_timer.time(architecture, blocks=True)

    return time
