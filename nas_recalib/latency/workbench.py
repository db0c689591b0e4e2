"""One network timed beside a reference, so that whatever slows the machine down is seen in both."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from nas_recalib.architecture import Architecture
from nas_recalib.errors import InputError
from nas_recalib.latency.conditions import require_batch
from nas_recalib.latency.network import BlockClock, build_quickly
from nas_recalib.timing import Settings, time_side_by_side
from nas_recalib.timing.calls import draw, forward_call
from nas_recalib.timing.machine import fastest_convolutions, set_up, synchronizer
from nas_recalib.timing.paired import Call

_MOST_COMPILED = 1_000_000  # regions of one network; they share the code of their classes


@dataclass(frozen=True)
class Sample:
    """What one network took, and what the reference took beside it.

    Attributes:
        reference: Seconds of forward passes of the reference.
        network: Seconds of forward passes of the network, one beside each of those.
        blocks: Median seconds of each of the network's blocks, in their order; empty if not asked for.
    """

    reference: tuple[float, ...]
    network: tuple[float, ...]
    blocks: tuple[float, ...] = ()


Timer = Callable[[Architecture], Sample]


class Workbench:
    """Keeps a reference network, and times others beside it.

    Every call of `time` warms up, then goes forward with each in turn (A B, B A, A B, ...) for about
    `settings.seconds`, three times at least. Whole networks are timed without hooks, blocks in passes of
    their own.

    Args:
        reference: What others stand beside.
        settings: Where and how.
        batch: Images at once.

    Raises:
        InputError: If the batch is not allowed, or training is asked for.
    """

    def __init__(self, reference: Architecture, settings: Settings, batch: int) -> None:
        require_batch(batch)
        if settings.mode != "forward":
            raise InputError(f"mode: {settings.mode!r} is not what latency is measured in; use 'forward'")
        self._settings = settings
        self._batch = batch
        set_up(settings)
        with fastest_convolutions(f"{reference.backbone}, batch {batch}"):
            self._reference = self._call(reference)[0]

    def time(self, architecture: Architecture, *, blocks: bool = False) -> Sample:
        """Times a network, and its blocks if asked for.

        Raises:
            InputError: If it does not fit into the memory there is.
        """
        with fastest_convolutions(f"{architecture.backbone}, batch {self._batch}"), self._compiler():
            network, clock = self._call(architecture)
            times = time_side_by_side(
                [self._reference, network, *([clock.around(network)] if blocks else [])],
                seconds=self._settings.seconds,
                least_rounds=3,
                warm_up=1,
                synchronize=synchronizer(self._settings.device),
            )
        reference, whole, *_ = zip(*times.rounds, strict=True)
        seconds = clock.seconds(len(times.rounds) * times.repeats) if blocks else []
        return Sample(reference, whole, tuple(map(statistics.median, zip(*seconds, strict=True))))

    def _call(self, architecture: Architecture) -> tuple[Call, BlockClock]:
        side = architecture.input_size
        network = build_quickly(architecture, self._settings)
        x = draw((self._batch, 3, side, side), self._settings.seed, torch.float32, self._settings)
        clock = BlockClock(network, list(architecture.blocks), self._settings.device)
        return forward_call(network, x, self._settings), clock

    @contextmanager
    def _compiler(self) -> Iterator[None]:
        """Forgets what was compiled for earlier networks, which slows calls down, and sets no limit to it."""
        if not self._settings.compile:
            yield
            return
        torch.compiler.reset()
        limits = {"recompile_limit": _MOST_COMPILED, "accumulated_recompile_limit": _MOST_COMPILED}
        with torch._dynamo.config.patch(limits):
            yield
